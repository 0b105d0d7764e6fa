"""Compression and encryption of WAL files: bytes in, bytes out, in formats that standard tools open."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import deflate
import lz4.frame
import pyrage
import zstandard
from zlib_ng import zlib_ng

from wal_pipeline.archive.records import Codec, Encoding
from wal_pipeline.errors import CodecError, SettingsError
from wal_pipeline.stores.base import Body
from wal_pipeline.wal.names import MAX_WAL_SEGMENT_SIZE
from wal_pipeline.wal.page_header import LONG_HEADER_BYTES

DEFAULT_LEVELS: Final = {Codec.GZIP: 9, Codec.ZSTD: 3, Codec.LZ4: 0, Codec.NONE: 0}
LEVELS: Final = {Codec.GZIP: (1, 9), Codec.ZSTD: (-7, 22), Codec.LZ4: (-7, 16), Codec.NONE: (0, 0)}
# The largest segment that cannot be compressed, with what a codec and age add to it: nothing larger is ever a copy.
MAX_STORED_BYTES: Final = MAX_WAL_SEGMENT_SIZE + (MAX_WAL_SEGMENT_SIZE >> 6) + (1 << 20)
_DAMAGE: Final[tuple[Any, ...]] = (zlib_ng.error, zstandard.ZstdError, RuntimeError, EOFError)
_GZIP_WINDOW: Final = 31  # zlib's way to say: a gzip header and trailer around a 32 KiB window
# For each gzip level libdeflate's fastest one whose files are within 2 % of what zlib makes of WAL at that level, or
# smaller: 'make bench ARGS="--only codecs"' measures it, docs/adr/0005 says why.
_LIBDEFLATE_LEVELS: Final = {1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 6: 5, 7: 5, 8: 6, 9: 6}
# With zstd's own window of 2 MiB the quick levels take longer for WAL of the same size within 1 % (measured there too).
_QUICK_WINDOW_LOG: Final = 19
_QUICK_ZSTD_LEVEL: Final = 5


@dataclass(frozen=True, slots=True)
class Encoded:
    """A file's bytes as they are stored, and what was done to them."""

    body: Body
    encoding: Encoding

    def timed(self, seconds: float) -> "Encoded":
        """Return the same with the wall time that it took."""
        return replace(self, encoding=replace(self.encoding, seconds=seconds))


class Encoder:
    """Compresses, then encrypts where there are recipients. One encoder serves many threads."""

    def __init__(self, codec: Codec, level: int | None = None, recipients: Sequence[str] = ()) -> None:
        """``level`` None is the codec's default; ``recipients`` are age public keys (``age1…``) or SSH public keys.

        Raises: SettingsError for a level that the codec does not have or a recipient that age cannot read.
        """
        self.codec = codec
        self.level = DEFAULT_LEVELS[codec] if level is None else level
        lowest, highest = LEVELS[codec]
        if not lowest <= self.level <= highest:
            raise SettingsError(
                f"codec '{codec}' has no level {self.level}: expected {lowest} to {highest}",
                hint="Set WAL_PIPELINE_CODEC_LEVEL, or leave it out for the codec's usual level.",
            )
        self._recipients = [_recipient(text) for text in recipients]

    @property
    def encrypted(self) -> bool:
        """Whether what it makes needs an identity to open."""
        return bool(self._recipients)

    def encode(self, data: bytes) -> Encoded:
        """Return ``data`` compressed and encrypted, with the digests of the stored bytes."""
        return describe(self._encrypt(self.compress(data)), self.codec, encrypted=self.encrypted)

    def compress(self, data: bytes) -> bytes:
        """Return ``data`` in the codec's file format. The same bytes give the same result."""
        match self.codec:
            case Codec.GZIP:
                return gzip_member(data, self.level)
            case Codec.ZSTD:
                return _zstd_compressor(self.level, len(data)).compress(data)
            case Codec.LZ4:
                return bytes(lz4.frame.compress(data, compression_level=self.level, content_checksum=True))
            case Codec.NONE:
                return data

    def _encrypt(self, data: bytes) -> bytes:
        return bytes(pyrage.encrypt(data, self._recipients)) if self._recipients else data


def _zstd_compressor(level: int, size_bytes: int) -> zstandard.ZstdCompressor:
    chosen = zstandard.ZstdCompressionParameters.from_level(level, source_size=size_bytes, write_checksum=True)
    if level <= _QUICK_ZSTD_LEVEL and chosen.window_log > _QUICK_WINDOW_LOG:
        chosen = zstandard.ZstdCompressionParameters.from_level(
            level, source_size=size_bytes, write_checksum=True, window_log=_QUICK_WINDOW_LOG
        )
    return zstandard.ZstdCompressor(compression_params=chosen)


def gzip_member(data: bytes, level: int) -> bytes:
    """Return one gzip member (RFC 1952) that holds ``data``; levels 1 to 9 are about as small as zlib's."""
    return bytes(deflate.gzip_compress(data, _LIBDEFLATE_LEVELS[level]))


def describe(stored: bytes, codec: Codec, *, encrypted: bool) -> Encoded:
    """Hash bytes that are stored, or are about to be."""
    md5 = hashlib.md5(stored, usedforsecurity=False)
    sha256 = hashlib.sha256(stored).hexdigest()
    encoding = Encoding(codec, encrypted, len(stored), sha256, md5.hexdigest())
    return Encoded(Body(stored, md5.digest(), sha256), encoding)


def open_stored(
    data: bytes,
    codec: Codec,
    *,
    encrypted: bool,
    identities: Sequence[Any] = (),
    max_size_bytes: int,
    size_of_start: Callable[[bytes], int] | None = None,
) -> bytes:
    """Return a file's own bytes from its stored bytes.

    ``max_size_bytes`` bounds the result, so that a small object cannot fill the memory. ``size_of_start`` is given the
    result's first bytes (a page header's) before the rest is opened, and returns another bound.

    Raises: CodecError where the bytes are damaged, cut short, too large when opened, or no identity fits; what
    ``size_of_start`` raises.
    """
    if encrypted:
        data = _decrypt(data, identities)
    open_up_to = _OPENERS[codec]
    try:
        if size_of_start is not None:
            max_size_bytes = min(max_size_bytes, size_of_start(_start(data, open_up_to)))
        opened = open_up_to(data, max_size_bytes)
    except _DAMAGE as error:
        raise CodecError(f"bytes are not whole {codec} data: {error}") from error
    if len(opened) > max_size_bytes:
        raise CodecError(f"{codec} data opens to more than {max_size_bytes} bytes")
    return opened


def _start(data: bytes, open_up_to: Callable[[bytes, int], bytes]) -> bytes:
    return open_up_to(data, LONG_HEADER_BYTES)[:LONG_HEADER_BYTES]


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


def _decrypt(data: bytes, identities: Sequence[Any]) -> bytes:
    if not identities:
        raise CodecError(
            "the object is encrypted and there is no identity to open it with",
            hint="Set WAL_PIPELINE_AGE_IDENTITY_FILE to the file with the age identity.",
        )
    try:
        return bytes(pyrage.decrypt(data, list(identities)))
    except pyrage.DecryptError as error:
        raise CodecError(f"the object cannot be decrypted: {error}") from error


def _open_gzip(data: bytes, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while data:
        opener = zlib_ng.decompressobj(_GZIP_WINDOW)
        part = opener.decompress(data, limit + 1 - size)
        parts.append(part)
        size += len(part)
        if size > limit:
            break
        if not opener.eof:
            raise EOFError("it is cut short")
        data = opener.unused_data
    if not parts:
        raise EOFError("it is empty")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _open_zstd(data: bytes, limit: int) -> bytes:
    opener = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True)
    opened = opener.read(limit + 1)
    if len(opened) <= limit:
        _require_whole_zstd(data, len(opened))
    return opened


def _require_whole_zstd(data: bytes, size: int) -> None:
    """The stream reader takes a cut frame's end for the end of the data: our frames say their size."""
    promised = zstandard.get_frame_parameters(data).content_size if data else -1
    if promised not in (size, zstandard.CONTENTSIZE_UNKNOWN):
        raise EOFError("it is cut short")


def _open_lz4(data: bytes, limit: int) -> bytes:
    opener = lz4.frame.LZ4FrameDecompressor()
    opened = bytes(opener.decompress(data, max_length=limit + 1))
    if len(opened) <= limit and not opener.eof:
        opened += bytes(opener.decompress(b"", max_length=limit + 1 - len(opened)))
        if len(opened) <= limit and not opener.eof:
            raise EOFError("it is cut short")
    return opened


def _open_none(data: bytes, limit: int) -> bytes:  # noqa: ARG001 - the caller compares the size
    return data


_OPENERS: Final = {
    Codec.GZIP: _open_gzip,
    Codec.ZSTD: _open_zstd,
    Codec.LZ4: _open_lz4,
    Codec.NONE: _open_none,
}
