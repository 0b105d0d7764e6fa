"""Decrypts and decompresses one object of a base backup as a stream."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import lz4.frame
import zstandard
from zlib_ng import zlib_ng

from wal_pipeline.archive.format.base_backup.manifest import BackupObject
from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.age import decrypt_stream
from wal_pipeline.codec.decoder import DAMAGE, GZIP_WINDOW
from wal_pipeline.errors import CodecError

if TYPE_CHECKING:
    from wal_pipeline.codec.stream_encoder import Source

READ_BYTES: Final = 1 << 18
_PIECE_BYTES: Final = 1 << 18  # the most that is opened at once, however much a small object opens to
_MAX_WINDOW_BYTES: Final = 1 << 27  # 'zstd -d' allows no more, and no level asks for more
Sink = Callable[[bytes], object]


class StoredStream:
    """The stored bytes. An exception of reading is kept in ``error``: age hides it."""

    def __init__(self, stream: "Source") -> None:
        self.error: Exception | None = None
        self._stream = stream

    def read(self, size: int = READ_BYTES) -> bytes:
        """Read stored bytes; keep the exception where that fails, and raise it."""
        try:
            return self._stream.read(size)
        except Exception as error:
            self.error = error
            raise


class StreamOpener:
    """Decompresses the bytes that are written to it: any number of members or frames, one after the other."""

    def __init__(self, codec: Codec, item: BackupObject, sink: Sink) -> None:
        self.error: Exception | None = None
        self._codec = codec
        self._item = item
        self._sink = sink
        self._frame: Any = None
        self._size_bytes = 0

    def write(self, data: bytes) -> int:
        """Decompress some stored bytes and pass them on. Raises: CodecError; the exceptions of the sink."""
        try:
            self._decompress(data)
        except DAMAGE as error:
            self.error = CodecError(f"it is not whole {self._codec} data: {error}")
            raise self.error from error
        except Exception as error:
            self.error = error
            raise
        return len(data)

    def flush(self) -> None:
        """Do nothing: the sink takes what it is given."""

    def finish(self) -> None:
        """Say that all bytes came. Raises: CodecError where the data ended too early or was of another length."""
        # zstd's writer does not say where a frame ends; the size and the checksum of the stored bytes do.
        whole = self._codec in (Codec.NONE, Codec.ZSTD) or (self._frame is not None and self._frame.eof)
        if not whole or self._size_bytes != self._item.content_size_bytes:
            raise CodecError(f"it opens to {self._size_bytes} bytes, expected {self._item.content_size_bytes}")

    def _decompress(self, data: bytes) -> None:
        if self._codec is Codec.NONE:
            self._emit(data)
            return
        if self._codec is Codec.ZSTD:
            self._frame = self._frame or _zstd_frames(_Pieces(self._emit))
            self._frame.write(data)
            return
        while data or not self._takes_more():
            if self._frame is None or self._frame.eof:
                self._frame = _FRAMES[self._codec]()
            self._emit(self._frame.decompress(data, _PIECE_BYTES))
            data = self._frame.unused_data if self._frame.eof else getattr(self._frame, "unconsumed_tail", b"")

    def _takes_more(self) -> bool:
        """Whether all written bytes are opened; lz4 keeps those that did not fit into a piece."""
        return self._frame is None or self._frame.eof or getattr(self._frame, "needs_input", True)

    def _emit(self, data: bytes) -> None:
        self._size_bytes += len(data)
        if self._size_bytes > self._item.content_size_bytes:
            raise CodecError(f"it opens to more than {self._item.content_size_bytes} bytes")
        if data:
            self._sink(data)


@dataclass(frozen=True, slots=True)
class _Pieces:
    """The object that zstd writes its pieces to."""

    write: Callable[[bytes], object]


def _zstd_frames(pieces: _Pieces) -> Any:
    opener = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
    return opener.stream_writer(pieces, write_size=_PIECE_BYTES, closefd=False)  # type: ignore[arg-type]


_FRAMES: Final[dict[Codec, Callable[[], Any]]] = {
    Codec.GZIP: lambda: zlib_ng.decompressobj(GZIP_WINDOW),
    Codec.LZ4: lz4.frame.LZ4FrameDecompressor,
}


def open_stream(source: StoredStream, opener: StreamOpener, encrypted: bool, identities: Sequence[Any]) -> None:
    """Pass the stored bytes through age, where they are encrypted, and on to ``opener``.

    Raises: CodecError; the exceptions of ``source`` and of the opener's sink.
    """
    if encrypted:
        decrypt_stream(source, opener, identities)
    else:
        while data := source.read():
            opener.write(data)
    opener.finish()
