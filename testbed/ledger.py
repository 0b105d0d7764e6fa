"""Commits numbered rows, remembers when the server acknowledged each, and says which are missing after a restore."""

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

import psycopg

from testbed.postgres import PostgresCluster

_MAKE = "CREATE TABLE IF NOT EXISTS ledger (n bigint PRIMARY KEY)"
_COMMIT = "INSERT INTO ledger VALUES (%s)"
_READ = "SELECT n FROM ledger"


@dataclass(frozen=True, slots=True)
class Loss:
    """The commits of a ledger that a restored server lacks, or that it has and nobody made.

    ``oldest_age_seconds`` is from the acknowledgement of the oldest missing commit to the loss of the server, and
    ``newest_age_seconds`` that of the newest one; 0 where none is missing. WAL ends somewhere: what is missing comes
    after all that is there, so that the newest acknowledged commit is missing as soon as any is.
    """

    acknowledged: int
    missing: tuple[int, ...]
    never_made: tuple[int, ...]
    oldest_age_seconds: float
    newest_age_seconds: float
    is_suffix: bool


def loss_of(acknowledged: Mapping[int, float], attempted: Iterable[int], found: set[int], lost_at: float) -> Loss:
    """Compare a restored ledger with the acknowledged commits, which are by number the moment of each.

    ``attempted``: all numbers for which a commit was sent. One that was not acknowledged may be there or not.
    ``lost_at`` is on the same clock as the moments. A commit that was acknowledged later, while the server was being
    killed, has the age 0.
    """
    missing = sorted(acknowledged.keys() - found)
    ages = [max(0.0, lost_at - acknowledged[number]) for number in missing]
    return Loss(
        acknowledged=len(acknowledged),
        missing=tuple(missing),
        never_made=tuple(sorted(found - set(attempted))),
        oldest_age_seconds=max(ages, default=0.0),
        newest_age_seconds=min(ages, default=0.0),
        is_suffix=not missing or not found or missing[0] > max(found),
    )


@dataclass(slots=True)
class LedgerWriter:
    """Commits one row after the other from a thread, until it is stopped or the server is gone."""

    cluster: PostgresCluster
    per_second: float
    acknowledged: dict[int, float] = field(default_factory=dict)
    attempted: int = 0
    _ending: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> Self:
        """Make the table and begin."""
        self.cluster.psql(_MAKE)
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """End."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def loss(self, restored: PostgresCluster, lost_at: float) -> Loss:
        """Compare with a restored server; ``lost_at`` is on the clock of ``time.monotonic``."""
        return loss_of(self.acknowledged, range(1, self.attempted + 1), read_ledger(restored), lost_at)

    def _write(self) -> None:
        try:
            with self.cluster.connect(connect_timeout=10) as connection:
                while not self._ending.wait(1 / self.per_second):
                    self.attempted += 1
                    connection.execute(_COMMIT, (self.attempted,))
                    self.acknowledged[self.attempted] = time.monotonic()
        except psycopg.Error:
            return  # the server is gone, which ends the ledger


def read_ledger(cluster: PostgresCluster) -> set[int]:
    """Return the numbers of the commits that a server has."""
    return {int(line) for line in cluster.psql(_READ).split()}
