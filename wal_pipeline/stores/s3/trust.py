"""Makes the file of authorities that a store's certificate is checked against: the usual ones, and one's own."""

import os
import re
import ssl
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

import certifi

from wal_pipeline.errors import SettingsError

_CERTIFICATE: Final = re.compile("-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----")
_HINT: Final = "WAL_PIPELINE_CA_BUNDLE must name a file of certificates in PEM form, or a folder of such files."


def trusted_authorities(bundle: Path | None) -> str:
    """Return the path of a file with all authorities to trust: certifi's, and those of the ``bundle`` beside them.

    The path is good as long as this process lives. Raises: SettingsError where the bundle cannot be used.
    """
    return certifi.where() if bundle is None else _joined(bundle)


def count_authorities(bundle: Path) -> int:
    """Return how many authorities a bundle adds. Raises: SettingsError where it cannot be used."""
    return sum(len(_CERTIFICATE.findall(text)) for text in _certificates(bundle))


@cache
def _joined(bundle: Path) -> str:
    own = "\n".join(_certificates(bundle))
    # In memory: a process that fetches one WAL file needs no place to write to.
    descriptor = os.memfd_create("wal-pipeline-authorities")
    with open(descriptor, "w", encoding="utf-8", closefd=False) as file:
        file.write(Path(certifi.where()).read_text("utf-8") + "\n" + own)
    return f"/proc/self/fd/{descriptor}"


def _certificates(bundle: Path) -> list[str]:
    """Return the text of the bundle's files. In a folder those without a certificate do not count."""
    if not bundle.is_dir():
        return [_read(bundle)]
    found = []
    for path in sorted(bundle.iterdir()):
        with suppress(SettingsError):
            found.append(_read(path))
    if not found:
        raise SettingsError(f"CA bundle '{bundle}' has no file with a certificate", hint=_HINT)
    return found


def _read(path: Path) -> str:
    """Return the text of a file with certificates. Raises: SettingsError."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
        return path.read_text("utf-8", "replace")
    except ssl.SSLError as error:
        raise SettingsError(f"CA bundle '{path}' holds no certificate that can be read", hint=_HINT) from error
    except OSError as error:
        raise SettingsError(f"CA bundle '{path}' cannot be read: {error.strerror}", hint=_HINT) from error
