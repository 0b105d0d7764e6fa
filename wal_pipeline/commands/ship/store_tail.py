"""Keeps what one store has of the tail while the shipper runs: its pieces, its errors and how late it is."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from wal_pipeline.commands.ship.held_pieces import ChainedPiece
from wal_pipeline.commands.ship.looks import BehindTimes, Look, WalLooks
from wal_pipeline.commands.ship.records import RecordedPiece, ShippedTail
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import WalFileName


@dataclass(frozen=True, slots=True)
class ShippedTo:
    """The end of what a store has, and the newest look at which the server had flushed no more."""

    system_identifier: int
    timeline: int
    lsn: Lsn
    complete: Look | None


class StoreTail:
    """One store's tail. Safe from several threads; ``serial`` counts its changes, ``shipped_count`` its new pieces."""

    def __init__(self, store: str, looks: WalLooks, clock: Callable[[], datetime]) -> None:
        self.store = store
        self.serial = 0
        self.shipped_count = 0
        self.behind = BehindTimes(time.monotonic)
        self._place: ClusterStore | None = None
        self._looks = looks
        self._clock = clock
        self._lock = threading.RLock()
        self._pieces: dict[WalFileName, list[ChainedPiece]] = {}
        self._left_over: dict[WalFileName, list[str]] = {}
        self._shipped: ShippedTo | None = None
        self._last_commit_at: datetime | None = None
        self._error: str | None = None
        self._failing_since: datetime | None = None
        self._conflict: tuple[WalFileName, str] | None = None
        self._gap: tuple[WalFileName, ...] = ()

    @property
    def place(self) -> ClusterStore | None:
        """The cluster's part of the store, once the server was seen."""
        with self._lock:
            return self._place

    def forget(self, place: ClusterStore, left_over: dict[WalFileName, list[str]]) -> None:
        """Begin with a cluster: ``left_over`` are the keys of pieces that lie on its store."""
        with self._lock:
            self._place = place
            self._pieces.clear()
            self._left_over = dict(left_over)
            self._shipped = self._conflict = self._last_commit_at = None
            self._gap = ()
            self._changed()

    def take_left_over(self, segment: WalFileName) -> list[str]:
        """Return the keys of a segment's pieces that an earlier shipper left, which are the caller's from now on."""
        with self._lock:
            return self._left_over.pop(segment, [])

    def keep_left_over(self, segment: WalFileName, keys: Iterable[str]) -> None:
        """Give keys back: they are removed with the segment."""
        with self._lock:
            self._left_over.setdefault(segment, []).extend(keys)

    def resume(self, segment: WalFileName, chain: Sequence[ChainedPiece]) -> None:
        """Take over the pieces of a segment that are verified."""
        with self._lock:
            self._pieces[segment] = list(chain)
            self._changed()

    def add(self, piece: ChainedPiece) -> None:
        """Add a verified piece at its segment's end."""
        with self._lock:
            self._pieces.setdefault(piece.recorded.piece.segment, []).append(piece)
            self.shipped_count += 1
            self._last_commit_at = piece.recorded.piece.last_commit_at or self._last_commit_at
            self._changed()

    def reached(self, shipped: ShippedTo) -> None:
        """Note how far the store is."""
        with self._lock:
            if shipped != self._shipped:
                self._shipped = shipped
                self.serial += 1

    @property
    def gap(self) -> tuple[WalFileName, ...]:
        """The segments of which one must be archived on the store, before its pieces complete anything."""
        with self._lock:
            return self._gap

    def begin_behind(self, gap: tuple[WalFileName, ...]) -> None:
        """Note whether the pieces begin behind WAL that the store does not have yet."""
        with self._lock:
            if gap != self._gap:
                self._gap = gap
                self._changed()

    def leave_conflict(self) -> None:
        """Forget the conflict of a timeline that the server has left."""
        with self._lock:
            self._conflict = None
            self._changed()

    def replace(self, merged: ChainedPiece, small: Sequence[ChainedPiece]) -> bool:
        """Put a merged piece in the place of smaller ones; False where they are not all there any more."""
        with self._lock:
            pieces = self._pieces.get(merged.recorded.piece.segment, [])
            first = next((number for number, one in enumerate(pieces) if one is small[0]), len(pieces))
            if pieces[first : first + len(small)] != list(small):
                return False
            pieces[first : first + len(small)] = [merged]
            self._changed()
            return True

    def remove(self, segment: WalFileName) -> tuple[list[RecordedPiece], list[str]]:
        """Forget a segment that the store has as a whole one; return its pieces, and the keys of those left over."""
        with self._lock:
            pieces = [one.recorded for one in self._pieces.pop(segment, [])]
            if self._conflict is not None and self._conflict[0] == segment:
                self._conflict = None
            self._changed()
            return pieces, self._left_over.pop(segment, [])

    def segments(self) -> list[WalFileName]:
        """Return the segments of which the store has pieces, or other history's, in WAL order."""
        with self._lock:
            found = {*self._pieces, *self._left_over, *([self._conflict[0]] if self._conflict else [])}
        return sorted(found, key=lambda name: name.order)

    def pieces_of(self, segment: WalFileName) -> list[ChainedPiece]:
        """Return a segment's pieces, in WAL order."""
        with self._lock:
            return list(self._pieces.get(segment, []))

    def held_segments(self, timeline: int | None = None) -> list[WalFileName]:
        """Return the segments, of one timeline or of all, whose verified pieces the store has."""
        with self._lock:
            found = [name for name in self._pieces if timeline in (None, name.timeline)]
        return sorted(found, key=lambda name: name.order)

    @property
    def conflict(self) -> WalFileName | None:
        """The segment of which the store holds another history."""
        with self._lock:
            return None if self._conflict is None else self._conflict[0]

    def conflicts(self, segment: WalFileName, message: str, keys: Iterable[str]) -> None:
        """Note that the store holds another history of a segment, in the pieces with these keys."""
        with self._lock:
            self._conflict = (segment, message)
            self._left_over.setdefault(segment, []).extend(keys)
            self._changed()

    def failed(self, message: str) -> bool:
        """Note a failure; return whether it is news."""
        with self._lock:
            is_news = message != self._error
            self._error = message
            self._failing_since = self._failing_since or self._clock()
            self._changed()
            return is_news

    def succeeded(self) -> bool:
        """Note a success; return whether the store had been failing."""
        with self._lock:
            had_failed = self._error is not None
            if had_failed:
                self._error = self._failing_since = None
                self._changed()
            return had_failed

    def state(self) -> ShippedTail | None:
        """Return it as it is recorded; None before the first look."""
        last = self._looks.last
        p50, p99 = self.behind.quantiles()
        with self._lock:
            if self._shipped is None and last is None:
                return None
            shipped, complete = self._shipped, None if self._shipped is None or self._gap else self._shipped.complete
            seen = None if last is None else last.seen
            pieces = [one.recorded for segment in self.held_segments() for one in self._pieces[segment]]
            return ShippedTail(
                store=self.store,
                system_identifier=shipped.system_identifier if shipped else (seen.system_identifier if seen else 0),
                timeline=shipped.timeline if shipped else (seen.timeline if seen else 0),
                pieces=tuple(pieces),
                shipped_lsn=None if shipped is None else shipped.lsn,
                complete_at=None if complete is None else complete.seen.at,
                last_commit_at=self._last_commit_at,
                behind_p50_seconds=p50,
                behind_p99_seconds=p99,
                behind_seconds=None if self._gap else _behind(shipped, last),
                error=self._error,
                failing_since=self._failing_since,
                conflict=None if self._conflict is None else self._conflict[1],
            )

    def _changed(self) -> None:
        self.serial += 1


def _behind(shipped: ShippedTo | None, last: Look | None) -> float | None:
    """Return how long ago the newest bytes that the store lacks were flushed, at worst; None where nobody knows."""
    if shipped is None or last is None:
        return None
    if (shipped.system_identifier, shipped.timeline) == (last.seen.system_identifier, last.seen.timeline):
        if shipped.lsn >= last.seen.lsn:
            return 0.0
        if shipped.complete is not None:
            return max(0.0, time.monotonic() - shipped.complete.monotonic)
    return None
