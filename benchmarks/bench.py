"""Gives every measurement its sizes, a scratch folder, two S3 servers and WAL to archive."""

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path

from benchmarks.wal_input import WalInput, wal_input
from testbed.s3_pair import S3Buckets, S3Pair

PROJECT = Path(__file__).parents[1]
HOME = PROJECT / ".bench"


@dataclass
class Bench:
    """One call of the benchmark. ``repeats``: rounds of each comparison."""

    quick: bool
    repeats: int
    folder: Path
    stack: ExitStack
    begun: float = field(default_factory=time.monotonic)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    @cached_property
    def stores(self) -> S3Pair:
        """Two SeaweedFS servers over TLS, started at the first use."""
        self.say("starting two S3 servers over TLS")
        return self.stack.enter_context(S3Pair.start(self.folder / "s3"))

    @contextmanager
    def buckets(self) -> Iterator[S3Buckets]:
        """Two empty buckets, removed with the block, so that no run meets another run's objects."""
        made = self.stores.fresh_buckets("bench")
        for server, bucket in ((self.stores.r2, made.r2), (self.stores.b2, made.b2)):
            # The server makes a bucket's volumes at the first put, which takes a quarter of a second.
            server.client().put_object(Bucket=bucket, Key="first", Body=b"x")
        try:
            yield made
        finally:
            self.stores.remove_buckets(made)

    @contextmanager
    def scratch(self, purpose: str) -> Iterator[Path]:
        """A folder that is removed with the block."""
        folder = self.folder / f"{purpose}-{next(self._numbers)}"
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def wal(self, segment_mb: int = 16) -> WalInput:
        """Return WAL of a real PostgreSQL, kept from call to call."""
        return wal_input(HOME / "wal", segment_mb, self.say)

    def size(self, full: int, quick: int) -> int:
        """Return the size of a measurement, which is less in a quick call."""
        return quick if self.quick else full

    def say(self, line: str) -> None:
        """Print a line of progress on stderr."""
        print(f"[{time.monotonic() - self.begun:6.0f} s] {line}", file=sys.stderr, flush=True)
