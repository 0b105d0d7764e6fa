"""Describes the remains that retention cannot judge: base backups that are not whole, files of another segment size.

What cannot be read counts as needed. The id of a base backup says when it began and where its replay begins, so that
its WAL can be kept where nothing else of it can be read.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Self

from wal_pipeline.archive.records import BaseBackup
from wal_pipeline.wal.names import WalFileName, require_file_name, segment_at

_ID_TIME: Final = "%Y%m%dT%H%M%SZ"
_ID_TIME_LENGTH: Final = 16


@dataclass(frozen=True, slots=True)
class BrokenBackup:
    """A base backup of which something is on a store, and which cannot be restored from there as it is.

    ``fault`` says why. ``ended_at`` is a moment at which it was over. ``backup`` and ``chain`` are known from its
    manifest, another store's or the catalog; None where nobody knows. ``is_unfinished``: it never was whole as far as
    anybody knows, so it may be in the making. ``is_understood``: this version of the program wrote it, for this
    cluster; what is not never goes, and never stops holding what it could need.
    """

    backup_id: str
    fault: str
    ended_at: datetime
    stored_bytes: int
    backup: BaseBackup | None = None
    chain: tuple[str, ...] | None = None
    is_unfinished: bool = False
    is_understood: bool = True

    @property
    def first(self) -> WalFileName:
        """The segment in which its replay begins."""
        return require_file_name(self.backup_id[-24:])

    @property
    def started_at(self) -> datetime:
        """When it began, to the second."""
        return datetime.strptime(self.backup_id[:_ID_TIME_LENGTH], _ID_TIME).replace(tzinfo=UTC)

    def may_be_built_on(self, backup_id: str, started_at: datetime) -> bool:
        """Say whether it can be an incremental base backup on another one: known, or only younger than that."""
        if self.chain is not None:
            return backup_id in self.chain
        return backup_id != self.backup_id and started_at < self.started_at + timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Unjudged:
    """Something that stays because it cannot be compared with the rest; ``reason`` says why."""

    stored_bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class Remains:
    """The things on one store that retention cannot judge.

    ``chains`` are the base backups that each one is built on, as its manifest says. ``files`` and ``backups`` stay
    whatever the rest says, by name and id. ``unread_histories`` are timelines whose history file is on a store, and
    could be read from none.
    """

    broken: tuple[BrokenBackup, ...] = ()
    chains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    backups: Mapping[str, Unjudged] = field(default_factory=dict)
    unread_histories: frozenset[int] = frozenset()

    @property
    def known(self) -> dict[str, BaseBackup]:
        """The broken base backups of which everything is known, by id."""
        return {one.backup_id: one.backup for one in self.broken if one.backup is not None}


@dataclass(frozen=True, slots=True)
class Floors:
    """From which position on base backups could need the WAL of each timeline, whatever led there. Make it with ``of``.

    Positions are the last sixteen digits of segment names: they compare without a segment size.
    """

    starts: Sequence[tuple[int, str, str]]
    _found: dict[int, tuple[str, str] | None] = field(default_factory=dict)

    @classmethod
    def of(cls, broken: Iterable[BrokenBackup], whole: Iterable[BaseBackup] = ()) -> Self:
        """Read the starts from the ids of broken base backups, and from the records of whole ones."""
        starts = [(one.first.timeline, one.first.name[8:], one.backup_id) for one in broken]
        for one in whole:
            first = segment_at(one.timeline, one.start_lsn, one.wal_segment_size)
            starts.append((one.timeline, first.name[8:], one.backup_id))
        return cls(starts)

    def needed_by(self, file: WalFileName) -> str | None:
        """Return the id of a base backup that could need a file: on its own timeline or a newer one, from its start."""
        if file.timeline not in self._found:
            mine = [(position, key) for timeline, position, key in self.starts if timeline <= file.timeline]
            self._found[file.timeline] = min(mine, default=None)
        lowest = self._found[file.timeline]
        return lowest[1] if lowest is not None and file.name[8:24] >= lowest[0] else None
