"""Reads age recipients and identities, and decrypts with them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyrage

from wal_pipeline.errors import CodecError, SettingsError


def load_recipients(texts: Sequence[str]) -> list[Any]:
    """Read age public keys (``age1…``) or SSH public keys. Raises: SettingsError."""
    return [_recipient(text) for text in texts]


def load_identities(path: Path) -> list[Any]:
    """Read the age identities (``AGE-SECRET-KEY-1…``, one a line, ``#`` comments) or one SSH private key of a file.

    Raises: SettingsError, without any of the file's content.
    """
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"age identity file '{path}' cannot be read: {type(error).__name__}") from None
    try:
        if "PRIVATE KEY" in text:
            return [pyrage.ssh.Identity.from_buffer(text.encode("ascii"))]
        lines = [line.strip() for line in text.splitlines()]
        return [pyrage.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
    except pyrage.IdentityError:
        raise SettingsError(
            f"age identity file '{path}' holds no identity that can be read", hint="age-keygen makes such a file."
        ) from None


def _recipient(text: str) -> Any:
    kind = pyrage.ssh.Recipient if text.startswith("ssh-") else pyrage.x25519.Recipient
    try:
        return kind.from_str(text)
    except pyrage.RecipientError as error:
        shown = "AGE-SECRET-KEY-…" if text.upper().startswith("AGE-SECRET-KEY") else text  # a secret in the wrong place
        raise SettingsError(
            f"age recipient '{shown}' cannot be read: {str(error).replace(text, shown)}",
            hint="A recipient is a public key: 'age1…' as age-keygen prints it, or an SSH public key.",
        ) from error


def decrypt(data: bytes, identities: Sequence[Any]) -> bytes:
    """Return the plain bytes of an age file. Raises: CodecError where no identity fits."""
    if not identities:
        raise CodecError(
            "the object is encrypted and there is no identity to open it with",
            hint="Set WAL_PIPELINE_AGE_IDENTITY_FILE to the file with the age identity.",
        )
    try:
        return bytes(pyrage.decrypt(data, list(identities)))
    except pyrage.DecryptError as error:
        raise CodecError(f"the object cannot be decrypted: {error}") from error
