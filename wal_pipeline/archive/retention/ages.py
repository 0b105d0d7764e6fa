"""Says how old the segments of an archive are, for the window's begin and for the timelines that still count."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Self

from wal_pipeline.archive.records import WalFile
from wal_pipeline.archive.recovery.coverage import ArchiveContents
from wal_pipeline.archive.recovery.timeline_path import Run, TimelinePath
from wal_pipeline.wal.names import FileKind, parse_file_name

EARLIEST: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, eq=False)
class Ages:
    """The latest moment that each segment can be from: its last commit or its arrival in the spool.

    Both clocks may be wrong, and the later time keeps more. A segment that no record describes may be from now; one of
    which there are only pieces is from when the newest of them was stored.
    ``commits`` are the last commit times; an unknown time, or one in the future from a wrong clock, counts as the
    earliest possible one.
    """

    numbers: Mapping[int, list[int]]
    times: Mapping[int, list[datetime]]
    commits: Mapping[int, list[datetime]]

    @classmethod
    def of(cls, contents: ArchiveContents, now: datetime, pieces_at: Mapping[str, datetime] | None = None) -> Self:
        """Read the ages of all segments of the archive, on any store.

        ``pieces_at`` says when a segment's newest piece was stored, by the segment's name.
        """
        described: dict[int, dict[int, WalFile | None]] = {
            timeline: dict(files) for timeline, files in contents.segments.items()
        }
        for timeline, number in _undescribed_segments(contents):
            described.setdefault(timeline, {}).setdefault(number, None)
        stored_at: dict[tuple[int, int], datetime] = {}
        for name, at in (pieces_at or {}).items():
            timeline, number = int(name[:8], 16), contents.number(name)
            if number not in described.get(timeline, {}):
                described.setdefault(timeline, {})[number] = None
                stored_at[timeline, number] = at
        ordered = {timeline: sorted(files.items(), key=_by_number) for timeline, files in described.items()}
        return cls(
            {timeline: [number for number, _ in files] for timeline, files in ordered.items()},
            {
                timeline: [age_of(file) if file else stored_at.get((timeline, number), now) for number, file in files]
                for timeline, files in ordered.items()
            },
            {timeline: [_committed_at(file, now) for _, file in files] for timeline, files in ordered.items()},
        )

    def youngest(self, path: TimelinePath, run: Run) -> datetime | None:
        """Return the age of the youngest segment in a run; None where no segment of it has a record."""
        return self._latest(self.times, path, run)

    def latest_commit(self, path: TimelinePath, run: Run) -> datetime | None:
        """Return the latest commit time in a run that is not in the future."""
        return self._latest(self.commits, path, run)

    def _latest(self, column: Mapping[int, list[datetime]], path: TimelinePath, run: Run) -> datetime | None:
        found = []
        for timeline, (first, last) in path.parts(run):
            numbers = self.numbers.get(timeline, [])
            times = column.get(timeline, [])[bisect_left(numbers, first) : bisect_right(numbers, last)]
            found += [max(times)] if times else []
        return max(found, default=None)

    def youngest_timeline(self) -> int | None:
        """Return the timeline with the youngest segment of all."""
        return max(self.times, key=lambda timeline: (max(self.times[timeline]), timeline), default=None)


def age_of(file: WalFile) -> datetime:
    """Return the latest moment that a file can be from."""
    return max(file.spooled_at, file.last_commit_at or file.spooled_at)


def _undescribed_segments(contents: ArchiveContents) -> Iterable[tuple[int, int]]:
    """Yield timeline and number of the segments that a store holds and no record describes."""
    for name in contents.names_on(contents.stores) - contents.files.keys():
        file = parse_file_name(name)
        if file is not None and file.kind is FileKind.SEGMENT:
            yield file.timeline, contents.number(name)


def _by_number(item: tuple[int, WalFile | None]) -> int:
    return item[0]


def _committed_at(file: WalFile | None, now: datetime) -> datetime:
    at = file.last_commit_at if file is not None else None
    return at if at is not None and at <= now else EARLIEST
