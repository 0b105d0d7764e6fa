"""Keeps one store's pieces few: merges small ones, and removes those of segments that are archived.

It works beside the thread that ships, so that a removal never delays a piece. An object is removed only after what
takes its place is verified.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from wal_pipeline.archive.format.object_metadata import from_metadata
from wal_pipeline.archive.records import CommitTimes
from wal_pipeline.commands.copies.find import find_copy
from wal_pipeline.commands.copies.prove import head_proved, prove
from wal_pipeline.commands.ship.events import PiecesMerged, PiecesRemoved, ShipEvent
from wal_pipeline.commands.ship.held_pieces import ChainedPiece
from wal_pipeline.commands.ship.looks import WalLooks
from wal_pipeline.commands.ship.make_piece import PieceMaker
from wal_pipeline.commands.ship.put_piece import piece_object_key, put_piece
from wal_pipeline.commands.ship.store_tail import StoreTail
from wal_pipeline.errors import InvalidWalFileError, PostgresError, ShippingError, StoreError
from wal_pipeline.postgres.piece_commits import UNKNOWN, PartCommits
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.names import WalFileName

MERGED_TOGETHER: Final = 16
_POLL_SECONDS: Final = 2.0
_ASK_STORE_SECONDS: Final = 30.0
_LONGEST_REST_SECONDS: Final = 600.0
_LONGEST_WAIT_SECONDS: Final = 3600.0
_LEAST_MERGED_BYTES: Final = 4 * 2**20
_log = logging.getLogger(__name__)

IsArchived = Callable[[int, str, str], bool]
"""Whether the catalog has a verified copy: by system identifier, store and segment. False where nobody knows."""


class TailUpkeep:
    """Merges and removes the pieces of one store, in a thread of its own."""

    def __init__(
        self,
        tail: StoreTail,
        *,
        maker: PieceMaker,
        looks: WalLooks,
        is_archived: IsArchived,
        read_back: bool,
        tell: Callable[[ShipEvent], None],
    ) -> None:
        self._tail = tail
        self._maker = maker
        self._looks = looks
        self._is_archived = is_archived
        self._read_back = read_back
        self._tell = tell
        self._stopping = threading.Event()
        self._wanted = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"ship-upkeep-{tail.store}", daemon=True)
        self._lock = threading.Lock()
        self._keys: list[str] = []
        self._asked: dict[WalFileName, tuple[float, float, int]] = {}
        self._unmergeable: set[WalFileName] = set()
        self._failures = 0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self, keys: Iterable[str] = ()) -> None:
        """Look at the pieces soon. ``keys`` are of pieces to remove."""
        with self._lock:
            self._keys.extend(keys)
        self._wanted.set()

    def stop(self) -> None:
        """End after the request that is on its way: what is left is found again by the next shipper."""
        self._stopping.set()
        self._wanted.set()

    def join(self, timeout_seconds: float) -> None:
        """Wait for the end."""
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wanted.wait(self._rest_seconds())
            self._wanted.clear()
            place = self._tail.place
            if place is None or self._stopping.is_set():
                continue
            try:
                self._look_after(place)
                self._failures = 0
            except StoreError as error:
                self._failures += 1
                if self._failures == 1:
                    _log.warning("pieces are not merged or removed for now: %s", error.message)
                self._stopping.wait(min(_LONGEST_REST_SECONDS, _POLL_SECONDS * 2.0 ** min(self._failures, 30)))
            except Exception:  # noqa: BLE001 - it must not end: pieces that are not removed only cost
                _log.exception("%s: cannot look after the pieces", self._tail.store)
                self._stopping.wait(_ASK_STORE_SECONDS)

    def _rest_seconds(self) -> float | None:
        """Return how long to wait: a finished segment may be archived at any moment, and nobody says so."""
        place = self._tail.place
        waits = bool(self._tail.gap) or self._tail.conflict is not None
        return _POLL_SECONDS if waits or (place is not None and self._finished(place)) else None

    def _look_after(self, place: ClusterStore) -> None:
        self._remove_keys(place)
        if any(self._is_whole(place, segment) for segment in self._tail.gap):
            self._tail.begin_behind(())
        for segment in self._finished(place):
            if self._is_whole(place, segment):
                self._remove_segment(place, segment)
        for segment in self._tail.held_segments():
            self._merge(place, segment)

    def _finished(self, place: ClusterStore) -> list[WalFileName]:
        """Return the segments that may be archived: all but the one that the server writes to."""
        look = self._looks.last
        if look is None or look.seen.system_identifier != place.layout.system_identifier:
            return []
        seen = look.seen
        return [
            segment
            for segment in self._tail.segments()
            if segment.timeline != seen.timeline or segment.end_lsn(seen.wal_segment_size) <= seen.lsn
        ]

    def _is_whole(self, place: ClusterStore, segment: WalFileName) -> bool:
        """Whether the store has the segment as a whole one, verified: by the catalog, else by its own listing.

        The store is asked seldom, and only after new WAL came: a quiet server costs no request.
        """
        if self._is_archived(place.layout.system_identifier, place.name, segment.name):
            return True
        now = time.monotonic()
        due_at, wait, count = self._asked.setdefault(segment, (now + _ASK_STORE_SECONDS, _ASK_STORE_SECONDS, -1))
        if now < due_at or count == self._tail.shipped_count:
            return False
        wait = min(2 * wait, _LONGEST_WAIT_SECONDS)  # an old timeline's last segment is never archived
        self._asked[segment] = (now + wait, wait, self._tail.shipped_count)
        key = find_copy(place, segment)
        return key is not None and _is_sound(place, key, segment)

    def _remove_segment(self, place: ClusterStore, segment: WalFileName) -> None:
        self._asked.pop(segment, None)
        self._unmergeable.discard(segment)
        pieces, keys = self._tail.remove(segment)
        gone = [*(piece_object_key(place, one) for one in pieces), *keys]
        with self._lock:
            self._keys.extend(gone)
        self._looks.wake()  # the thread that ships may have waited for this
        self._remove_keys(place)
        self._tell(PiecesRemoved(place.name, segment.name, len(gone)))

    def _remove_keys(self, place: ClusterStore) -> None:
        while not self._stopping.is_set():
            with self._lock:
                key = self._keys[0] if self._keys else None
            if key is None:
                return
            if key.startswith(place.layout.tail_root):
                place.store.delete(key)
            with self._lock:
                self._keys.remove(key)

    def _merge(self, place: ClusterStore, segment: WalFileName) -> None:
        look = self._looks.last
        small = find_small(self._tail.pieces_of(segment))
        if look is None or small is None or segment in self._unmergeable:
            return
        last = small[-1].recorded.piece
        try:
            made = self._maker.make(
                *(small[0].start, last.to_offset, look.seen, last.flushed_at), commits=_joined_commits(small)
            )
        except (PostgresError, ShippingError) as error:
            _log.info("%s: the pieces of '%s' stay as they are: %s", place.name, segment.name, error.message)
            self._unmergeable.add(segment)
            return
        if made.piece.through_sha256 != last.through_sha256:
            self._unmergeable.add(segment)
            return
        recorded = put_piece(place, made.piece, made.encoded, read_back=self._read_back)
        if not self._tail.replace(ChainedPiece(recorded, small[0].start, small[0].level + 1), small):
            self.wake([piece_object_key(place, recorded)])  # the segment was archived meanwhile
            return
        self.wake(piece_object_key(place, one.recorded) for one in small)
        self._remove_keys(place)
        self._tell(PiecesMerged(place.name, recorded.piece, recorded.encoding, len(small)))


def find_small(pieces: Sequence[ChainedPiece]) -> Sequence[ChainedPiece] | None:
    """Return sixteen neighbouring pieces of one level that are small enough to be merged; None where there are none."""
    for first in range(len(pieces) - MERGED_TOGETHER + 1):
        found = pieces[first : first + MERGED_TOGETHER]
        most = max(_LEAST_MERGED_BYTES, found[0].recorded.piece.wal_segment_size >> 6)
        size_bytes = sum(one.recorded.piece.size_bytes for one in found)
        if len({one.level for one in found}) == 1 and size_bytes <= most:
            return found
    return None


def _joined_commits(pieces: Sequence[ChainedPiece]) -> PartCommits:
    """Return the commits of neighbouring pieces. They are not read again: the segment before them may be gone."""
    joined = [one.recorded.piece for one in pieces]
    if any(piece.commit_times is not CommitTimes.KNOWN for piece in joined):
        return UNKNOWN
    return PartCommits(
        CommitTimes.KNOWN,
        first_at=next((at for piece in joined if (at := piece.first_commit_at)), None),
        last_at=next((at for piece in reversed(joined) if (at := piece.last_commit_at)), None),
    )


def _is_sound(place: ClusterStore, key: str, segment: WalFileName) -> bool:
    """Prove a whole segment that no catalog knows, before its pieces are removed. Raises: StoreError."""
    try:
        file, encoding = from_metadata(key, head_proved(place.store, key).metadata)
    except InvalidWalFileError as error:
        _log.warning("%s: %s", place.name, error.message)
        return False
    if file.name != segment.name:
        return False
    prove(place.store, key, encoding)
    return True
