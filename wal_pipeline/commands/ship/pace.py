"""Ships the tail to one store, at that store's own pace: a slow one takes larger pieces, later."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.recovery.timeline_path import follow
from wal_pipeline.commands.copies.find import find_copy
from wal_pipeline.commands.ship.events import PieceShipped, ShipEvent, ShippingFailed, ShippingRecovered
from wal_pipeline.commands.ship.held_pieces import ChainedPiece, list_tail, resume_segment
from wal_pipeline.commands.ship.looks import Look, WalLooks
from wal_pipeline.commands.ship.make_piece import HistoryChangedError, PieceMaker, TailPosition
from wal_pipeline.commands.ship.put_piece import put_piece, two_histories
from wal_pipeline.commands.ship.store_tail import ShippedTo, StoreTail
from wal_pipeline.errors import CopyConflictError, PostgresError, SegmentGoneError, StoreError, WalPipelineError
from wal_pipeline.postgres.flushed_wal import FlushedWal
from wal_pipeline.stores.base import Store
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import WalFileName, require_file_name, segment_name

MOST_SEGMENTS: Final = 2
_MOST_SEGMENT_BYTES: Final = 32 * 2**20  # small segments are finished many at a time
_LONGEST_REST_SECONDS: Final = 30.0
_LONG_WAIT_SECONDS: Final = 30.0
_EARLIER_TIMELINES: Final = 4
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ShipOptions:
    """How the shipper goes about it. ``most_piece_bytes`` bounds what one piece holds, and so the memory."""

    interval_seconds: float
    read_back: bool = True
    max_backoff_seconds: float = 300.0
    most_piece_bytes: int = 8 * 2**20


def most_finished_segments(wal_segment_size: int) -> int:
    """Return of how many finished segments a store gets pieces before they are archived.

    With an archiving backlog the tail could not be reached, and shipping would only take the line from it.
    """
    return max(MOST_SEGMENTS, _MOST_SEGMENT_BYTES // wal_segment_size)


class StoreShipper:
    """Ships to one store in a thread of its own, so that no store waits for another."""

    def __init__(
        self,
        store: Store,
        tail: StoreTail,
        *,
        layout: Callable[[int], Layout],
        maker: PieceMaker,
        looks: WalLooks,
        options: ShipOptions,
        tell: Callable[[ShipEvent], None],
        wake_upkeep: Callable[[list[str]], None],
        on_source: Callable[[WalPipelineError | None], None],
    ) -> None:
        """``wake_upkeep`` gets keys to remove. ``on_source`` gets the source's failure, or None where it was read."""
        self.tail = tail
        self._store = store
        self._layout = layout
        self._maker = maker
        self._looks = looks
        self._options = options
        self._tell = tell
        self._wake_upkeep = wake_upkeep
        self._on_source = on_source
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"ship-{store.name}", daemon=True)
        self._place: ClusterStore | None = None
        self._path = follow(None, 1, 1)
        self._position: TailPosition | None = None
        self._cuts: dict[int, str] = {}
        self._failures = 0
        self._rests_until = 0.0
        self._waits_since: float | None = None
        self._done: Look | None = None
        self._asked_at: Lsn | None = None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Take no new piece. The looks' ``wake`` must follow."""
        self._stopping.set()

    def join(self, timeout_seconds: float) -> None:
        """Wait for the piece that is on its way."""
        self._thread.join(timeout_seconds)

    def is_done_with(self, look: Look) -> bool:
        """Whether it has shipped all that was flushed at a look, or cannot now."""
        return self._done is not None and self._done.monotonic >= look.monotonic

    def _run(self) -> None:
        serial = 0
        while not self._stopping.is_set():
            rest = self._rests_until - time.monotonic()
            serial = self._looks.wait(serial, rest if rest > 0 else None)
            look = self._looks.last
            if look is None or self._stopping.is_set():
                continue
            if time.monotonic() >= self._rests_until:
                self._ship_guarded()
            self._done = look

    def _ship_guarded(self) -> None:
        try:
            self._ship()
        except CopyConflictError as error:
            self._stop_segment(error)
        except StoreError as error:
            self._failed(error.message, error.hint)
        except (SegmentGoneError, HistoryChangedError) as error:
            _log.info("%s: %s", self._store.name, error.message)
            self._position = None  # it begins anew at the next look
        except PostgresError as error:
            self._on_source(error)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong with one store must not end the others
            _log.exception("%s: cannot ship", self._store.name)
            self._failed(f"{self._store.name}: cannot ship: unexpected {type(error).__name__}: {error}", None)

    def _ship(self) -> None:
        """Ship up to the newest look, and go on while there are newer ones."""
        while not self._stopping.is_set():
            look = self._looks.last
            if look is None:
                return
            seen = look.seen
            if (self._position is None or not self._is_same_history(seen)) and not self._begin(seen):
                return
            self._note_reached(seen)
            if self._position is None or self._position.lsn(seen.wal_segment_size) >= seen.lsn:
                return
            if self._position.offset == seen.wal_segment_size:
                if not self._enter_next(self._position.segment, seen):
                    return
                continue
            self._ship_piece(self._position, seen)

    def _is_same_history(self, seen: FlushedWal) -> bool:
        place = self._place
        return (
            place is not None
            and place.layout.system_identifier == seen.system_identifier
            and self._path.timeline == seen.timeline
        )

    def _begin(self, seen: FlushedWal) -> bool:
        """Find where to go on; False where there is nothing to do now."""
        place, newest = self._place, self._open_segment(seen)
        if newest is None:
            return False
        self._maker.walk(newest, [1], seen)  # what cannot be read costs no request
        if place is None or place.layout.system_identifier != seen.system_identifier:
            place = ClusterStore(self._store, self._layout(seen.system_identifier))
            self.tail.forget(place, list_tail(place))
            self._place = place
        self._path = self._maker.path(seen)
        self._position = None
        conflict = self.tail.conflict
        if conflict is not None and conflict.timeline != seen.timeline:
            self.tail.leave_conflict()
        elif conflict is not None or self._is_full(seen):
            self._tell_wait(seen)
            return False  # upkeep wakes us once a segment is archived
        first = self._first_segment(place, newest, seen)
        self.tail.begin_behind(self._gap_before(place, first, seen))
        return self._enter(first, seen)

    def _gap_before(self, place: ClusterStore, first: WalFileName, seen: FlushedWal) -> tuple[WalFileName, ...]:
        """Return the segments of which one must be on the store before its pieces complete the WAL; none where one is.

        The segment before may have an earlier timeline's name. A cluster's first segment has none before it.
        """
        size = seen.wal_segment_size
        number = first.number(size)
        if number <= 1:
            return ()
        timelines = range(seen.timeline, max(0, seen.timeline - _EARLIER_TIMELINES), -1)
        before = [segment_name(timeline, number - 1, size) for timeline in timelines]
        shipped = (self.tail.pieces_of(name)[-1:] for name in before)
        if any(pieces and pieces[0].recorded.piece.to_offset == size for pieces in shipped):
            return ()
        has_it = any(find_copy(place, name) is not None for name in before)
        return () if has_it else (*before, first)

    def _tell_wait(self, seen: FlushedWal) -> None:
        """Say that nothing is shipped, once it lasts."""
        now = time.monotonic()
        self._waits_since = self._waits_since or now
        if self.tail.conflict is None and now - self._waits_since >= _LONG_WAIT_SECONDS:
            count = len(self._held_on_path(seen))
            message = f"{self._store.name}: {count} finished segments are not archived yet, and shipping waits for that"
            if self.tail.failed(message):
                _log.warning("%s", message)
                hint = "'wal-pipeline status' says what keeps archiving."
                self._tell(ShippingFailed(self._store.name, message, hint))

    def _is_full(self, seen: FlushedWal) -> bool:
        newest = self._open_segment(seen)
        finished = [one for one in self._held_on_path(seen) if one != newest]
        return self._is_behind(finished, seen)

    def _is_behind(self, held: Sequence[WalFileName], seen: FlushedWal) -> bool:
        """Whether more of the held segments wait for archiving than are shipped.

        One that is archived waits no more, though its pieces may not be removed yet. Where it is behind, the store is
        asked again only after new WAL came.
        """
        waiting, most = len(held), most_finished_segments(seen.wal_segment_size)
        if waiting > most and self._asked_at != seen.lsn and self._place is not None:
            for segment in held:  # in WAL order, as they are archived
                if waiting <= most or find_copy(self._place, segment) is None:
                    break
                waiting -= 1
            self._asked_at = seen.lsn if waiting > most else None
        return waiting > most

    def _held_on_path(self, seen: FlushedWal) -> list[WalFileName]:
        """Return the segments in pieces that lead to what was seen: those of a timeline beyond its end do not."""
        size = seen.wal_segment_size
        return [one for one in self.tail.held_segments() if self._on_path(one.number(size)) == one]

    def _on_path(self, number: int) -> WalFileName:
        """Return the segment of a number: before a promotion, it has an earlier timeline's name."""
        return require_file_name(self._path.name(number))

    def _open_segment(self, seen: FlushedWal) -> WalFileName | None:
        """Return the newest segment with flushed bytes; None where there is none at all."""
        if seen.lsn == 0:
            return None
        return segment_name(seen.timeline, (seen.lsn - 1) // seen.wal_segment_size, seen.wal_segment_size)

    def _first_segment(self, place: ClusterStore, newest: WalFileName, seen: FlushedWal) -> WalFileName:
        """Return the first segment that the store lacks as a whole one, of those that are few enough to be shipped."""
        size, first = seen.wal_segment_size, newest
        if newest.end_lsn(size) <= seen.lsn and find_copy(place, newest) is not None:
            return newest.next(size)
        for _ in range(most_finished_segments(size)):
            number = first.number(size)
            before = self._on_path(number - 1) if number else None
            if before is None or find_copy(place, before) is not None or not self._is_readable(before, seen):
                break
            first = before
        return first

    def _is_readable(self, segment: WalFileName, seen: FlushedWal) -> bool:
        try:
            self._maker.walk(segment, [1], seen)
        except SegmentGoneError:
            return False
        return True

    def _enter(self, segment: WalFileName, seen: FlushedWal) -> bool:
        """Stand at the end of what the store has of a segment."""
        if self._place is None:
            return False
        if self.tail.pieces_of(segment):
            return self._return_to(self._place, segment, seen)
        keys = self.tail.take_left_over(segment)
        try:
            held = resume_segment(self._place, segment, keys, self._maker, seen, read_back=self._options.read_back)
        except CopyConflictError as error:
            self._stop_segment(error, segment, keys)
            return False
        except WalPipelineError:
            self.tail.keep_left_over(segment, keys)
            raise
        self._on_source(None)
        if held.chain:
            self.tail.resume(segment, held.chain)
        if held.others:
            self.tail.keep_left_over(segment, held.others)
        self._position, self._cuts = held.end, dict(held.cuts)
        self._wake_upkeep(list(held.spare))
        return True

    def _return_to(self, place: ClusterStore, segment: WalFileName, seen: FlushedWal) -> bool:
        """Stand at the end of the pieces that this process shipped before; False where the server has not come so far.

        Raises: CopyConflictError where the server has other bytes now.
        """
        last = self.tail.pieces_of(segment)[-1].recorded.piece
        if segment.timeline == seen.timeline and last.end_lsn > seen.lsn:
            return False  # a server that was set back, or a standby that is behind: its bytes will show which
        end = self._maker.walk(segment, [last.to_offset], seen)[last.to_offset]
        if end.sha256 != last.through_sha256:
            error = two_histories(
                place.name,
                f"{place.layout.tail_folder(segment)}…-{last.to_offset:08X}",
                *(last.through_sha256, end.sha256),
            )
            self._stop_segment(error, segment)
            return False
        self._position, self._cuts = end, {}
        return True

    def _enter_next(self, segment: WalFileName, seen: FlushedWal) -> bool:
        """Go on with the segment after one that was shipped to its end; False where archiving must catch up first."""
        size = seen.wal_segment_size
        if self._is_behind(self._held_on_path(seen), seen):
            self._position = None
            return False
        following = self._on_path(segment.number(size) + 1)
        if following.end_lsn(size) <= seen.lsn and self._place is not None and find_copy(self._place, following):
            self._position = None  # archiving was faster: look where it ends
            return self._begin(seen)
        return self._enter(following, seen)

    def _ship_piece(self, start: TailPosition, seen: FlushedWal) -> None:
        place, size = self._place, seen.wal_segment_size
        if place is None:
            return
        base = start.segment.start_lsn(size)
        limit = min(size, seen.lsn - base, start.offset + self._options.most_piece_bytes)
        to_offset = min([limit, *(cut for cut in self._cuts if cut > start.offset)])
        complete_before = self._looks.complete_at(seen.timeline, start.lsn(size))
        complete = self._looks.complete_at(seen.timeline, Lsn(base + to_offset))
        before = self.tail.pieces_of(start.segment)[-1:]
        proven_at = None if complete is None else complete.acknowledged_at
        known_at = [*([proven_at] if proven_at else []), *(one.recorded.piece.flushed_at for one in before)]
        made = self._maker.make(start, to_offset, seen, known_at[0] if known_at else None)
        self._on_source(None)
        begun = time.monotonic()
        recorded = put_piece(place, made.piece, made.encoded, read_back=self._options.read_back)
        now = time.monotonic()
        behind = None if complete_before is None else now - complete_before.monotonic
        self.tail.add(ChainedPiece(recorded, start))
        self._position = made.end
        self._waits_since = None
        behind = None if self.tail.gap else behind
        if behind is not None:
            self.tail.behind.add(behind)
        self._note_reached(seen)
        self._failures = 0
        if self.tail.succeeded():
            self._tell(ShippingRecovered(self._store.name))
        self._tell(PieceShipped(self._store.name, recorded.piece, recorded.encoding, behind, now - begun))
        self._wake_upkeep([])
        self._compare_cut(place, made.end, recorded.piece.through_sha256)

    def _compare_cut(self, place: ClusterStore, end: TailPosition, through_sha256: str) -> None:
        """Raises: CopyConflictError where a piece that was there before leads to other bytes at this place."""
        expected = self._cuts.pop(end.offset, through_sha256)
        if expected != through_sha256:
            folder = place.layout.tail_folder(end.segment)
            raise two_histories(place.name, f"{folder}…-{end.offset:08X}", expected, through_sha256)

    def _note_reached(self, seen: FlushedWal) -> None:
        if self._position is None:
            return
        lsn = self._position.lsn(seen.wal_segment_size)
        complete = self._looks.complete_at(seen.timeline, lsn)
        self.tail.reached(ShippedTo(seen.system_identifier, seen.timeline, lsn, complete))

    def _stop_segment(
        self, error: CopyConflictError, segment: WalFileName | None = None, keys: Iterable[str] = ()
    ) -> None:
        """Ship nothing more of a segment of which the store holds another history, until it is archived as a whole."""
        segment = segment or (self._position.segment if self._position is not None else None)
        if segment is None:
            self._failed(error.message, error.hint)
            return
        self._position = None
        self.tail.conflicts(segment, error.message, keys)
        self._wake_upkeep([])
        _log.error("%s", error)
        self._tell(ShippingFailed(self._store.name, error.message, error.hint))

    def _failed(self, message: str, hint: str | None) -> None:
        """Leave the store alone for a while that doubles."""
        self._failures += 1
        first = min(5.0, max(0.5, self._options.interval_seconds))
        longest = min(_LONGEST_REST_SECONDS, self._options.max_backoff_seconds)
        self._rests_until = time.monotonic() + min(longest, first * 2.0 ** min(self._failures - 1, 30))
        if self.tail.failed(message):
            _log.warning("%s", message)
            self._tell(ShippingFailed(self._store.name, message, hint))
