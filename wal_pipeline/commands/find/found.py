"""Defines what a search finds."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from wal_pipeline.wal.lsn import Lsn

NAMELESS_DATABASE: Final = "with oid "  # and its number, where no list knows its name


class RelationFate(StrEnum):
    """Says how a transaction ended a relation, or made all its files anew."""

    DROPPED = "dropped"
    TRUNCATED = "truncated"
    REWRITTEN = "written anew"  # by VACUUM FULL, CLUSTER, REINDEX, REFRESH, ALTER TABLE; perhaps truncated too
    UNCLEAR = "dropped or written anew"  # no list knows which relation the old files were of


@dataclass(frozen=True, slots=True)
class RelationChange:
    """Counts the changes of one transaction to one table.

    ``label`` is its name, or such as ``5/16384`` where no list knows it; ``database`` is None then too. The counts are
    rows. ``wal_bytes`` counts its indexes and its TOAST table too.
    """

    database_oid: int
    file_node: int
    label: str
    inserted: int
    updated: int
    deleted: int
    fate: RelationFate | None
    database: str | None = None
    wal_bytes: int = 0
    is_index: bool = False

    @property
    def rows(self) -> int:
        """The rows that it changed."""
        return self.inserted + self.updated + self.deleted


@dataclass(frozen=True, slots=True)
class FoundTransaction:
    """One committed transaction. ``lsn`` is that of its commit record.

    ``unseen_begin``: it began before the WAL that was read, so its counts are "at least". ``wal_bytes`` are those of
    its records. ``changes`` are those of users' relations, without those that it only looked at. ``begin_lsn`` is that
    of its first record, where it drops a database.
    """

    committed_at: datetime
    xid: int
    lsn: Lsn
    timeline: int
    wal_bytes: int
    changes: tuple[RelationChange, ...]
    dropped_databases: tuple[str, ...] = ()
    prepared: bool = False
    unseen_begin: bool = False
    begin_lsn: Lsn | None = None

    @property
    def inserted(self) -> int:
        """The rows that it inserted."""
        return sum(one.inserted for one in self.changes)

    @property
    def updated(self) -> int:
        """The rows that it updated."""
        return sum(one.updated for one in self.changes)

    @property
    def deleted(self) -> int:
        """The rows that it deleted."""
        return sum(one.deleted for one in self.changes)

    @property
    def fates(self) -> tuple[RelationChange, ...]:
        """The relations that it dropped, truncated or wrote anew."""
        return tuple(one for one in self.changes if one.fate is not None)


@dataclass(frozen=True, slots=True)
class FindResult:
    """Holds the findings of a search, and how it looked.

    ``transactions`` are those that were asked for, in the order and up to the limit that was asked for; ``matching`` is
    how many there were. ``suspect`` is the one that did most harm, ``base_backup`` the one from which it is reached,
    where that is not the newest. ``read_bytes`` are of WAL, not compressed. The commit times are those of the first and
    the last commit that was read inside the window; None without any. ``holes`` say which WAL of the window could not
    be read.
    """

    transactions: tuple[FoundTransaction, ...]
    matching: int
    commits: int
    suspect: FoundTransaction | None
    read_bytes: int
    segments: int
    pieces: int
    seconds: float
    first_commit_at: datetime | None
    last_commit_at: datetime | None
    begin_at: datetime
    end_at: datetime | None
    notes: tuple[str, ...] = ()
    holes: tuple[str, ...] = ()
    base_backup: str | None = None
