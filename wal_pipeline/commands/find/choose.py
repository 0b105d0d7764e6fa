"""Chooses among the transactions of one stretch of WAL those that a search is for, most of them without a loop."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wal_pipeline.commands.find.naming import ChangeNaming, RelationChoice
from wal_pipeline.wal.records.assemble import CommitBlock, CommittedTransaction
from wal_pipeline.wal.records.endings import RelationKey
from wal_pipeline.wal.records.page_stream import Numbers


@dataclass(frozen=True, slots=True)
class TransactionChoice:
    """Chooses commits from ``begin_us`` to ``end_us`` (None: without an end) that did as much as asked."""

    naming: ChangeNaming
    relations: RelationChoice
    begin_us: int
    end_us: int | None
    dropping: bool = False
    min_deletes: int = 0
    min_rows: int = 0

    def inside(self, block: CommitBlock) -> tuple[Numbers, list[CommittedTransaction]]:
        """Return the commits of a block between the two moments: places in its rows, and the others."""
        times = block.committed_us
        inside = times >= self.begin_us
        if self.end_us is not None:
            inside &= times <= self.end_us
        others = [
            one
            for one in block.others
            if one.committed_us >= self.begin_us and (self.end_us is None or one.committed_us <= self.end_us)
        ]
        return np.flatnonzero(inside), others

    def choose(self, block: CommitBlock) -> Iterator[CommittedTransaction]:
        """Yield the transactions of a block that are asked for, in the order of their commits."""
        yield from block.in_order(*self.wanted(block))

    def wanted(self, block: CommitBlock) -> tuple[Numbers, list[CommittedTransaction]]:
        """Return the transactions of a block that are asked for: places in its rows, and the others."""
        rows, others = self.inside(block)
        return self._wanted_rows(block, rows), [one for one in others if self._is_wanted(one)]

    def harmed(self, block: CommitBlock) -> Numbers:
        """Return how many rows of users' tables each of a block's rows deleted and updated."""
        counted = np.array([self.naming.counts_rows(key) for key in block.changes.relations], np.bool_)
        return block.sums(block.changes.deleted + block.changes.updated, counted)

    def _wanted_rows(self, block: CommitBlock, rows: Numbers) -> Numbers:
        if self.dropping or not len(rows):  # a commit that removes files is never a plain one
            return rows[:0]
        changes = block.changes
        wanted = np.array([self._is_of(key) for key in changes.relations], np.bool_)
        if not self.relations.is_all:
            rows = rows[block.sums(changes.wal_bytes, wanted)[rows] > 0]
        if self.min_deletes == 0 and self.min_rows == 0:
            return rows
        counted = np.array([self._counts(key) for key in changes.relations], np.bool_)
        deleted = block.sums(changes.deleted, counted)
        rows = rows[deleted[rows] >= self.min_deletes]
        if self.min_rows:
            all_rows = deleted + block.sums(changes.inserted, counted) + block.sums(changes.updated, counted)
            rows = rows[all_rows[rows] >= self.min_rows]
        return rows

    def _is_wanted(self, one: CommittedTransaction) -> bool:
        removes = any(key not in one.made for key in one.removed)
        if self.dropping and not removes and not one.dropped_databases:
            return False
        if not self.relations.is_all and not self._touches(one):
            return False
        counted = [tally for key, tally in one.tallies.items() if self._counts(key)]
        deleted = sum(tally.deleted for tally in counted)
        rows = sum(tally.inserted + tally.updated for tally in counted) + deleted
        return deleted >= self.min_deletes and rows >= self.min_rows

    def _touches(self, one: CommittedTransaction) -> bool:
        choice = self.relations
        if any(self._is_of(key) for key in (*one.tallies, *one.removed)):
            return True
        return choice.keys is None and any(oid in (choice.databases or ()) for oid in one.dropped_databases)

    def _is_of(self, key: RelationKey) -> bool:
        """Say whether files are among those that are asked for."""
        choice = self.relations
        if choice.databases is not None and key[0] not in choice.databases:
            return False
        if choice.keys is None:
            return True
        named = self.naming.of(key)
        return key in choice.keys or (named is not None and (key[0], named.table) in choice.tables)

    def _counts(self, key: RelationKey) -> bool:
        return self.naming.counts_rows(key) and self._is_of(key)
