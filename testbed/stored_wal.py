"""Compares stored WAL with PostgreSQL's files in pg_wal by boto3, gzip and hashlib, without the program."""

import gzip
import hashlib
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from testbed.seaweed import SeaweedServer

_THREADS = 2


class WrongCopyError(AssertionError):
    """A copy is missing, or is not what PostgreSQL wrote."""


@dataclass(frozen=True, slots=True)
class StoredWal:
    """The objects of a WAL archive in one bucket, by file name. They are gzipped and not encrypted."""

    server: SeaweedServer
    bucket: str
    keys: dict[str, str]

    @classmethod
    def list(cls, server: SeaweedServer, bucket: str) -> Self:
        """List a bucket as it is now."""
        keys = [key for key in server.keys(bucket) if "/wal/" in key]
        return cls(server, bucket, {key.rpartition("/")[2].removesuffix(".gz"): key for key in keys})

    def verify(self, pg_wal: Path, names: Collection[str]) -> int:
        """Download, open and hash each of these files; return how many are exactly PostgreSQL's.

        Raises: WrongCopyError for the first that is missing or different.
        """
        client = self.server.client()

        def verify_one(name: str) -> int:
            if name not in self.keys:
                raise WrongCopyError(f"{self.server.name}: there is no object for '{name}'")
            body = client.get_object(Bucket=self.bucket, Key=self.keys[name])["Body"].read()
            found = hashlib.sha256(gzip.decompress(body)).hexdigest()
            expected = hashlib.sha256((pg_wal / name).read_bytes()).hexdigest()
            if found != expected:
                raise WrongCopyError(f"{self.server.name}: '{name}' has SHA-256 {found}, PostgreSQL's has {expected}")
            return 1

        with ThreadPoolExecutor(_THREADS) as pool:
            return sum(pool.map(verify_one, sorted(names)))
