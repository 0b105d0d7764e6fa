"""Delivers a segment that is not archived yet from its pieces: their bytes, and zeros up to the segment's size."""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final, Self

from wal_pipeline.archive.recovery.restore_plan import RestorePlan
from wal_pipeline.archive.recovery.tail import HeldPiece, JoinedTail, join_pieces
from wal_pipeline.commands.archive_get.wal_source import FetchedWal, WalSource, WalUnreachableError
from wal_pipeline.commands.copies.pieces import describe_pieces, list_pieces, open_piece
from wal_pipeline.errors import (
    CodecError,
    DamagedCopyError,
    ObjectMissingError,
    RestoreError,
    StoreError,
    StoreUnavailableError,
    WalPipelineError,
)
from wal_pipeline.host.limits import look_at_memory
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.text import counted
from wal_pipeline.wal.names import FileKind, WalFileName, parse_file_name
from wal_pipeline.wal.page_header import LONG_HEADER_BYTES, check_segment

_GETS_AT_ONCE: Final = 4
_MOST_LOOKS: Final = 4  # pieces are merged, and go where the whole segment is archived, while we read them
_LARGE_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class SegmentOffset:
    """A place in the WAL, which can be compared with a segment's name without its size. As text ``<segment>+<bytes>``.

    ``offset`` is in bytes from the segment's start.
    """

    segment: WalFileName
    offset: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``str`` made. Raises: ValueError."""
        name, _, digits = text.partition("+")
        segment = parse_file_name(name)
        if segment is None or segment.kind is not FileKind.SEGMENT or not (digits.isascii() and digits.isdigit()):
            raise ValueError(f"'{text}' is not a place in the WAL, expected <segment>+<bytes>")
        return cls(segment, int(digits))

    def __str__(self) -> str:
        """Return the text that ``parse`` reads."""
        return f"{self.segment.name}+{self.offset}"

    def offset_in(self, name: WalFileName) -> int | None:
        """Return where it lies in the segment ``name`` of any timeline: None where behind it, 0 where before it."""
        here, there = (name.log, name.segment), (self.segment.log, self.segment.segment)
        return self.offset if here == there else None if here < there else 0


@dataclass(frozen=True, slots=True)
class TailLimits:
    """How far a recovery may get WAL that is not archived as whole segments.

    ``timelines`` are those whose pieces may be used; of all but the newest of them only where they are all of a
    segment. ``reach``: the plan of the recovery has WAL up to here, and less is an error. ``end``: nothing from here on
    is delivered, whatever is archived meanwhile.
    """

    timelines: frozenset[int] = frozenset()
    reach: SegmentOffset | None = None
    end: SegmentOffset | None = None

    def words(self) -> list[str]:
        """Return the options of ``archive-get`` that say the same."""
        words = [f"--tail={timeline}" for timeline in sorted(self.timelines)]
        words += [] if self.reach is None else [f"--tail-reach={self.reach}"]
        return words + ([] if self.end is None else [f"--tail-end={self.end}"])


def limits_of(plan: RestorePlan) -> TailLimits:
    """Return the limits of a recovery by its plan. Without pieces in the plan, none may be used."""
    if not plan.tails:
        return TailLimits()
    reach = SegmentOffset(plan.tails[-1].segment, plan.tails[-1].end_offset)
    is_bound = plan.bound is not None and plan.tail is not None
    timelines = frozenset(tail.segment.timeline for tail in plan.tails)
    return TailLimits(timelines, reach, reach if is_bound else None)


class EndNotes:
    """Keeps why nothing was delivered of a segment that lies beyond the plan, until it is said, once for each."""

    def __init__(self) -> None:
        self._notes: dict[str, tuple[str, ...]] = {}

    def keep(self, name: WalFileName, error: "PiecesDamagedError") -> None:
        """Keep which pieces are damaged, if it was not kept before."""
        said = f"'{name.name}' is beyond what the restore was planned with, and is not used"
        self._notes.setdefault(name.name, tuple(f"{said}: {fault.message}" for fault in error.faults))

    def take(self, name: WalFileName) -> tuple[str, ...]:
        """Return what is to be said of a segment; nothing where it was taken before."""
        notes = self._notes.get(name.name, ())
        if notes:
            self._notes[name.name] = ()
        return notes


@dataclass(frozen=True, slots=True)
class RecoveryWal:
    """The WAL of one recovery: whole segments, and pieces where no store has the whole one."""

    source: WalSource
    limits: TailLimits = field(default_factory=TailLimits)
    end_notes: EndNotes = field(default_factory=EndNotes, compare=False)

    def fetch(self, name: WalFileName) -> FetchedWal | None:
        """Return a file as recovery may get it; None where every store answered and none has it.

        Pieces also count where each store answered, and all whole copies were damaged at two looks: where they are all
        of the segment, or as much of it as the plan counted on. Where it counted on nothing of the segment and a piece
        is damaged, the recovery ends before it, and ``end_notes`` has the reason.

        Raises: WalUnreachableError, RestoreError, SettingsError, as ``WalSource.fetch`` does, and where a store does
        not tell its pieces, where a piece is damaged on every store, or where they end before the plan's end.
        """
        whole, damage = self._fetch_whole(name)
        if whole is not None or name.kind is not FileKind.SEGMENT or name.timeline not in self.limits.timelines:
            return _require_undamaged(whole, damage)
        for look in range(_MOST_LOOKS):
            gone: WalUnreachableError | None = None
            unused: PiecesDamagedError | None = None
            try:
                tail = fetch_tail(self.source, name, enough=self._enough(name))
            except PiecesGoneError as error:
                tail, gone = None, error
            except WalUnreachableError as error:
                if isinstance(error, PiecesDamagedError) and self._enough(name) == 0:
                    tail, unused = None, error
                elif damage is None:
                    raise
                else:
                    raise WalUnreachableError(name.name, [*damage.faults, *error.faults]) from error
            # Pieces go only after the whole segment is there: what was read of them counts while it is not.
            whole, damage_now = self._fetch_whole(name)
            if whole is not None:
                return whole
            damage = damage_now or damage
            if unused is not None and damage is None:
                self.end_notes.keep(name, unused)
            if gone is None:
                return self._judged(name, tail) if damage is None else self._in_place_of(damage, name, tail)
            if look == _MOST_LOOKS - 1:
                raise gone
        return None

    def _enough(self, name: WalFileName) -> int | None:
        """Return how many bytes of a segment the plan counts on; None where all that is promised must come."""
        return None if self.limits.reach is None else self.limits.reach.offset_in(name)

    def fetch_whole(self, name: WalFileName) -> FetchedWal | None:
        """Return a file that is archived as a whole. Raises: as ``WalSource.fetch``."""
        fetched = self.source.fetch(name)
        return None if fetched is None else self._cut(fetched)

    def _fetch_whole(self, name: WalFileName) -> tuple[FetchedWal | None, WalUnreachableError | None]:
        """Return what ``fetch_whole`` does; or the error where each store answered, and all its copies are damaged."""
        try:
            return self.fetch_whole(name), None
        except WalUnreachableError as error:
            if not error.is_damage:
                raise
            return None, error

    def _in_place_of(
        self, damage: WalUnreachableError, name: WalFileName, tail: "FetchedTail | None"
    ) -> FetchedWal | None:
        """Return a segment whose whole copies are damaged from its pieces, where nothing that was planned is lost.

        Raises: ``damage``, where they are less than that: the end of the pieces is not the end of the archive then.
        """
        needed = 0 if self.limits.reach is None else self._enough(name)
        is_planned = name.timeline == max(self.limits.timelines) and bool(needed)
        if tail is None or not (
            tail.joined.is_whole or (is_planned and needed is not None and tail.joined.end_offset >= needed)
        ):
            raise damage
        notes = tuple(fault.message for fault in damage.faults)
        return self._cut(replace(tail.wal, notes=(*notes, *tail.wal.notes)))

    def _judged(self, name: WalFileName, tail: "FetchedTail | None") -> FetchedWal | None:
        """Return the segment from its pieces; None where they may not be used, and nobody counted on them."""
        if tail is not None and name.timeline != max(self.limits.timelines) and not tail.joined.is_whole:
            tail = None
        self._require_reach(name, tail)
        return None if tail is None else self._cut(tail.wal)

    def _require_reach(self, name: WalFileName, tail: "FetchedTail | None") -> None:
        needed = 0 if self.limits.reach is None else self._enough(name)
        got = 0 if tail is None else tail.joined.end_offset
        if got >= needed if needed is not None else tail is not None and tail.joined.is_whole:
            return
        stores = " and ".join(store.name for store in self.source.stores)
        raise RestoreError(
            f"'{name.name}' is not archived as a whole, and pieces on {stores} are its first {got} bytes, "
            f"expected {'all of it' if needed is None else f'at least {needed}'}, with which the restore was planned",
            hint="Restore again: the plan says how far the archive reaches now.",
        )

    def _cut(self, fetched: FetchedWal) -> FetchedWal | None:
        """Return a segment with zeros from the end on; None where it begins there or later."""
        if self.limits.end is None or fetched.name.kind is not FileKind.SEGMENT:
            return fetched
        offset, size = self.limits.end.offset_in(fetched.name), len(fetched.data)
        if offset is None or offset >= size:
            return fetched
        return replace(fetched, data=fetched.data[:offset].ljust(size, b"\0")) if offset > 0 else None


def _require_undamaged(whole: FetchedWal | None, damage: WalUnreachableError | None) -> FetchedWal | None:
    if damage is not None:
        raise damage
    return whole


@dataclass(frozen=True, slots=True)
class FetchedTail:
    """A segment made from its pieces, and what they are."""

    wal: FetchedWal
    joined: JoinedTail


class PiecesGoneError(WalUnreachableError):
    """A piece was there and is gone: it was merged, or the whole segment has come."""


class PiecesDamagedError(WalUnreachableError):
    """Without the ``damaged`` pieces there is less than the pieces promise."""

    def __init__(self, name: str, faults: Sequence[WalPipelineError], damaged: Iterable[HeldPiece]) -> None:
        super().__init__(name, faults)
        self.hint = (
            "Recovery stops here rather than end earlier without a word. Restore again: the plan then ends before the "
            "damaged piece, and says so."
        )
        self.damaged = tuple(damaged)


def fetch_tail(source: WalSource, name: WalFileName, *, enough: int | None = None) -> FetchedTail | None:
    """Make a segment from its pieces on all the source's stores; None where no piece begins it, as each store says.

    A piece that cannot be used is replaced by another store's, or by others of the same bytes. Where that is not
    possible, ``enough`` bytes do; by default all that the pieces promise.

    Raises: PiecesGoneError; PiecesDamagedError, because a recovery that ended earlier would lose what is there without
    a word; WalUnreachableError where a store does not answer, or no identity opens a piece.
    """
    places = {store.name: ClusterStore(store, source.layout) for store in source.stores}
    pieces: list[HeldPiece] = []
    damaged: list[WalPipelineError] = []
    for place in places.values():
        try:
            found, faults = describe_pieces(place, list_pieces(place, name))
        except StoreError as error:
            raise WalUnreachableError(name.name, [error]) from error
        pieces += found
        damaged += faults
    promised = join_pieces(pieces)
    is_nothing = promised is None or not promised.pieces
    if damaged and (enough is None or is_nothing):
        raise PiecesDamagedError(name.name, damaged, ())
    if promised is None or is_nothing:
        return None
    if promised.wal_segment_size >= _LARGE_BYTES:
        _require_memory(name, promised)
    least = promised.end_offset if enough is None else min(enough, promised.end_offset)
    return _open(source, places, pieces, promised, least=least, damaged=damaged)


def _open(
    source: WalSource,
    places: Mapping[str, ClusterStore],
    pieces: Sequence[HeldPiece],
    promised: JoinedTail,
    *,
    least: int,
    damaged: list[WalPipelineError],
) -> FetchedTail:
    """Read the pieces, and join the others again where one cannot be used, as long as enough is there."""
    name = promised.segment
    opened: dict[HeldPiece, bytes] = {}
    bad: set[HeldPiece] = set()
    joined: JoinedTail | None = promised
    while joined is not None and joined.pieces and joined.end_offset >= least:
        new = [one for one in joined.pieces if one not in opened]
        with ThreadPoolExecutor(_GETS_AT_ONCE, thread_name_prefix="get-piece") as pool:
            answers = [(one, pool.submit(open_piece, places[one.store], one, source.identities)) for one in new]
            for one, answer in answers:
                try:
                    opened[one] = answer.result()
                except ObjectMissingError as error:
                    raise PiecesGoneError(name.name, [error]) from error
                except CodecError as error:
                    raise WalUnreachableError(name.name, [error]) from error
                except DamagedCopyError as error:
                    bad.add(one)
                    damaged.append(error)
                except StoreError as error:
                    raise WalUnreachableError(name.name, [error]) from error
        wrong = None if bad & set(joined.pieces) else _first_wrong(joined, opened)
        if wrong is not None:
            bad.add(wrong)
            damaged.append(_wrong(wrong))
        if not bad & set(joined.pieces):
            return _made(source, joined, opened, damaged)
        joined = join_pieces(one for one in pieces if one not in bad)
    raise PiecesDamagedError(name.name, damaged, bad)


def _first_wrong(joined: JoinedTail, opened: Mapping[HeldPiece, bytes]) -> HeldPiece | None:
    """Return the first piece that does not lead to the content that it promises."""
    digest = hashlib.sha256()
    for one in joined.pieces:
        digest.update(opened[one])
        if digest.hexdigest() != one.piece.through_sha256:
            return one
    return None


def _wrong(one: HeldPiece) -> DamagedCopyError:
    return DamagedCopyError(one.store, f"object '{one.object_key}' does not lead to the content that it promises")


def _made(
    source: WalSource, joined: JoinedTail, opened: Mapping[HeldPiece, bytes], damaged: Collection[WalPipelineError]
) -> FetchedTail:
    name, size = joined.segment, joined.wal_segment_size
    data = b"".join(opened[one] for one in joined.pieces).ljust(size, b"\0")
    if joined.pieces[0].piece.server_major is not None and joined.end_offset >= LONG_HEADER_BYTES:
        check_segment(name, data[:LONG_HEADER_BYTES], size, {source.layout.system_identifier})
    notes = [fault.message for fault in damaged]
    notes += [] if joined.conflict is None else [joined.conflict]
    if not joined.is_whole:
        pieces = counted(len(joined.pieces), "piece")
        notes.append(f"no store has '{name.name}' whole: {pieces} up to {joined.end_lsn}, then zeros")
    stores = " and ".join(joined.stores)
    return FetchedTail(FetchedWal(name, data, stores, joined.pieces[-1].object_key, tuple(notes)), joined)


def _require_memory(name: WalFileName, joined: JoinedTail) -> None:
    """Refuse a large segment that would get this process killed. Raises: WalUnreachableError: it may fit later."""
    memory, needed = look_at_memory(), 3 * joined.wal_segment_size
    if memory is not None and needed > memory.available_bytes:
        raise WalUnreachableError(
            name.name,
            [
                StoreUnavailableError(
                    joined.stores[0],
                    f"the pieces of '{name.name}' need {needed / 2**20:,.0f} MiB of memory to be joined, "
                    f"{memory.available_bytes / 2**20:,.0f} MiB are free",
                    hint="Give this host or its container more memory, at least three times the segment.",
                )
            ],
        )
