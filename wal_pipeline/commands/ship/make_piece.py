"""Makes pieces: reads the bytes, describes and encodes them. One piece is made once for all stores."""

import hashlib
import logging
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from wal_pipeline.archive.format.piece import Piece
from wal_pipeline.archive.recovery.timeline_path import TimelinePath, follow
from wal_pipeline.codec.encoder import Encoded, Encoder
from wal_pipeline.commands.ship.source import OpenWal
from wal_pipeline.errors import PostgresError, ShippingError
from wal_pipeline.postgres.flushed_wal import FlushedWal
from wal_pipeline.postgres.piece_commits import PartCommits, PieceCommitReader
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import WalFileName

if TYPE_CHECKING:
    from hashlib import _Hash

_KEPT: Final = 2  # pieces that the stores behind the first one find made already
_BLOCK_BYTES: Final = 1 << 20
_RECENT_BYTES: Final = 1024
_log = logging.getLogger(__name__)
LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)  # true of each piece, where nothing later is known


class HistoryChangedError(ShippingError):
    """The server's WAL at a place is not what it was when it was shipped."""


@dataclass(frozen=True, slots=True)
class TailPosition:
    """A place in the WAL, with the running SHA-256 of its segment's content before it, and the last bytes of that."""

    segment: WalFileName
    offset: int
    digest: "_Hash" = field(repr=False)
    recent: bytes = field(repr=False)

    @classmethod
    def start_of(cls, segment: WalFileName) -> "TailPosition":
        """Return the start of a segment."""
        return cls(segment, 0, hashlib.sha256(), b"")

    def lsn(self, wal_segment_size: int) -> Lsn:
        """Return its LSN."""
        return Lsn(self.segment.start_lsn(wal_segment_size) + self.offset)

    def after(self, data: bytes) -> "TailPosition":
        """Return the place behind ``data``."""
        digest = self.digest.copy()
        digest.update(data)
        recent = (self.recent + data[-_RECENT_BYTES:])[-_RECENT_BYTES:]
        return TailPosition(self.segment, self.offset + len(data), digest, recent)

    @property
    def sha256(self) -> str:
        """The SHA-256 of the content before it, as hex digits."""
        return self.digest.hexdigest()


@dataclass(frozen=True, slots=True)
class MadePiece:
    """A piece that is ready to be stored, and the place behind it."""

    piece: Piece
    encoded: Encoded
    end: TailPosition


class PieceMaker:
    """Reads the source for all stores, one at a time. Safe from several threads."""

    def __init__(self, source: OpenWal, encoder: Encoder, commits: PieceCommitReader) -> None:
        self._source = source
        self._encoder = encoder
        self._commits = commits
        self._lock = threading.Lock()
        self._made: list[tuple[object, MadePiece]] = []

    def make(
        self,
        start: TailPosition,
        to_offset: int,
        seen: FlushedWal,
        flushed_at: datetime | None,
        *,
        commits: PartCommits | None = None,
    ) -> MadePiece:
        """Make the piece from a place up to an offset in its segment.

        ``flushed_at``: a moment for which the piece completes its segment's WAL; None where none is known.
        ``commits`` are those in it, where they are known already.

        Raises: SegmentGoneError, PostgresError; HistoryChangedError where the bytes before it are others now.
        """
        wanted = (start.segment.name, start.offset, to_offset, start.sha256, seen.system_identifier)
        with self._lock:
            found = next((made for key, made in self._made if key == wanted), None)
            if found is None:
                found = self._make(start, to_offset, seen, flushed_at or LONG_AGO, commits)
                self._made = [(wanted, found), *self._made][:_KEPT]
        return found

    def walk(self, segment: WalFileName, offsets: list[int], seen: FlushedWal) -> dict[int, TailPosition]:
        """Return the places at these offsets of a segment, which is read once up to the last of them.

        Raises: SegmentGoneError, PostgresError.
        """
        place = TailPosition.start_of(segment)
        places = {0: place}
        for offset in sorted(set(offsets)):
            while place.offset < offset:
                end = min(offset, place.offset + _BLOCK_BYTES)
                with self._lock:
                    place = place.after(self._read(segment, place.offset, end, seen))
            places[offset] = place
        return places

    def path(self, seen: FlushedWal) -> TimelinePath:
        """Return the path of timelines that leads to what was seen; without the history file, the timeline alone."""
        try:
            history = self._source.history(seen.timeline)
        except PostgresError as error:  # what comes on the new timeline is shipped all the same
            _log.warning("segments before timeline %d are not shipped: %s", seen.timeline, error.message)
            history = None
        return follow(history, seen.timeline, seen.wal_segment_size)

    def _make(
        self,
        start: TailPosition,
        to_offset: int,
        seen: FlushedWal,
        flushed_at: datetime,
        commits: PartCommits | None,
    ) -> MadePiece:
        segment = start.segment
        read = self._read(segment, start.offset - len(start.recent), to_offset, seen)
        data = read[len(start.recent) :]
        if read[: len(start.recent)] != start.recent:
            raise HistoryChangedError(
                f"'{segment.name}' has other bytes before {start.offset} than were shipped",
                hint="The server was set back without a new timeline, or its disk lost what it had flushed.",
            )
        end = start.after(data)
        if commits is None:
            commits = self._commits.read(
                lambda name, begin, until: self._read(name, begin, until, seen),
                *(segment, start.offset, to_offset, seen.server_major),
            )
        piece = Piece(
            segment=segment,
            system_identifier=seen.system_identifier,
            wal_segment_size=seen.wal_segment_size,
            server_major=seen.server_major,
            from_offset=start.offset,
            to_offset=to_offset,
            flushed_at=flushed_at,
            sha256=hashlib.sha256(data).hexdigest(),
            before_sha256=start.sha256,
            through_sha256=end.sha256,
            commit_times=commits.times,
            first_commit_at=commits.first_at,
            last_commit_at=commits.last_at,
        )
        return MadePiece(piece, self._encoder.encode(data), end)

    def _read(self, segment: WalFileName, from_offset: int, to_offset: int, seen: FlushedWal) -> bytes:
        data = self._source.read(segment, from_offset, to_offset, seen)
        if len(data) != to_offset - from_offset:
            raise PostgresError(
                f"'{segment.name}' gave {len(data)} bytes from {from_offset}, expected {to_offset - from_offset}",
                hint="This is a fault of this program: report it.",
            )
        return data
