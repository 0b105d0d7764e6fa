"""Measures the compression of a base backup's volumes against zstd's own parameters of the same level."""

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import zstandard

from benchmarks.figures import MIB, Figure
from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.stream_encoder import StreamEncoder

_BLOCKS: Final = 300
_LEVEL: Final = 3
Compress = Callable[[bytes], int]


def volume_compression(pgdata: Path) -> Figure:
    """Return how much CPU zstd's own parameters take by that of ours, for pages of the cluster's tables and indexes."""
    encoder = StreamEncoder(Codec.ZSTD, _LEVEL)
    own = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)

    def ours(block: bytes) -> int:
        sizes: list[int] = []
        encoder.encode_here([block], lambda chunk: sizes.append(len(chunk)))
        return sum(sizes)

    seconds = {"ours": 0.0, "own": 0.0}
    stored = {"ours": 0, "own": 0}
    contenders: dict[str, Compress] = {"ours": ours, "own": lambda block: len(own.compress(block))}
    blocks = _blocks(pgdata)
    for number, block in enumerate(blocks):
        for name in contenders if number % 2 else reversed(contenders):
            begun = time.process_time()
            stored[name] += contenders[name](block)
            seconds[name] += time.process_time() - begun
    size = stored["ours"] / stored["own"]
    return Figure(
        "volume_compression_vs_own_parameters",
        "compression of volumes, zstd 3: CPU with zstd's own window and tables by that with ours",
        seconds["own"] / seconds["ours"],
        note=f"{len(blocks)} blocks of 1 MiB of tables and indexes; size by theirs {size:.3f}",
    )


def _blocks(pgdata: Path) -> list[bytes]:
    """Return blocks of 1 MiB from anywhere in the databases' larger files, the same ones for the same cluster."""
    files = sorted(path for path in (pgdata / "base").glob("*/*") if path.stat().st_size >= MIB)
    places = [(path, offset) for path in files for offset in range(0, path.stat().st_size - MIB + 1, MIB)]
    chosen = random.Random(0).sample(places, min(_BLOCKS, len(places)))  # noqa: S311 - a sample, no secret
    found = []
    for path, offset in chosen:
        with path.open("rb") as file:
            file.seek(offset)
            found.append(file.read(MIB))
    return found
