"""Puts the changes of consecutive stretches of WAL together to transactions, each when its commit comes."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import numpy as np

from wal_pipeline.wal.records.changes import RecordChanges
from wal_pipeline.wal.records.decode import Marks
from wal_pipeline.wal.records.endings import EndKind, MadeFiles, RelationKey, RunningTransactions, TransactionEnd
from wal_pipeline.wal.records.page_stream import Numbers

_XIDS: Final = 1 << 32
_HALF: Final = 1 << 31


@dataclass(slots=True)
class RelationTally:
    """Counts rows of one relation's files and bytes of WAL, for one transaction."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    wal_bytes: int = 0

    def add(self, other: "RelationTally") -> None:
        """Count what another part of the same transaction did."""
        self.inserted += other.inserted
        self.updated += other.updated
        self.deleted += other.deleted
        self.wal_bytes += other.wal_bytes


@dataclass(frozen=True, slots=True)
class CommittedTransaction:
    """One committed transaction. ``committed_us`` is in microseconds since 2000-01-01 UTC.

    ``removed`` are the files that its commit removes, ``dropped_oids`` the relations that it drops, ``made`` the files
    that it made itself. ``changes_tablespace``: some of them lie in another tablespace than those that it removes.
    ``unseen_begin``: it may have begun before the WAL that was read. ``first_lsn`` is that of its first record that was
    read, 0 where nobody asked for it: it is known of all that did more than change rows.
    """

    xid: int
    lsn: int
    committed_us: int
    tallies: dict[RelationKey, RelationTally]
    unseen_begin: bool
    removed: tuple[RelationKey, ...] = ()
    dropped_oids: frozenset[RelationKey] = frozenset()
    made: frozenset[RelationKey] = frozenset()
    dropped_databases: tuple[int, ...] = ()
    prepared: bool = False
    changes_tablespace: bool = False
    first_lsn: int = 0

    @property
    def wal_bytes(self) -> int:
        """The bytes of its records. Those of a savepoint that it went back to are not among them."""
        return sum(one.wal_bytes for one in self.tallies.values())


@dataclass(frozen=True, slots=True, eq=False)
class CommitBlock:
    """The transactions whose commits lie in one stretch of WAL.

    Most of them began and ended in it: ``rows`` are their places among the plain commits of ``changes``. ``others`` are
    in the order of their LSNs.
    """

    changes: RecordChanges
    rows: Numbers
    unseen: Marks
    others: tuple[CommittedTransaction, ...]

    def __len__(self) -> int:
        return len(self.rows) + len(self.others)

    @property
    def committed_us(self) -> Numbers:
        """The commit times of ``rows``."""
        return self.changes.commit_us[self.rows]

    def sums(self, counts: Numbers, wanted: Marks) -> Numbers:
        """Add up one of the counts of ``changes`` over the ``wanted`` relations, for each of ``rows``."""
        weights = np.where(wanted[self.changes.relation_of_cell], counts, 0)
        by_xid = np.bincount(self.changes.xid_of_cell, weights=weights, minlength=len(self.changes.xids))
        return by_xid[self._places()].astype(np.int64)

    def in_order(self, rows: Numbers, others: Iterable[CommittedTransaction]) -> Iterator[CommittedTransaction]:
        """Yield some of the ``rows`` (places in it, ascending) and of the ``others`` in the order of their commits."""
        waiting = iter(others)
        following = next(waiting, None)
        for one in self._plain(rows):
            while following is not None and following.lsn < one.lsn:
                yield following
                following = next(waiting, None)
            yield one
        if following is not None:
            yield following
            yield from waiting

    def _plain(self, rows: Numbers) -> Iterator[CommittedTransaction]:
        """Yield some of the ``rows``. Lists are faster than arrays where it is one value after the other."""
        changes = self.changes
        places, at = self._places()[rows], self.rows[rows]
        firsts = np.searchsorted(changes.xid_of_cell, places).tolist()
        ends = np.searchsorted(changes.xid_of_cell, places, side="right").tolist()
        xids, lsns, times = (one[at].tolist() for one in (changes.commit_xids, changes.commit_lsns, changes.commit_us))
        unseen = self.unseen[rows].tolist()
        cells = _cells_of(
            changes, np.concatenate([np.arange(*one) for one in zip(firsts, ends, strict=True)] or [rows])
        )
        for index, (first, end) in enumerate(zip(firsts, ends, strict=True)):
            tallies = {key: RelationTally(*counts) for key, *counts in islice(cells, end - first)}
            yield CommittedTransaction(xids[index], lsns[index], times[index], tallies, unseen[index])

    def _places(self) -> Numbers:
        return np.searchsorted(self.changes.xids, self.changes.commit_xids[self.rows]).astype(np.int64)


@dataclass(slots=True)
class _OpenTransaction:
    first_lsn: int
    tallies: dict[RelationKey, RelationTally] = field(default_factory=dict)
    dropped_databases: list[int] = field(default_factory=list)

    def add(self, other: "_OpenTransaction") -> None:
        for key, tally in other.tallies.items():
            self.tallies.setdefault(key, RelationTally()).add(tally)
        self.dropped_databases += other.dropped_databases
        self.first_lsn = min(self.first_lsn, other.first_lsn)


@dataclass(slots=True)
class _Made:
    files: MadeFiles
    next_commit: int | None = None  # the first one after it


class TransactionAssembler:
    """Takes stretches of WAL in their order, and gives the transactions that commit in each."""

    def __init__(self) -> None:
        self._open: dict[int, _OpenTransaction] = {}
        self._made: dict[RelationKey, _Made] = {}
        self._known_from: int | None = None  # each transaction from this xid on began in what was read

    def skip(self) -> None:
        """Say that WAL is missing before the next stretch: what is open now may have done more in it."""
        self._known_from = None

    def add(self, changes: RecordChanges) -> CommitBlock:
        """Take the next stretch."""
        if self._known_from is None and changes.running:
            self._known_from = changes.running[0].next_xid
        self._note_made(changes)
        carried = np.isin(changes.commit_xids, np.fromiter(self._open, np.int64, len(self._open)))
        others = [self._commit(changes, end) for end in _all_ends(changes, np.flatnonzero(carried))]
        self._keep_open(changes)
        self._prune(changes.running)
        rows = np.flatnonzero(~carried)
        return CommitBlock(
            changes, rows, self._unseen(changes.commit_xids[rows]), tuple(one for one in others if one is not None)
        )

    def _unseen(self, xids: Numbers) -> Marks:
        if self._known_from is None:
            return np.ones(len(xids), np.bool_)
        return np.asarray((xids - self._known_from) % _XIDS >= _HALF)

    def _commit(self, changes: RecordChanges, end: TransactionEnd) -> CommittedTransaction | None:
        """Close a transaction and its children; None where they were aborted."""
        whole = _OpenTransaction(end.lsn)
        for xid in (end.xid, *end.children):
            earlier, here = self._open.pop(xid, None), _opened(changes, xid)
            for part in (earlier, here):
                if part is not None:
                    whole.add(part)
        if end.kind is EndKind.ABORT:
            return None
        made = self._made_by({end.xid, *end.children}, whole.first_lsn) if end.removed else []
        return CommittedTransaction(
            xid=end.xid,
            lsn=end.lsn,
            committed_us=end.committed_us,
            tallies=whole.tallies,
            unseen_begin=bool(self._unseen(np.array([end.xid], np.int64))[0]),
            removed=end.removed,
            dropped_oids=end.dropped_oids,
            made=frozenset(made),
            changes_tablespace=any(self._made[key].files.tablespace not in end.tablespaces for key in made),
            dropped_databases=tuple(whole.dropped_databases),
            prepared=end.prepared,
            first_lsn=whole.first_lsn,
        )

    def _note_made(self, changes: RecordChanges) -> None:
        for one in changes.made:
            self._made[one.key] = _Made(one)
        commits = sorted(one.lsn for one in changes.ends if one.kind is EndKind.COMMIT)
        for made in self._made.values():
            if made.next_commit is None:
                lsn = made.files.lsn
                at, other = int(np.searchsorted(changes.commit_lsns, lsn)), bisect_right(commits, lsn)
                after = [*changes.commit_lsns[at : at + 1].tolist(), *commits[other : other + 1]]
                made.next_commit = min(after, default=None)

    def _made_by(self, members: set[int], first_lsn: int) -> list[RelationKey]:
        """Return the files that a transaction made itself.

        Files may be made before the transaction has its xid. Then they are its own if nobody committed between, who
        could have made them instead.
        """
        return [
            key
            for key, made in self._made.items()
            if made.files.xid in members
            or (
                made.files.xid == 0
                and made.files.lsn < first_lsn
                and (made.next_commit is None or made.next_commit > first_lsn)
            )
        ]

    def _keep_open(self, changes: RecordChanges) -> None:
        """Keep the transactions that have not ended in the stretch."""
        ended = [changes.commit_xids, changes.abort_xids]
        ended += [np.array([end.xid, *end.children], np.int64) for end in changes.ends]
        left = np.ones(len(changes.xids), np.bool_)
        all_ended = np.concatenate(ended)
        places = np.searchsorted(changes.xids, all_ended)
        inside = places < len(changes.xids)
        places, all_ended = places[inside], all_ended[inside]
        left[places[changes.xids[places] == all_ended]] = False
        for xid in changes.abort_xids.tolist():
            self._open.pop(xid, None)
        for place in np.flatnonzero(left).tolist():
            xid = int(changes.xids[place])
            part = _opened(changes, xid)
            if part is not None:
                self._open.setdefault(xid, _OpenTransaction(part.first_lsn)).add(part)

    def _prune(self, running: Iterable[RunningTransactions]) -> None:
        """Forget the transactions that a crash ended."""
        for one in running:
            gone = [xid for xid in self._open if (xid - one.oldest_xid) % _XIDS >= _HALF]
            for xid in gone:
                del self._open[xid]


def _all_ends(changes: RecordChanges, carried: Numbers) -> list[TransactionEnd]:
    """Return the ends that are looked at one by one, in the order of the WAL."""
    plain = [
        TransactionEnd(
            EndKind.COMMIT, int(changes.commit_lsns[at]), int(changes.commit_xids[at]), int(changes.commit_us[at])
        )
        for at in carried.tolist()
    ]
    return sorted([*plain, *changes.ends], key=lambda end: end.lsn)


def _opened(changes: RecordChanges, xid: int) -> _OpenTransaction | None:
    """Return what a stretch holds of one xid."""
    place = int(np.searchsorted(changes.xids, xid))
    if place >= len(changes.xids) or int(changes.xids[place]) != xid:
        return None
    databases = [database for owner, database in changes.dropped_databases if owner == xid]
    return _OpenTransaction(int(changes.first_lsns[place]), _tallies(changes, place), databases)


def _tallies(changes: RecordChanges, place: int) -> dict[RelationKey, RelationTally]:
    first, last = np.searchsorted(changes.xid_of_cell, (place, place + 1))
    return {key: RelationTally(*counts) for key, *counts in _cells_of(changes, np.arange(first, last))}


def _cells_of(changes: RecordChanges, cells: Numbers) -> Iterator[tuple[RelationKey, int, int, int, int]]:
    """Return what some cells hold, with their relations."""
    keys = changes.relations
    return zip(
        (keys[place] for place in changes.relation_of_cell[cells].tolist()),
        changes.inserted[cells].tolist(),
        changes.updated[cells].tolist(),
        changes.deleted[cells].tolist(),
        changes.wal_bytes[cells].tolist(),
        strict=True,
    )
