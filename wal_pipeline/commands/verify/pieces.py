"""Verifies the pieces of open segments: says which are damaged or missing, and whether they join without a hole.

Pieces of a segment that is verified as a whole on the same store are superseded: they wait for their removal, and
nobody reads them. A shipper may be merging or removing pieces meanwhile, so what is gone is looked for again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Final

from wal_pipeline.archive.format.piece import piece_from_metadata
from wal_pipeline.archive.recovery.tail import HeldPiece, join_pieces
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.codec.decoder import open_stored
from wal_pipeline.commands.copies.find import find_copies
from wal_pipeline.commands.copies.pieces import describe_pieces, list_pieces
from wal_pipeline.commands.copies.prove import head_proved, read_proved
from wal_pipeline.commands.copies.stored_bytes import WrongSizeError, require_content, require_size, require_wal_size
from wal_pipeline.commands.expire.pieces import is_proven
from wal_pipeline.commands.inventory.survey import ClusterSurvey
from wal_pipeline.commands.ship.put_piece import piece_object_key
from wal_pipeline.commands.ship.records import RecordedPiece, read_tail
from wal_pipeline.commands.verify.results import FaultKind, PieceFault, PieceTally
from wal_pipeline.errors import CodecError, DamagedCopyError, InvalidWalFileError, ObjectMissingError, StoreError
from wal_pipeline.stores.base import Store
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.names import WalFileName, require_file_name

_READ_AT_ONCE: Final = 4
_DAMAGED: Final = (FaultKind.TRUNCATED, FaultKind.CORRUPT)
RemovePiece = Callable[[ClusterStore, str, str], None]
"""Remove a piece by its key, and write the reason down. Raises: StoreError."""


@dataclass(slots=True)
class PieceVerification:
    """The findings of all pieces: counts by store, faults, and the segments whose pieces do not join."""

    tallies: dict[str, PieceTally]
    faults: list[PieceFault] = field(default_factory=list)
    holes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PieceVerifier:
    """Verifies the pieces of one cluster. Without ``identities`` encrypted ones are compared as stored, not opened."""

    stores: Mapping[str, Store]
    catalog: Catalog
    identities: Sequence[Any]

    def verify(
        self,
        survey: ClusterSurvey,
        found: PieceVerification,
        silent: dict[str, str],
        *,
        deep: bool,
        remove: RemovePiece | None,
    ) -> None:
        """Add the findings of each store that answers to ``found``; ``remove`` is given where damage is to be repaired.

        A store that fails is added to ``silent``. Raises: CatalogError.
        """
        good: list[HeldPiece] = []
        faults: list[PieceFault] = []
        for store in survey.listings:
            if store in silent:
                continue
            try:
                sound, wrong = self._look(survey, store, found.tallies[store], deep=deep)
                wrong += self._missing(survey, store)
            except StoreError as error:
                silent[store] = error.message
                continue
            good += sound
            faults += wrong
        found.holes += self._holes(survey, good, silent)
        if remove is not None:
            faults = [self._repaired(survey, fault, good if deep else [], remove) for fault in faults]
        found.faults += faults

    def _look(
        self, survey: ClusterSurvey, store: str, tally: PieceTally, *, deep: bool
    ) -> tuple[list[HeldPiece], list[PieceFault]]:
        place, listing = self._place(survey, store), survey.listings[store]
        wanted = []
        for segment, items in listing.pieces.items():
            tally.pieces += len(items)
            tally.stored_bytes += sum(item.size_bytes for item in items)
            if is_proven(survey, store, segment):
                tally.superseded += len(items)
            else:
                wanted += [item.key for item in items]
        with ThreadPoolExecutor(_READ_AT_ONCE, thread_name_prefix="verify-piece") as pool:
            looked = list(pool.map(lambda key: self._judge(place, key, deep=deep), wanted))
        read = [one for one in looked if isinstance(one, tuple)]
        tally.read += len(read) if deep else 0
        tally.read_bytes += sum(size_bytes for _, size_bytes in read) if deep else 0
        faults = [one for one in looked if isinstance(one, PieceFault)]
        gone = [one for one in faults if one.kind is FaultKind.MISSING and not self._stands(place, one.key)]
        return [held for held, _ in read], [one for one in faults if one not in gone]

    def _judge(self, place: ClusterStore, key: str, *, deep: bool) -> tuple[HeldPiece, int] | PieceFault:
        """Return the piece and its stored bytes, or what is wrong with it. Raises: StoreError."""
        try:
            return self._read(place, key, deep=deep)
        except InvalidWalFileError as error:
            return PieceFault(place.name, key, FaultKind.UNREADABLE, f"{place.name}: {error.message}")
        except ObjectMissingError as error:
            return PieceFault(place.name, key, FaultKind.MISSING, error.message)
        except DamagedCopyError as error:
            kind = FaultKind.TRUNCATED if isinstance(error, WrongSizeError) else FaultKind.CORRUPT
            return PieceFault(place.name, key, kind, error.message)
        except _ReplacedError as error:
            return PieceFault(place.name, key, FaultKind.REPLACED, f"{place.name}: {error}")

    def _read(self, place: ClusterStore, key: str, *, deep: bool) -> tuple[HeldPiece, int]:
        store = place.store
        found = head_proved(store, key)
        piece, encoding = piece_from_metadata(key, found.metadata)
        said = place.layout.piece_key(piece.name, encoding.codec, encrypted=encoding.encrypted)
        if (said, piece.system_identifier) != (key, place.layout.system_identifier):
            raise _ReplacedError(
                f"object '{key}' says that it is bytes {piece.from_offset} to {piece.to_offset} of "
                f"'{piece.segment.name}' of system identifier {piece.system_identifier}"
            )
        require_size(store, key, found.size_bytes, encoding.size_bytes)
        require_wal_size(store, key, found.size_bytes)
        if deep:
            data = read_proved(store, key, encoding)
            if not encoding.encrypted or self.identities:
                try:
                    content = open_stored(
                        data,
                        encoding.codec,
                        encrypted=encoding.encrypted,
                        identities=self.identities,
                        max_size_bytes=piece.size_bytes,
                    )
                except CodecError as error:
                    raise DamagedCopyError(store.name, f"object '{key}' cannot be opened: {error.message}") from error
                require_content(store, key, content, piece)
        return HeldPiece(piece, place.name, key), found.size_bytes

    def _missing(self, survey: ClusterSurvey, store: str) -> list[PieceFault]:
        """Return the pieces that are recorded as shipped, and that neither they nor others hold the bytes of."""
        place, listed = self._place(survey, store), survey.listings[store].pieces
        keys = {item.key for items in listed.values() for item in items}
        lacking = [key for key in self._recorded(place) if key not in keys]
        faults = [
            PieceFault(
                store,
                key,
                FaultKind.MISSING,
                f"{store}: object '{key}' does not exist, and is recorded as a verified piece",
            )
            for key in lacking
            if self._stands(place, key)
        ]
        still = self._recorded(place) if faults else []
        return [fault for fault in faults if fault.key in still]

    def _recorded(self, place: ClusterStore) -> list[str]:
        tail = read_tail(self.catalog.values, place.name)
        if tail is None or tail.system_identifier != place.layout.system_identifier:
            return []
        return [piece_object_key(place, RecordedPiece(one.piece, one.encoding)) for one in tail.pieces]

    def _stands(self, place: ClusterStore, key: str) -> bool:
        """Look again: say whether nothing on the store has the bytes of a piece that was not there."""
        stored = place.layout.parse_piece_key(key)
        if stored is None:
            return False
        segment, begin = stored.piece.segment, stored.piece.from_offset
        if find_copies(place, segment):
            return False
        parsed = (place.layout.parse_piece_key(other) for other in list_pieces(place, segment))
        for other in sorted((one.piece.from_offset, one.piece.to_offset) for one in parsed if one is not None):
            begin = max(begin, other[1]) if other[0] <= begin else begin
        return begin < stored.piece.to_offset

    def _holes(self, survey: ClusterSurvey, good: Sequence[HeldPiece], silent: Mapping[str, str]) -> list[str]:
        """Say of which segments the pieces of all stores together do not join, where no store has the whole one."""
        if silent:  # the pieces of a store that does not answer may be in the hole
            return []
        segments = {one.piece.segment.name for one in good}
        whole = set[str]().union(*(listing.wal for listing in survey.listings.values()))
        found = []
        for name in sorted(segments - whole):
            if _hole([one for one in good if one.piece.segment.name == name]) is None:
                continue
            now = self._described_now(survey, require_file_name(name))
            text = None if now is None else _hole(now)
            found += [] if text is None else [f"'{name}': {text}"]
        return found

    def _described_now(self, survey: ClusterSurvey, segment: WalFileName) -> list[HeldPiece] | None:
        """Describe a segment's pieces anew, as they may have been merged meanwhile; None where it is whole."""
        pieces: list[HeldPiece] = []
        for store in survey.listings:
            place = self._place(survey, store)
            try:
                if find_copies(place, segment):
                    return None
                pieces += describe_pieces(place, list_pieces(place, segment))[0]
            except StoreError:
                return None
        return pieces

    def _repaired(
        self, survey: ClusterSurvey, fault: PieceFault, good: Sequence[HeldPiece], remove: RemovePiece
    ) -> PieceFault:
        """Remove a damaged piece where its bytes are proven to be somewhere else, and say what was done."""
        if fault.kind not in _DAMAGED:
            return fault
        place = self._place(survey, fault.store)
        reason = self._replaced_by(survey, place, fault.key, good)
        if reason is None:
            why = "nothing else is proven to hold its bytes; it is superseded when its segment is archived"
            return replace(fault, outcome=f"not removed: {why}")
        try:
            remove(place, fault.key, f"{fault.message}; {reason}")
        except StoreError as error:
            return replace(fault, outcome=f"could not be removed: {error.message}")
        return replace(fault, outcome=f"removed: {reason}", is_removed=True)

    def _replaced_by(
        self, survey: ClusterSurvey, place: ClusterStore, key: str, good: Iterable[HeldPiece]
    ) -> str | None:
        """Say what holds the bytes of a damaged piece; None where nothing is proven to."""
        stored = place.layout.parse_piece_key(key)
        if stored is None:
            return None
        segment = stored.piece.segment
        on = [store for store in survey.listings if is_proven(survey, store, segment.name)]
        if on:
            return f"the whole segment is verified on {on[0]}"
        others = [
            one for one in good if one.piece.segment == segment and (one.store, one.object_key) != (place.name, key)
        ]
        tail = join_pieces(others)
        if tail is None or tail.conflict is not None or tail.end_offset < stored.piece.to_offset:
            return None
        return f"other pieces were read just now and hold its bytes ({', '.join(tail.stores)})"

    def _place(self, survey: ClusterSurvey, store: str) -> ClusterStore:
        return ClusterStore(self.stores[store], survey.layout)


class _ReplacedError(Exception):
    """An object is a whole piece of something else."""


def _hole(pieces: Sequence[HeldPiece]) -> str | None:
    """Say where the pieces of a segment stop joining; None where all of them do."""
    tail = join_pieces(pieces)
    if tail is not None and tail.conflict is not None:
        return tail.conflict
    end, furthest = 0 if tail is None else tail.end_offset, max((one.piece.to_offset for one in pieces), default=0)
    if end >= furthest:
        return None
    return f"its pieces join up to offset {end} alone, and there are pieces up to {furthest}: a recovery ends at {end}"
