"""Decides which files of the WAL archive one store keeps for its base backups, and why."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self

from wal_pipeline.archive.records import BaseBackup
from wal_pipeline.archive.recovery.coverage import ArchiveContents, Coverage
from wal_pipeline.archive.recovery.timeline_path import LAST_NUMBER, TimelinePath
from wal_pipeline.archive.retention.ages import age_of
from wal_pipeline.archive.retention.remains import Floors, Remains
from wal_pipeline.archive.retention.rules import Selection
from wal_pipeline.errors import InvalidWalNameError
from wal_pipeline.wal.names import FileKind, WalFileName


@dataclass(frozen=True, slots=True)
class Keep:
    """Whether a file stays, and why. ``is_tail``: it expires, on an abandoned branch above the files that stay."""

    kept: bool
    reason: str
    is_tail: bool = False


NOT_OURS: Final = Keep(kept=True, reason="not a file of this WAL archive")
_HISTORY: Final = Keep(kept=True, reason="history file")
_YOUNG: Final = Keep(kept=True, reason="younger than the window")
UNDATED: Final = Keep(kept=True, reason="not recorded, so its age is not known")
OLD: Final = Keep(kept=False, reason="older than the window, and no base backup leads to it")


@dataclass(frozen=True, slots=True)
class _Line:
    """The numbers ``first`` to ``last`` of one timeline on a path, with the starts of the base backups that lead there.

    ``starts`` are ascending segment numbers; ``backup_ids`` and ``verdicts`` have the same order. A verdict is for the
    segments from its base backup's start to the next one's. ``head`` is the verdict for the segments before all starts.
    """

    first: int
    last: int
    starts: tuple[int, ...]
    backup_ids: tuple[str, ...]
    verdicts: tuple[Keep, ...]
    head: Keep


@dataclass(frozen=True, slots=True, eq=False)
class WalKeeper:
    """Judges each file of one store. Make it with ``of``.

    ``by_age``: the store has no base backup, so files expire by their age. ``undescribed`` are timelines whose history
    is not known, so that any base backup may lead to their WAL. ``floors`` are the starts of the base backups that are
    not whole, or of which nobody can say where they lead. ``unjudged`` says of files why nobody can judge them.
    """

    contents: ArchiveContents
    begins_at: datetime
    lines: Mapping[int, tuple[_Line, ...]]
    by_age: bool
    undescribed: frozenset[int]
    floors: Floors
    unjudged: Mapping[str, str]

    @classmethod
    def of(
        cls, alone: Coverage, store: str, selection: Selection, begins_at: datetime, remains: Remains | None = None
    ) -> Self:
        """Prepare the verdicts from the base backups that ``selection`` keeps; ``alone`` is the store's coverage.

        A store without base backups keeps the WAL that those on other stores need: they may be refilled here.
        """
        contents, remains = alone.contents, remains or Remains()
        held = {key: one.backup for key, one in contents.backups.items() if store in one.stores}
        kept = [held[key] for key in selection.reasons]
        paths: Iterable[TimelinePath] = selection.live
        undescribed = frozenset[int]()
        if held:
            undescribed = _undescribed(alone)
        else:
            kept = [one.backup for one in contents.backups.values()]
            paths = contents.paths.values()
        undescribed |= remains.unread_histories
        floors = Floors.of(selection.broken, selection.unled)
        return cls(contents, begins_at, _lines(paths, kept), not held, undescribed, floors, remains.files)

    def number(self, file: WalFileName) -> int:
        """Return a file's segment number."""
        return file.number(self.contents.wal_segment_size)

    def judge(self, file: WalFileName) -> Keep:
        """Decide about one file by its kind, its position and, where no base backup leads to it, its age."""
        stays = self._without_position(file)
        if stays is not None:
            return stays
        number = self.number(file)
        lines = [line for line in self.lines.get(file.timeline, ()) if _is_on(line, file, number)]
        for line in lines:
            if (needed := _needed(line, number)) is not None:
                return needed
        if (start := self.floors.needed_by(file)) is not None:
            return Keep(kept=True, reason=f"could be needed by base backup {start}")
        if self.by_age or any(not line.starts for line in lines):
            return self._judge_age(file)
        return _head(lines) if lines else self._tail(file)

    def _without_position(self, file: WalFileName) -> Keep | None:
        """Return the verdict for a file whose position says nothing; None where it does."""
        if file.kind is FileKind.HISTORY:
            return _HISTORY
        if file.name in self.unjudged:
            return Keep(kept=True, reason=self.unjudged[file.name])
        try:
            self.number(file)
        except InvalidWalNameError:
            return NOT_OURS
        if file.timeline in self.undescribed:
            return Keep(kept=True, reason=f"the history of timeline {file.timeline} is not known")
        return None

    def _judge_age(self, file: WalFileName) -> Keep:
        record = self.contents.files.get(file.name)
        if record is None:
            return UNDATED
        return _YOUNG if age_of(record) > self.begins_at else OLD

    def _tail(self, file: WalFileName) -> Keep:
        reason = f"no base backup can recover along timeline {file.timeline} here to a moment in the window"
        return Keep(kept=False, reason=reason, is_tail=True)


def _lines(paths: Iterable[TimelinePath], kept: list[BaseBackup]) -> dict[int, tuple[_Line, ...]]:
    found: dict[int, dict[_Line, None]] = {}
    for path in paths:
        starts = sorted((b.start_lsn // b.wal_segment_size, b.backup_id) for b in kept if path.holds(b))
        for timeline, (first, last) in path.parts((0, LAST_NUMBER)):
            line = _line(first, last, starts)
            found.setdefault(timeline, {})[line] = None
    return {timeline: tuple(lines) for timeline, lines in found.items()}


def _line(first: int, last: int, starts: list[tuple[int, str]]) -> _Line:
    ids = tuple(key for _, key in starts)
    needed = tuple(Keep(kept=True, reason=f"needed by base backup {key}") for key in ids)
    oldest = next(iter(ids), "")
    head = Keep(kept=False, reason=f"before the start of base backup {oldest}, the oldest that is kept")
    return _Line(first, last, tuple(start for start, _ in starts), ids, needed, head)


def _undescribed(alone: Coverage) -> frozenset[int]:
    alone_standing = (path for path in alone.contents.paths.values() if len(path.stretches) == 1 and path.timeline > 1)
    return frozenset(path.timeline for path in alone_standing if not alone.restorable(path))


def _is_on(line: _Line, file: WalFileName, number: int) -> bool:
    """Say whether a file lies on a line. A partial segment lies after it, where the path left the timeline."""
    return line.first <= number and (number <= line.last or file.kind is FileKind.PARTIAL)


def _needed(line: _Line, number: int) -> Keep | None:
    """Return the verdict of the newest base backup that needs a segment, as it needs it longest; None without one."""
    index = bisect_right(line.starts, number) - 1
    return line.verdicts[index] if index >= 0 else None


def _head(lines: list[_Line]) -> Keep:
    """Return the verdict for a segment before the oldest base backup of all its lines, each of which has one."""
    return min(lines, key=lambda line: (line.starts[0], line.backup_ids[0])).head
