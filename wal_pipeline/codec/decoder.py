"""Opens the stored bytes of a WAL file again, and never to more bytes than the caller allows."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import lz4.frame
import zstandard
from zlib_ng import zlib_ng

from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.age import decrypt
from wal_pipeline.errors import CodecError
from wal_pipeline.wal.names import MAX_WAL_SEGMENT_SIZE
from wal_pipeline.wal.page_header import LONG_HEADER_BYTES

# The largest segment, incompressible, and the bytes that a codec and age add to it: nothing larger is ever a copy.
MAX_STORED_BYTES: Final = MAX_WAL_SEGMENT_SIZE + (MAX_WAL_SEGMENT_SIZE >> 6) + (1 << 20)
# The codecs raise these for bytes that are damaged or cut short.
DAMAGE: Final[tuple[Any, ...]] = (zlib_ng.error, zstandard.ZstdError, RuntimeError, EOFError)
GZIP_WINDOW: Final = 31  # zlib's way to say: a gzip header and trailer around a 32 KiB window


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

    Raises: CodecError where the bytes are damaged, cut short, too large when opened, or no identity fits; the
    exceptions of ``size_of_start``.
    """
    if encrypted:
        data = decrypt(data, identities)
    open_up_to = _OPENERS[codec]
    try:
        if size_of_start is not None:
            max_size_bytes = min(max_size_bytes, size_of_start(_start(data, open_up_to)))
        opened = open_up_to(data, max_size_bytes)
    except DAMAGE as error:
        raise CodecError(f"bytes are not whole {codec} data: {error}") from error
    if len(opened) > max_size_bytes:
        raise CodecError(f"{codec} data opens to more than {max_size_bytes} bytes")
    return opened


def _start(data: bytes, open_up_to: Callable[[bytes, int], bytes]) -> bytes:
    return open_up_to(data, LONG_HEADER_BYTES)[:LONG_HEADER_BYTES]


def _open_gzip(data: bytes, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while data:
        opener = zlib_ng.decompressobj(GZIP_WINDOW)
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
