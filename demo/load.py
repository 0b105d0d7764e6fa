"""Writes with pgbench, at a rate that leaves the machine usable for those who watch."""

from collections.abc import Iterator
from contextlib import contextmanager

from testbed.postgres import PostgresCluster
from testbed.processes import ChildProcess

_SCALE = 5  # about 75 MB of tables, and as much WAL
_RATE_PER_SECOND = 200
_FOREVER_SECONDS = 10 * 365 * 86400


@contextmanager
def write_load(cluster: PostgresCluster) -> Iterator[ChildProcess]:
    """Make pgbench's tables, then run its transactions until the block ends."""
    cluster.pgbench_init(scale=_SCALE)
    with write_on(cluster) as load:
        yield load


@contextmanager
def write_on(cluster: PostgresCluster) -> Iterator[ChildProcess]:
    """Run pgbench's transactions on the tables that are there until the block ends, or the server."""
    load = cluster.start_pgbench(seconds=_FOREVER_SECONDS, rate=_RATE_PER_SECOND)
    try:
        yield load
    finally:
        load.kill()
