"""Runs the two S3 servers that stand for R2 and B2."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from testbed.seaweed import SeaweedServer
from testbed.tls import TlsFiles, make_tls


@dataclass(frozen=True, slots=True)
class S3Buckets:
    """The names of two buckets, one on each server."""

    r2: str
    b2: str


@dataclass(frozen=True, slots=True)
class S3Pair:
    """Two running servers: buckets on ``r2`` have no versions, those on ``b2`` do."""

    r2: SeaweedServer
    b2: SeaweedServer

    @classmethod
    @contextmanager
    def start(cls, folder: Path, *, tls: TlsFiles | None = None, secret_tail: str = "") -> Iterator[Self]:
        """Start both servers at the same time, with keys of their own, and end them with the block.

        ``secret_tail`` is added to each secret key, for tests that search for it.
        """
        tls = tls or make_tls(folder / "tls")
        pair = cls(*(_server(folder, name, tls, secret_tail) for name in ("r2", "b2")))
        try:
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(SeaweedServer.start, pair.servers))
            yield pair
        finally:
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(SeaweedServer.kill, pair.servers))  # as safe for the data, and a second quicker

    @property
    def servers(self) -> tuple[SeaweedServer, SeaweedServer]:
        """Both servers, r2 first."""
        return (self.r2, self.b2)

    def fresh_buckets(self, prefix: str = "test") -> S3Buckets:
        """Make a bucket of a new name on each server, with versions on b2."""
        return S3Buckets(self.r2.fresh_bucket(prefix), self.b2.fresh_bucket(prefix, versioning=True))

    def remove_buckets(self, buckets: S3Buckets) -> None:
        """Remove both buckets and their objects, from the servers that run."""
        for server, bucket in ((self.r2, buckets.r2), (self.b2, buckets.b2)):
            if server.is_running:
                server.remove_bucket(bucket)

    def store_environment(self, buckets: S3Buckets) -> dict[str, str]:
        """The program's settings for both stores, as environment variables."""
        return {
            "R2_ACCOUNT_ID": "test-account",
            "R2_ENDPOINT_URL": self.r2.endpoint_url,
            "R2_BUCKET_NAME": buckets.r2,
            "R2_ACCESS_KEY_ID": self.r2.access_key_id,
            "R2_SECRET_ACCESS_KEY": self.r2.secret_access_key,
            "B2_REGION": "us-east-005",
            "B2_ENDPOINT_URL": self.b2.endpoint_url,
            "B2_BUCKET_NAME": buckets.b2,
            "B2_ACCESS_KEY_ID": self.b2.access_key_id,
            "B2_SECRET_ACCESS_KEY": self.b2.secret_access_key,
        }


def _server(folder: Path, name: str, tls: TlsFiles, secret_tail: str) -> SeaweedServer:
    return SeaweedServer(
        folder / name,
        name=name,
        tls=tls,
        access_key_id=f"AKIA{name.upper()}TESTKEY",
        secret_access_key=f"{name}-test-secret-access-key{secret_tail}",
    )
