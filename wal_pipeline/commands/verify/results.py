"""Defines the results of a verification as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from wal_pipeline.commands.archive_push.events import CopyVerified


class FaultKind(StrEnum):
    """The kinds of damage to one copy."""

    MISSING = "missing"  # it should be there and is not
    TRUNCATED = "truncated"  # it has another size than was stored
    CORRUPT = "corrupt"  # it has other bytes than were stored, or cannot be opened
    REPLACED = "replaced"  # it is a whole copy of something else
    OTHER_CONTENT = "other_content"  # it is a whole copy of the file with other content: a person has to decide
    UNREADABLE = "unreadable"  # it does not say what it is


class ItemKind(StrEnum):
    """The kinds of things that are copied: files of the WAL archive, and base backups."""

    WAL_FILE = "wal_file"
    BASE_BACKUP = "base_backup"


@dataclass(frozen=True, slots=True)
class Item:
    """A file of the WAL archive or a base backup, by its name or id."""

    system_identifier: int
    kind: ItemKind
    name: str


@dataclass(frozen=True, slots=True)
class Fault:
    """One copy that is not as it should be. ``message`` begins with the store's name."""

    item: Item
    store: str
    kind: FaultKind
    message: str


@dataclass(frozen=True, slots=True)
class Repair:
    """The outcome of repairing one fault: ``error`` says why it stays."""

    fault: Fault
    source: str | None
    error: str | None = None


@dataclass(slots=True)
class Tally:
    """The counts of one store. ``read``: items whose content was read, with ``read_bytes``.

    ``pending`` copies are on their way by what the catalog says. ``unrecorded`` are not in the catalog.
    """

    items: int = 0
    stored_bytes: int = 0
    read: int = 0
    read_bytes: int = 0
    pending: int = 0
    unrecorded: list[str] = field(default_factory=list)


@dataclass(slots=True)
class PieceTally:
    """The pieces of open segments on one store. ``superseded`` wait for their removal, and are not looked at."""

    pieces: int = 0
    stored_bytes: int = 0
    superseded: int = 0
    read: int = 0
    read_bytes: int = 0


@dataclass(frozen=True, slots=True)
class PieceFault:
    """One piece that is not as it should be. ``message`` begins with the store's name.

    ``outcome`` says what a repair did; ``is_removed``: the damaged object is gone, and its bytes are somewhere else.
    """

    store: str
    key: str
    kind: FaultKind
    message: str
    outcome: str | None = None
    is_removed: bool = False


@dataclass(slots=True)
class ListTally:
    """The lists of relations on one store."""

    lists: int = 0
    stored_bytes: int = 0
    read: int = 0
    read_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ListFault:
    """One list of relations that is not as it should be. ``message`` begins with the store's name.

    ``repaired_from`` is the store from which it was copied; ``repair_error`` says why it could not be.
    """

    store: str
    moment: str
    key: str
    kind: FaultKind
    message: str
    repaired_from: str | None = None
    repair_error: str | None = None


@dataclass(frozen=True, slots=True)
class Verification:
    """The outcome of one verification. ``tallies`` by store; ``silent``: why a store was left out, or not finished.

    ``repairs`` are for ``faults`` that were tried to heal; ``refilled`` the copies that came of it. ``lost`` are the
    items of which no store that answered has a good copy. ``breaks`` say which segments continue nothing, though all
    copies are good, and that no base backup after them can be restored. ``piece_tallies`` by store, ``piece_faults``
    and ``holes`` are of the pieces of open segments; a hole is a segment whose pieces do not join. ``list_tallies`` and
    ``list_faults`` are of the lists of relations.
    """

    begun_at: datetime
    is_deep: bool
    tallies: Mapping[str, Tally]
    silent: Mapping[str, str]
    faults: tuple[Fault, ...]
    lost: frozenset[Item]
    repairs: tuple[Repair, ...]
    refilled: tuple[CopyVerified, ...]
    notes: tuple[str, ...]
    breaks: tuple[str, ...] = ()
    piece_tallies: Mapping[str, PieceTally] = field(default_factory=dict)
    piece_faults: tuple[PieceFault, ...] = ()
    holes: tuple[str, ...] = ()
    list_tallies: Mapping[str, ListTally] = field(default_factory=dict)
    list_faults: tuple[ListFault, ...] = ()

    @property
    def open_list_faults(self) -> tuple[ListFault, ...]:
        """The lists of relations that are damaged or missing, and were not healed."""
        return tuple(fault for fault in self.list_faults if fault.repaired_from is None)

    @property
    def open_piece_faults(self) -> tuple[PieceFault, ...]:
        """The damaged and missing pieces that are not removed."""
        return tuple(fault for fault in self.piece_faults if not fault.is_removed)

    @property
    def open_faults(self) -> tuple[Fault, ...]:
        """The faults that were not healed."""
        healed = {(repair.fault.store, repair.fault.item) for repair in self.repairs if repair.error is None}
        return tuple(fault for fault in self.faults if (fault.store, fault.item) not in healed)

    @property
    def is_right(self) -> bool:
        """Whether every store answered and all is as it should be now."""
        unrecorded = any(tally.unrecorded for tally in self.tallies.values())
        others = self.open_piece_faults or self.holes or self.open_list_faults
        return not (self.silent or self.open_faults or self.breaks or unrecorded or others)
