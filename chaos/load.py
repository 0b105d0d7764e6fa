"""Writes with pgbench and into a ledger, and remembers each commit that the server acknowledged."""

import random
import threading
import time

import psycopg

from testbed.postgres import PostgresCluster
from testbed.processes import ChildProcess

LEDGER = "CREATE TABLE ledger (n bigint PRIMARY KEY)"
_COMMIT = "WITH filler AS (SELECT pg_logical_emit_message(true, 'chaos', %s)) INSERT INTO ledger SELECT %s FROM filler"
_POSITION = "SELECT pg_current_wal_insert_lsn() - '0/0'"
_COMMIT_SECONDS = 0.02
_FILLER_BYTES = 96 * 1024  # ten of these commits and those of pgbench make a segment of 1 MiB
_PGBENCH_RATE = 40
_MAX_COMMITS = 400  # a slow machine must not make a schedule ever longer: from then on little is written
_SLOW_COMMIT_SECONDS = 0.2


class Load:
    """A load that writes until it is stopped, through crashes and restarts of the server."""

    def __init__(self, cluster: PostgresCluster, seed: int) -> None:
        self._cluster = cluster
        self._noise = random.Random(seed).randbytes(_FILLER_BYTES // 2).hex()  # noqa: S311 - only to fill segments
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._pgbench: ChildProcess | None = None
        self._next = 1
        self.acknowledged: dict[int, float] = {}  # by number the moment, on the clock of time.monotonic
        self.ends: dict[int, int] = {}  # by number an LSN just after the commit; not where the server died meanwhile

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Stop writing."""
        self._ending.set()
        self._thread.join()
        if self._pgbench is not None:
            self._pgbench.kill()

    @property
    def attempted(self) -> range:
        """The numbers for which a commit was sent."""
        return range(1, self._next)

    def write_one(self) -> None:
        """Commit once more, after the load was stopped."""
        with self._cluster.connect(connect_timeout=10) as connection:
            self._commit(connection)

    def _write(self) -> None:
        while not self._ending.is_set():
            try:
                with self._cluster.connect(connect_timeout=2) as connection:
                    self._run_pgbench()
                    while not self._ending.wait(_SLOW_COMMIT_SECONDS if self._is_slow else _COMMIT_SECONDS):
                        self._commit(connection)
            except psycopg.Error:
                time.sleep(0.1)  # the server crashed or is being promoted

    @property
    def _is_slow(self) -> bool:
        return self._next > _MAX_COMMITS

    def _commit(self, connection: "psycopg.Connection[tuple[object, ...]]") -> None:
        number, self._next = self._next, self._next + 1
        filler = "" if number > _MAX_COMMITS else self._noise[number % 997 :]
        connection.execute(_COMMIT, (filler, number))
        self.acknowledged[number] = time.monotonic()  # a restore must bring back what the server has acknowledged
        row = connection.execute(_POSITION).fetchone()
        if row is not None:
            self.ends[number] = int(str(row[0]))

    def _run_pgbench(self) -> None:
        if not self._is_slow and (self._pgbench is None or not self._pgbench.is_running):
            self._pgbench = self._cluster.start_pgbench(seconds=3600, clients=1, rate=_PGBENCH_RATE)
