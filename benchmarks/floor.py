"""Measures floors: what any archiver must do with some files, and what any restore must write."""

import hashlib
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.encoder import Encoder

_PIECE_BYTES = 1 << 20
_WRITERS = 2


def write_as_much(source: Path, folder: Path) -> None:
    """Write files of the sizes of those below ``source`` into ``folder`` in two threads, and flush each."""
    sizes = sorted((path.stat().st_size for path in (source / "base").rglob("*") if path.is_file()), reverse=True)
    piece = os.urandom(_PIECE_BYTES)

    def write(number: int) -> None:
        left = sizes[number]
        with (folder / str(number)).open("wb", buffering=0) as file:
            while left:
                left -= file.write(memoryview(piece)[:left])
            os.fsync(file.fileno())

    with ThreadPoolExecutor(_WRITERS) as pool:
        list(pool.map(write, range(len(sizes))))


def run(folder: Path, codec: str, level: int, threads: int) -> float:
    """Do for each file what any archiver must do: hash the content, compress it, hash the stored bytes.

    Returns the wall time in seconds.
    """
    encoder = Encoder(Codec(codec), level)

    def one(path: Path) -> None:
        data = path.read_bytes()
        hashlib.sha256(data).hexdigest()
        encoder.encode(data)

    begun = time.monotonic()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, sorted(folder.iterdir())))
    return time.monotonic() - begun


if __name__ == "__main__":
    print(run(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
