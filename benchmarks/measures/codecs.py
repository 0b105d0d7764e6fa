"""Measures codecs and levels on one core: speed and size of compressed WAL, also against zlib and zstd."""

import time
import zlib
from collections.abc import Callable
from typing import Final

import zstandard

from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.wal_input import mixed
from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.encoder import Encoder

KEYS = ("codec_gzip9_mb_s",)
_CODECS: Final = (
    *((Codec.GZIP, level) for level in (1, 6, 9)),
    *((Codec.ZSTD, level) for level in (1, 3, 6)),
    (Codec.LZ4, 1),
)
_ZLIB_LEVELS: Final = (1, 6, 9)
_GZIP_WINDOW: Final = 31


def measure(bench: Bench) -> list[Figure]:
    """Return MB of WAL for each second of CPU, and for gzip also the size against zlib's at the same level."""
    segments = [path.read_bytes() for path in mixed(bench.wal().segments, bench.size(12, 4))]
    total = sum(map(len, segments))
    zlib_bytes = {level: _sized(segments, _zlib(level)) for level in _ZLIB_LEVELS}
    figures = []
    for codec, level in _CODECS:
        stored, seconds = _sized(segments, Encoder(codec, level).compress)
        name = f"{codec}{level}"
        note = f"ratio {total / stored:.2f}"
        figures.append(
            Figure(f"codec_{name}_mb_s", f"{codec} {level} on one core", total / 1e6 / seconds, "MB/s", note=note)
        )
        if codec is Codec.GZIP:
            theirs, their_seconds = zlib_bytes[level]
            note = f"zlib {level}: {total / 1e6 / their_seconds:.0f} MB/s, ratio {total / theirs:.2f}"
            goal = "<= 1.02"
            title = f"size of gzip {level} against zlib's own"
            figures.append(Figure(f"codec_{name}_size_vs_zlib", title, stored / theirs, goal=goal, note=note))
    stored, seconds = _sized(segments, Encoder(Codec.ZSTD, 3).compress)
    theirs, their_seconds = _sized(segments, zstandard.ZstdCompressor(level=3, write_checksum=True).compress)
    note = f"size against it {stored / theirs:.3f}"
    title = "zstd 3 with a window of 512 KiB: with zstd's own of 2 MiB"
    return [*figures, Figure("codec_zstd3_vs_own_window", title, their_seconds / seconds, note=note)]


def _zlib(level: int) -> Callable[[bytes], bytes]:
    return lambda data: zlib.compress(data, level, _GZIP_WINDOW)


def _sized(segments: list[bytes], compress: Callable[[bytes], bytes]) -> tuple[int, float]:
    """Return the compressed bytes of all segments, and the CPU seconds of compressing them."""
    begun = time.process_time()
    stored = sum(len(compress(data)) for data in segments)
    return stored, time.process_time() - begun
