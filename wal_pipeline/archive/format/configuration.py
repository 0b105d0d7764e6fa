"""Describes the object of a base backup that holds the configuration files outside the data directory.

``configuration.tar<codec>[.age]`` is a tar, compressed and encrypted as the base backup's other objects. Each file has
the name of its path without the first ``/``. The tar's first file is ``wal-pipeline-configuration.json``: which of the
paths are ``config_file``, ``hba_file`` and ``ident_file``, the data directory, the folders that are included, the links
that lay directly in the data directory (such as ``pg_wal``), and which files could not be read, with the reason. The
object exists where any of this is outside the data directory.
"""

import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final

from wal_pipeline.archive.format.keys import ENCRYPTED_SUFFIX
from wal_pipeline.archive.records import Codec
from wal_pipeline.errors import BaseBackupError

MAX_TAR_BYTES: Final = 32 << 20
_DESCRIPTION: Final = "wal-pipeline-configuration.json"
_VERSION: Final = 1


def configuration_name(codec: Codec, *, encrypted: bool) -> str:
    """Return the name of the object that holds the configuration files."""
    return f"configuration.tar{codec.suffix}{ENCRYPTED_SUFFIX if encrypted else ''}"


@dataclass(frozen=True, slots=True)
class KeptConfiguration:
    """The configuration of a server, as far as it was outside its data directory. Paths are those on its host.

    ``config_file``, ``hba_file`` and ``ident_file`` may be in the data directory: then they are not in ``files``.
    ``folders`` are those of an ``include_dir``, ``links`` map names in the data directory to what they pointed to, and
    ``missing`` maps files that could not be read to the reason.
    """

    data_directory: str
    config_file: str
    hba_file: str
    ident_file: str
    files: Mapping[str, bytes] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is outside the data directory."""
        return not (self.files or self.folders or self.links or self.missing)

    def is_inside(self, path: str) -> bool:
        """Return whether a path is in the data directory."""
        return PurePosixPath(self.data_directory) in PurePosixPath(path).parents


def configuration_to_tar(kept: KeptConfiguration) -> bytes:
    """Return the bytes of the tar."""
    described = {
        "version": _VERSION,
        "data_directory": kept.data_directory,
        "config_file": kept.config_file,
        "hba_file": kept.hba_file,
        "ident_file": kept.ident_file,
        "files": sorted(kept.files),
        "folders": list(kept.folders),
        "links": dict(kept.links),
        "missing": dict(kept.missing),
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, _DESCRIPTION, (json.dumps(described, indent=1) + "\n").encode("ascii"))
        for path, data in sorted(kept.files.items()):
            _add(tar, path.lstrip("/"), data)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o600
    tar.addfile(member, io.BytesIO(data))


def configuration_from_tar(data: bytes) -> KeptConfiguration:
    """Read the tar. Raises: BaseBackupError where it is not one of ours, or names a place that no file can have."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            contents = {member.name: _content(tar, member) for member in tar.getmembers()}
        return _kept(json.loads(contents.pop(_DESCRIPTION)), contents)
    except (tarfile.TarError, KeyError, ValueError, TypeError, AttributeError, OSError) as error:
        raise BaseBackupError(f"the configuration files of the base backup cannot be read: {error}") from error


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    opened = tar.extractfile(member) if member.isreg() else None
    if opened is None:
        raise ValueError(f"'{member.name}' is no file")
    return opened.read()


def _kept(described: dict[str, Any], contents: Mapping[str, bytes]) -> KeptConfiguration:
    if described["version"] != _VERSION:
        raise ValueError(f"version {described['version']}, expected {_VERSION}")
    kept = KeptConfiguration(
        **{name: str(described[name]) for name in ("data_directory", "config_file", "hba_file", "ident_file")},
        files={str(path): contents[str(path).lstrip("/")] for path in described["files"]},
        folders=tuple(str(path) for path in described["folders"]),
        links={str(name): str(target) for name, target in described["links"].items()},
        missing={str(path): str(reason) for path, reason in described["missing"].items()},
    )
    for path in (*kept.files, *kept.folders, kept.data_directory, kept.config_file, kept.hba_file, kept.ident_file):
        if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
            raise ValueError(f"'{path}' is no absolute path")
    return kept
