"""Reads age recipients and identities, and decrypts bytes and streams with them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import pyrage

from wal_pipeline.errors import CodecError, SettingsError

_SSH_HINT: Final = (
    "An SSH key must be ed25519 or RSA, without a passphrase: 'ssh-keygen -p' takes a passphrase off a copy of it."
)


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
    is_ssh = "PRIVATE KEY" in text
    try:
        if is_ssh:
            return [pyrage.ssh.Identity.from_buffer(text.encode("ascii"))]
        lines = [line.strip() for line in text.splitlines()]
        found = [pyrage.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
    except pyrage.IdentityError:
        found = []
    if not found:
        message = f"age identity file '{path}' holds no identity that can be read"
        raise SettingsError(message, hint=_SSH_HINT if is_ssh else "age-keygen makes such a file.")
    return found


def encrypt(data: bytes, recipients: Sequence[Any]) -> bytes:
    """Return the bytes as an age file for the recipients."""
    return bytes(pyrage.encrypt(data, list(recipients)))


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


class EncryptedSource(Protocol):
    """The bytes of an age file. ``error`` keeps an exception of ``read``, which pyrage hides."""

    error: Exception | None

    def read(self, size: int, /) -> bytes: ...


class PlainSink(Protocol):
    """Takes the plain bytes of an age file. ``error`` keeps an exception of ``write``, which pyrage hides."""

    error: Exception | None

    def write(self, data: bytes, /) -> int: ...

    def flush(self) -> None: ...


def decrypt(data: bytes, identities: Sequence[Any]) -> bytes:
    """Return the plain bytes of an age file. Raises: CodecError where no identity fits."""
    _require_identity(identities, "the object")
    try:
        return bytes(pyrage.decrypt(data, list(identities)))
    except pyrage.DecryptError as error:
        raise CodecError(f"the object cannot be decrypted: {error}") from error


def decrypt_stream(source: EncryptedSource, sink: PlainSink, identities: Sequence[Any]) -> None:
    """Pass the plain bytes of an age file from ``source`` to ``sink`` in bounded memory.

    Raises: CodecError where no identity fits; the exceptions of ``source`` and ``sink``.
    """
    _require_identity(identities, "it")
    try:
        pyrage.decrypt_io(source, sink, list(identities))
    except pyrage.DecryptError as error:
        raise source.error or sink.error or CodecError(f"it cannot be decrypted: {error}") from error
    failed = source.error or sink.error  # pyrage loses an exception of the sink at the last chunk
    if failed is not None:
        raise failed


def _require_identity(identities: Sequence[Any], thing: str) -> None:
    if not identities:
        raise CodecError(
            f"{thing} is encrypted and there is no identity to open it with",
            hint="Set WAL_PIPELINE_AGE_IDENTITY_FILE to the file with the age identity.",
        )
