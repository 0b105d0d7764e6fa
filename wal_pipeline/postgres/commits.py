"""Describes the commits in a segment, which show how far in time its replay leads."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import WalFileName


@dataclass(frozen=True, slots=True)
class Commit:
    """One COMMIT or COMMIT PREPARED record.

    ``at`` is the commit time in the record, by the server's clock; ``lsn`` is where the record begins.
    """

    at: datetime
    lsn: Lsn
    xid: int


@dataclass(frozen=True, slots=True)
class CommitSpan:
    """The commits that replaying a segment makes visible, ``first`` and ``last`` in WAL order.

    ``latest_at`` is the greatest commit time: sessions take the time before they write the record, so that times are
    not quite in WAL order. A commit record that ends in the next segment belongs to the next segment.

    ``stopped_at`` is None for a sound, whole segment. In a partial or damaged one it is where pg_waldump finds no valid
    record any more, and where replay ends too.
    ``unseen_start``: the segment begins with the rest of a record, and the segment before was not available. Where that
    record is a commit, this span lacks it.
    """

    first: Commit | None
    last: Commit | None
    count: int
    latest_at: datetime | None
    stopped_at: Lsn | None = None
    unseen_start: bool = False


@dataclass(frozen=True, slots=True)
class FirstCommit:
    """The first commit in a stretch of WAL. None: the stretch was read up to ``read_to``, and holds none."""

    commit: Commit | None
    read_to: Lsn


class CommitReader(ABC):
    """Reads the commits of a segment."""

    @abstractmethod
    def inspect(
        self,
        path: Path,
        major: int,
        wal_segment_size: int,
        *,
        name: WalFileName | None = None,
        previous: Path | None = None,
    ) -> CommitSpan | None:
        """Return the commits in the segment file at ``path``, or None where they cannot be known.

        ``major`` is the version of the server that wrote it, ``wal_segment_size`` is in bytes; both as in the page
        header. ``name`` is the segment's name, where the file has another. ``previous`` is the segment before it, if
        available: only with it can a commit record that crosses the boundary be read.
        """
