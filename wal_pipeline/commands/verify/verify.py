"""Verify the archive: by names and sizes, or by reading it back, and heal a copy from a good one on another store.

A fault is a copy that retention wants on that store and that is absent or is not what its name promises. What names and
sizes make suspect is read before it is judged. An item is **lost** where no store that answered has a good copy: then
nothing of it is touched.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from wal_pipeline.archive.recovery.branches import branches_of, living_notes
from wal_pipeline.archive.retention.rules import RetentionRule
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.commands.copies.find import find_copies
from wal_pipeline.commands.inventory.survey import ClusterSurvey, Surveyor
from wal_pipeline.commands.relations.records import put_list_bytes
from wal_pipeline.commands.verify.compare import Comparer, WantedCopies
from wal_pipeline.commands.verify.last_results import record_results
from wal_pipeline.commands.verify.pieces import PieceVerification, PieceVerifier
from wal_pipeline.commands.verify.read_copy import CopyReader, ReadCopy, read_backup
from wal_pipeline.commands.verify.records import (
    breaks_found,
    record_faults,
    record_found_again,
    record_read,
    settle_alerts,
)
from wal_pipeline.commands.verify.relations import ListVerification, ListVerifier
from wal_pipeline.commands.verify.repair import Repairer
from wal_pipeline.commands.verify.results import (
    Fault,
    FaultKind,
    Item,
    ItemKind,
    ListTally,
    PieceTally,
    Repair,
    Tally,
    Verification,
)
from wal_pipeline.commands.verify.verdict import record_verdict
from wal_pipeline.errors import StoreError
from wal_pipeline.host.gc_pause import many_objects
from wal_pipeline.stores.base import Store
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.names import require_file_name

_NEVER: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A copy that could be read: ``read_at`` is when its content was read last, None for never."""

    store: str
    item: Item
    size_bytes: int
    read_at: datetime | None


def choose_share(candidates: Iterable[Candidate], share: float) -> list[Candidate]:
    """Return the copies to read, those that were read longest ago first, until they make up ``share`` of the bytes.

    A share of a quarter, taken four times, has read everything that was there the first time.
    """
    ordered = sorted(candidates, key=lambda one: (one.read_at or _NEVER, one.item.kind, one.item.name, one.store))
    wanted = share * sum(one.size_bytes for one in ordered)
    chosen: list[Candidate] = []
    total = 0
    for candidate in ordered:
        if total >= wanted and share < 1:
            break
        chosen.append(candidate)
        total += candidate.size_bytes
    return chosen


_RECORDED_AT_ONCE: Final = 100


@dataclass(slots=True)
class _Round:
    """The state of one verification."""

    now: datetime
    share: float | None
    silent: dict[str, str]
    tallies: dict[str, Tally]
    faults: dict[tuple[str, Item], Fault] = field(default_factory=dict)
    good: set[tuple[str, Item]] = field(default_factory=set)
    lost: set[Item] = field(default_factory=set)
    repairs: list[Repair] = field(default_factory=list)
    contents: dict[Item, ReadCopy] = field(default_factory=dict)
    breaks: list[str] = field(default_factory=list)

    def other_content(self, read: ReadCopy) -> Fault | None:
        """Compare a good copy with the first one that was read: the catalog may know neither."""
        first = self.contents.setdefault(read.item, read)
        if first.content_sha256 == read.content_sha256:
            return None
        text = (
            f"{read.store}: '{read.item.name}' has content with SHA-256 {read.content_sha256}, "
            f"{first.store} has it with {first.content_sha256}"
        )
        return Fault(read.item, read.store, FaultKind.OTHER_CONTENT, text)


class Verifier:
    """Verifies one cluster's archive on every store."""

    def __init__(
        self,
        stores: Mapping[str, Store],
        catalog: Catalog,
        surveyor: Surveyor,
        reader: CopyReader,
        make_repairer: Callable[[], Repairer],
        *,
        rule: RetentionRule,
        clock: Callable[[], datetime],
        concurrency: int,
        in_spool: Callable[[str], bool | None],
    ) -> None:
        """``concurrency``: copies read at once, each held in memory twice. ``in_spool``: see ``Comparer``."""
        self._stores = stores
        self._catalog = catalog
        self._surveyor = surveyor
        self._reader = reader
        self._make_repairer = make_repairer
        self._rule = rule
        self._clock = clock
        self._concurrency = concurrency
        self._in_spool = in_spool

    def verify(self, *, share: float | None = None, repair: bool = False) -> Verification:
        """Compare names and sizes; with ``share`` (over 0, up to 1) read that part of the bytes too.

        With ``repair`` faulty copies are refilled from good ones. Raises: CatalogError.
        """
        survey = self._surveyor.survey()
        state = _Round(self._clock(), share, dict(survey.silent), {name: Tally() for name in self._stores})
        repairer = self._make_repairer()
        pieces = PieceVerification({name: PieceTally() for name in self._stores})
        verifier = PieceVerifier(self._stores, self._catalog, self._reader.identities)
        lists = ListVerification({name: ListTally() for name in self._stores})
        list_verifier = ListVerifier(self._stores, self._reader.identities, state.now)
        for cluster in survey.clusters:
            self._verify(cluster, state, repairer if repair else None)
            remove = repairer.remove_piece if repair else None
            verifier.verify(cluster, pieces, state.silent, deep=share is not None, remove=remove)
            repaired = repairer.write_list_repair if repair else None
            list_verifier.verify(cluster, lists, state.silent, deep=share is not None, repaired=repaired)
        done = Verification(
            begun_at=state.now,
            is_deep=share is not None,
            tallies=state.tallies,
            silent=state.silent,
            faults=tuple(state.faults.values()),
            lost=frozenset(state.lost),
            repairs=tuple(state.repairs),
            refilled=tuple(repairer.refilled),
            notes=tuple(note for cluster in survey.clusters for note in _notes(cluster)),
            breaks=tuple(state.breaks),
            piece_tallies=pieces.tallies,
            piece_faults=tuple(pieces.faults),
            holes=tuple(pieces.holes),
            list_tallies=lists.tallies,
            list_faults=tuple(lists.faults),
        )
        settle_alerts(self._catalog, done, self._clock())
        record_verdict(self._catalog, done)
        record_results(self._catalog, done)
        for store in done.list_tallies.keys() - done.silent.keys():
            put_list_bytes(self._catalog.values, store, done.list_tallies[store].stored_bytes)
        return done

    def _verify(self, survey: ClusterSurvey, state: _Round, repairer: Repairer | None) -> None:
        with many_objects():
            compared = Comparer(survey, self._rule, state.now, self._in_spool).compare()
        _add_tallies(state.tallies, compared.tallies)
        before = set(state.faults)
        again = [one for one in compared.faults if state.share is not None and _may_be_put_back(survey, one)]
        settled = [one for one in compared.faults if one not in again]
        state.faults |= {_key(one): one for one in settled if self._stands(survey, one, state)}
        suspects = [_key(one) for one in (*(suspect.fault for suspect in compared.suspects), *again)]
        self._read(survey, suspects, state)
        if state.share is not None:
            self._read(survey, self._chosen(survey, compared.wanted, state), state)
            self._read(survey, self._named_in_full(survey, compared.faults), state)
        mine = {key: fault for key, fault in state.faults.items() if key not in before}
        self._read(survey, self._counterparts(survey, mine.values(), state), state)
        mine = {key: fault for key, fault in state.faults.items() if key not in before}
        state.breaks += breaks_found(self._catalog, survey, state.contents)
        record_faults(self._catalog, survey, list(mine.values()))
        record_found_again(self._catalog, survey, set(mine))
        state.lost |= {fault.item for fault in mine.values() if not self._sources(survey, fault, state)}
        if repairer is not None:
            for fault in sorted(mine.values(), key=lambda one: (one.item.kind != ItemKind.WAL_FILE, one.item.name)):
                if fault.item not in state.lost:
                    sources = self._sources(survey, fault, state)
                    state.repairs.append(repairer.repair(fault, survey.layout, survey.records, sources))

    def _stands(self, survey: ClusterSurvey, fault: Fault, state: _Round) -> bool:
        """Look again at what the listing did not have: it may have come since, while it was being listed."""
        if fault.kind is not FaultKind.MISSING or fault.item.kind is not ItemKind.WAL_FILE:
            return True
        recorded = survey.records.copy(fault.store, fault.item.name)
        if recorded is not None and (recorded.verified_at is None or recorded.verified_at < state.now):
            return True
        try:
            name = require_file_name(fault.item.name)
            return not find_copies(self._place(survey, fault.store), name)
        except StoreError as error:
            state.silent[fault.store] = error.message
            return False

    def _chosen(self, survey: ClusterSurvey, wanted: WantedCopies, state: _Round) -> list[tuple[str, Item]]:
        """Return the share of the copies that is due, without what was read already or is known to be faulty."""
        known = state.faults.keys() | state.good
        candidates = [one for one in self._candidates(survey, wanted) if (one.store, one.item) not in known]
        return [(one.store, one.item) for one in choose_share(candidates, state.share or 0)]

    def _named_in_full(self, survey: ClusterSurvey, faults: Iterable[Fault]) -> list[tuple[str, Item]]:
        """Return the base backups that lack an object: reading them names all else that is wrong with them."""
        return [
            (fault.store, fault.item)
            for fault in faults
            if fault.item.kind is ItemKind.BASE_BACKUP
            and fault.kind in (FaultKind.MISSING, FaultKind.TRUNCATED)
            and fault.item.name in survey.listings[fault.store].manifests
        ]

    def _candidates(self, survey: ClusterSurvey, wanted: WantedCopies) -> Iterator[Candidate]:
        identifier = survey.layout.system_identifier
        read_at = self._catalog.files.read_moments()
        for store, listing in survey.listings.items():
            for name in wanted.files & listing.wal.keys():
                item = Item(identifier, ItemKind.WAL_FILE, name)
                yield Candidate(store, item, listing.size_of(name), read_at.get((store, (identifier, name))))
            for backup_id in wanted.backups & listing.manifests.keys():
                manifest = listing.manifests[backup_id]
                item = Item(identifier, ItemKind.BASE_BACKUP, backup_id)
                copy = survey.records.backups.get((store, backup_id))
                last_at = (copy.last_deep_verified_at or copy.verified_at) if copy is not None else None
                yield Candidate(store, item, manifest.stored_size_bytes, last_at)

    def _counterparts(self, survey: ClusterSurvey, faults: Iterable[Fault], state: _Round) -> list[tuple[str, Item]]:
        """Return the other stores' copies of what is faulty: what is good there decides whether anything is lost.

        Base backups are read only in a deep verification: a repair reads its source in any case.
        """
        items = {fault.item: None for fault in faults}
        deep = [item for item in items if item.kind is ItemKind.WAL_FILE or state.share is not None]
        pairs = [(store, item) for item in deep for store in survey.listings if _holds(survey, store, item)]
        return [pair for pair in pairs if pair not in state.good and pair not in state.faults]

    def _read(self, survey: ClusterSurvey, pairs: Sequence[tuple[str, Item]], state: _Round) -> None:
        good: dict[str, list[Item]] = {}
        with ThreadPoolExecutor(self._concurrency, thread_name_prefix="verify") as pool:
            for read in pool.map(lambda pair: self._read_one(survey, pair[0], pair[1], state), pairs):
                if read is None:
                    continue
                tally = state.tallies[read.store]
                tally.read += 1
                tally.read_bytes += read.read_bytes
                fault = read.fault or state.other_content(read)
                if fault is not None:
                    state.faults[read.store, read.item] = fault
                    continue
                state.good.add((read.store, read.item))
                good.setdefault(read.store, []).append(read.item)
                if len(good[read.store]) >= _RECORDED_AT_ONCE:  # what was read stays known where the run is killed
                    record_read(self._catalog, survey, read.store, good.pop(read.store), state.now)
        for store, items in good.items():
            record_read(self._catalog, survey, store, items, state.now)

    def _read_one(self, survey: ClusterSurvey, store: str, item: Item, state: _Round) -> ReadCopy | None:
        """Read one copy; None where its store fails, from then on for all of that store's."""
        if store in state.silent:
            return None
        try:
            if item.kind is ItemKind.BASE_BACKUP:
                return read_backup(self._place(survey, store), survey.listings[store].manifests[item.name])
            return self._read_wal(survey, store, item)
        except StoreError as error:
            state.silent[store] = error.message
            return None

    def _read_wal(self, survey: ClusterSurvey, store: str, item: Item) -> ReadCopy:
        """Read all of a file's objects on a store: the first fault counts."""
        recorded = survey.records.files.get(item.name)
        read = ReadCopy(item, store, None, 0)
        for found in survey.listings[store].wal[item.name]:
            one = self._reader.read_wal(self._place(survey, store), item.name, found.key, recorded)
            read = replace(one, fault=read.fault or one.fault, read_bytes=read.read_bytes + one.read_bytes)
        return read

    def _place(self, survey: ClusterSurvey, store: str) -> ClusterStore:
        return ClusterStore(self._stores[store], survey.layout)

    def _sources(self, survey: ClusterSurvey, fault: Fault, state: _Round) -> list[str]:
        """Return the stores whose copy of an item is not known to be faulty."""
        return [
            store
            for store in survey.listings
            if store not in state.silent
            and (store, fault.item) not in state.faults
            and _holds(survey, store, fault.item)
        ]


def _holds(survey: ClusterSurvey, store: str, item: Item) -> bool:
    listing = survey.listings[store]
    return item.name in (listing.wal if item.kind is ItemKind.WAL_FILE else listing.manifests)


def _may_be_put_back(survey: ClusterSurvey, fault: Fault) -> bool:
    """Say whether only a record speaks against a base backup: a person may have put back what was wrong."""
    is_backup = fault.item.kind is ItemKind.BASE_BACKUP and fault.kind is FaultKind.CORRUPT
    return is_backup and survey.listings[fault.store].is_whole(fault.item.name)


def _key(fault: Fault) -> tuple[str, Item]:
    return fault.store, fault.item


def _add_tallies(total: Mapping[str, Tally], more: Mapping[str, Tally]) -> None:
    for store, tally in more.items():
        total[store].items += tally.items
        total[store].stored_bytes += tally.stored_bytes
        total[store].pending += tally.pending
        total[store].unrecorded += tally.unrecorded


def _notes(cluster: ClusterSurvey) -> tuple[str, ...]:
    return (*cluster.notes, *living_notes(branches_of(cluster.contents)))
