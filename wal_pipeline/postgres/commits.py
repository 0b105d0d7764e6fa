"""The commits in a segment: how far in time replaying it leads."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import WalFileName


@dataclass(frozen=True, slots=True)
class Commit:
    """One COMMIT or COMMIT PREPARED record. ``at`` is the commit time as written in it, which the server's clock
    gave; ``lsn`` is where the record begins."""

    at: datetime
    lsn: Lsn
    xid: int


@dataclass(frozen=True, slots=True)
class CommitSpan:
    """The commits that replaying a segment makes visible, ``first`` and ``last`` in WAL order.

    ``latest_at`` is the greatest commit time: sessions take the time before they write the record, so that times are
    not quite in WAL order. A commit record that ends in the next segment is the next segment's.

    ``stopped_at`` is None for a sound, whole segment; else pg_waldump found no valid record there and replay ends
    there too, as in a partial segment or a damaged one.
    ``unseen_start``: the segment begins with the rest of a record from the one before, which was not at hand: where
    that is a commit, it is not in this span.
    """

    first: Commit | None
    last: Commit | None
    count: int
    latest_at: datetime | None
    stopped_at: Lsn | None = None
    unseen_start: bool = False


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
        header. ``name`` is the segment's, where the file is called otherwise. ``previous`` is the segment before
        it, if at hand: only with it a commit record that crosses the boundary can be read.
        """
