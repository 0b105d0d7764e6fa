"""Measures the floor: reads, hashes and compresses the files of a folder on some threads, and keeps nothing."""

import hashlib
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.encoder import Encoder


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
