"""What a verification can find wrong, as plain values."""

from dataclasses import dataclass, field
from enum import StrEnum


class FaultKind(StrEnum):
    """What is wrong with one copy."""

    MISSING = "missing"  # it should be there and is not
    TRUNCATED = "truncated"  # it has another size than was stored
    CORRUPT = "corrupt"  # it has other bytes than were stored, or cannot be opened
    REPLACED = "replaced"  # it is a whole copy of something else
    OTHER_CONTENT = "other_content"  # it is a whole copy of the file with other content: a person has to decide
    UNREADABLE = "unreadable"  # it does not say what it is


class ItemKind(StrEnum):
    """What a copy is of."""

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
    """What became of one fault: ``error`` says why it stays."""

    fault: Fault
    source: str | None
    error: str | None = None


@dataclass(slots=True)
class Tally:
    """What was looked at on one store. ``read``: items whose content was read, with ``read_bytes``.

    ``pending`` copies are on their way by what the catalog says. ``unrecorded`` are not in the catalog.
    """

    items: int = 0
    stored_bytes: int = 0
    read: int = 0
    read_bytes: int = 0
    pending: int = 0
    unrecorded: list[str] = field(default_factory=list)
