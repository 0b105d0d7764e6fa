"""Compresses and encrypts streams of any length, into formats that standard tools open."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, Protocol

import lz4.frame
import pyrage
import zstandard

from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.age import load_recipients
from wal_pipeline.codec.encoder import QUICK_WINDOW_LOG, QUICK_ZSTD_LEVEL, gzip_member
from wal_pipeline.codec.levels import BASE_BACKUP_LEVELS, choose_level
from wal_pipeline.errors import CodecError
from wal_pipeline.host.limits import usable_cores

MAX_THREADS: Final = 16
_READ_BYTES: Final = 1 << 20
_BLOCK_BYTES: Final = 4 << 20
_FRAME_BYTES: Final = 1 << 20
_QUICK_TABLE_LOG: Final = 15


class Source(Protocol):
    """A source of bytes: ``read`` returns up to ``size`` of them, and none only at the end."""

    def read(self, size: int, /) -> bytes: ...


Sink = Callable[[bytes], object]
Block = bytes | memoryview


class StreamEncoder:
    """Compresses with several threads, then encrypts where there are recipients, in memory that does not grow.

    gzip and lz4 come as many members and frames, which ``gunzip`` and ``lz4 -d`` read as one file; zstd as one frame,
    or as many where it is quick and in one thread, which ``zstd -d`` reads as one file too.
    """

    def __init__(
        self, codec: Codec, level: int | None = None, *, threads: int | None = None, recipients: Sequence[str] = ()
    ) -> None:
        """``level`` None is the codec's default for base backups, ``threads`` None one for each core.

        Raises: SettingsError for a level that the codec does not have or a recipient that age cannot read.
        """
        self.codec = codec
        variable = "WAL_PIPELINE_BASE_BACKUP_CODEC_LEVEL"
        self.level = choose_level(codec, level, BASE_BACKUP_LEVELS, variable=variable)
        self._threads = min(threads or usable_cores(), MAX_THREADS)
        self._recipient_words = tuple(recipients)
        self._recipients = load_recipients(recipients)

    def __reduce__(self) -> tuple[object, ...]:
        """Let another process make the same encoder: what pyrage has loaded cannot be handed over."""
        return _remade, (self.codec, self.level, self._threads, self._recipient_words)

    @property
    def encrypted(self) -> bool:
        """Whether an identity is needed to open its output."""
        return bool(self._recipients)

    def encode(self, source: Source, sink: Sink) -> None:
        """Pass all bytes of ``source`` on to ``sink`` as one whole file of the codec.

        Raises: the exceptions of ``source`` and ``sink``; CodecError.
        """
        self._pass_on(self._compressed(source), sink)

    def encode_here(self, chunks: Iterable[bytes], sink: Sink) -> None:
        """Do the same with ``chunks``, in the calling thread alone: for callers who encode many files at once.

        Raises: the exceptions of ``chunks`` and ``sink``; CodecError.
        """
        self._pass_on(self._compressed_here(chunks), sink)

    def _pass_on(self, chunks: Iterator[bytes], sink: Sink) -> None:
        if not self._recipients:
            for chunk in chunks:
                sink(chunk)
            return
        _encrypt(chunks, sink, self._recipients)

    def _compressed(self, source: Source) -> Iterator[bytes]:
        match self.codec:
            case Codec.ZSTD:
                return self._zstd(source)
            case Codec.GZIP:
                return self._in_blocks(source, lambda block: gzip_member(block, self.level))
            case Codec.LZ4:
                return self._in_blocks(source, self._lz4_frame)
            case Codec.NONE:
                return iter(lambda: source.read(_READ_BYTES), b"")

    def _compressed_here(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        match self.codec:
            case Codec.ZSTD:
                return self._zstd_here(chunks)
            case Codec.GZIP:
                return (gzip_member(block, self.level) for block in _blocks(chunks, _BLOCK_BYTES))
            case Codec.LZ4:
                return (self._lz4_frame(block) for block in _blocks(chunks, _BLOCK_BYTES))
            case Codec.NONE:
                return iter(chunks)

    def _zstd_here(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        if self.level <= QUICK_ZSTD_LEVEL:
            yield from self._zstd_frames(chunks)
            return
        chunker = zstandard.ZstdCompressor(level=self.level, write_checksum=True).chunker(chunk_size=_READ_BYTES)
        for data in chunks:
            yield from chunker.compress(data)
        yield from chunker.finish()  # type: ignore[no-untyped-call]

    def _zstd_frames(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Compress blocks of about 1 MiB, each by itself: a stream would be copied once more.

        With zstd's own window of 2 MiB and its own tables of what it has seen, which together are larger than a core's
        cache, pages of tables and indexes take longer and become no smaller: 'make bench ARGS="--only base_backup"'
        measures both. Content that is all text becomes a little larger with ours.
        """
        usual = zstandard.ZstdCompressionParameters.from_level(self.level)
        smaller = {"window_log": min(usual.window_log, QUICK_WINDOW_LOG)}
        if usual.strategy <= zstandard.STRATEGY_DFAST:
            smaller["hash_log"] = min(usual.hash_log, _QUICK_TABLE_LOG)
            smaller["chain_log"] = min(usual.chain_log, _QUICK_TABLE_LOG)
        parameters = zstandard.ZstdCompressionParameters.from_level(self.level, write_checksum=True, **smaller)
        compressor = zstandard.ZstdCompressor(compression_params=parameters)
        empty = True
        for block in _blocks(chunks, _FRAME_BYTES):
            yield compressor.compress(block)
            empty = False
        if empty:
            yield compressor.compress(b"")

    def _zstd(self, source: Source) -> Iterator[bytes]:
        compressor = zstandard.ZstdCompressor(level=self.level, threads=self._threads, write_checksum=True)
        chunker = compressor.chunker(chunk_size=_READ_BYTES)
        while data := source.read(_READ_BYTES):
            yield from chunker.compress(data)
        yield from chunker.finish()  # type: ignore[no-untyped-call]

    def _lz4_frame(self, block: Block) -> bytes:
        return bytes(lz4.frame.compress(block, compression_level=self.level, content_checksum=True))

    def _in_blocks(self, source: Source, compress: Callable[[bytes], bytes]) -> Iterator[bytes]:
        """Compress blocks at once in threads, and yield them in their order; two blocks a thread are in memory."""
        waiting: deque[Future[bytes]] = deque()
        with ThreadPoolExecutor(self._threads, thread_name_prefix="compress") as pool:
            while block := read_fully(source, _BLOCK_BYTES):
                waiting.append(pool.submit(compress, block))
                if len(waiting) >= 2 * self._threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()


def _blocks(chunks: Iterable[bytes], size_bytes: int) -> Iterator[Block]:
    """Join small chunks and cut large ones to blocks of this size; those between them are shorter."""
    parts: list[Block] = []
    waiting_bytes = 0
    for chunk in chunks:
        if parts and waiting_bytes + len(chunk) > size_bytes:
            yield b"".join(parts)
            parts, waiting_bytes = [], 0
        rest = memoryview(chunk)
        while len(rest) >= size_bytes:
            yield rest[:size_bytes]
            rest = rest[size_bytes:]
        if rest:
            parts.append(rest)
            waiting_bytes += len(rest)
    if parts:
        yield b"".join(parts)


def _remade(codec: Codec, level: int, threads: int, recipients: Sequence[str]) -> StreamEncoder:
    return StreamEncoder(codec, level, threads=threads, recipients=recipients)


def read_fully(source: Source, size: int) -> bytes:
    """Read ``size`` bytes, fewer only at the end."""
    parts, left = [], size
    while left and (data := source.read(left)):
        parts.append(data)
        left -= len(data)
    return b"".join(parts)


def _encrypt(chunks: Iterator[bytes], sink: Sink, recipients: list[Any]) -> None:
    """Encrypt as one age file.

    pyrage turns an exception of the source into an error of its own, and loses an exception of the sink at the last
    chunk (seen in 1.4): the pipe keeps both, and we look at them also where pyrage returns.
    """
    pipe = _AgePipe(chunks, sink)
    try:
        pyrage.encrypt_io(pipe, pipe, recipients)
    except pyrage.EncryptError as error:
        raise pipe.error or CodecError(f"the base backup cannot be encrypted: {error}") from error
    if pipe.error is not None:
        raise pipe.error


class _AgePipe:
    """The two ends that ``pyrage.encrypt_io`` wants, as one object with ``read`` and ``write``."""

    def __init__(self, chunks: Iterator[bytes], sink: Sink) -> None:
        self.error: BaseException | None = None
        self._chunks = chunks
        self._sink = sink
        self._buffer = memoryview(b"")

    def read(self, size: int) -> bytes:
        try:
            while not self._buffer:
                self._buffer = memoryview(next(self._chunks))
        except StopIteration:
            return b""
        except BaseException as error:
            self.error = error
            raise
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return bytes(data)

    def write(self, data: bytes) -> int:
        try:
            self._sink(data)
        except BaseException as error:
            self.error = error
            raise
        return len(data)

    def flush(self) -> None:
        """Do nothing: the sink takes what it is given."""
