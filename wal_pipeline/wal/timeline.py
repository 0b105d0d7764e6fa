"""Reads timeline history files, and finds the timeline that holds an LSN."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Self

from wal_pipeline.errors import InvalidWalFileError
from wal_pipeline.wal.lsn import InvalidLsnError, Lsn
from wal_pipeline.wal.names import WalFileName, history_name, segment_name

_SPACE: Final = " \t\v\f\r"
_ENTRY: Final = re.compile(r"\s*(?P<timeline>[0-9]{1,10})\s+(?P<lsn>\S+)(?:\s+(?P<reason>.*))?", re.DOTALL)

_TARGET_TIME: Final = re.compile(r"(before|after) [0-9]+-")


class InvalidTimelineHistoryError(InvalidWalFileError):
    """A timeline history file's content was not written by PostgreSQL, or is cut short."""


@dataclass(frozen=True, slots=True)
class TimelineSwitch:
    """One line of a timeline history file: ``parent`` ends at ``lsn``, where the next timeline begins."""

    parent: int
    lsn: Lsn
    reason: str


@dataclass(frozen=True, slots=True)
class TimelineRange:
    """The part of a path on one timeline: ``start`` to ``end`` (exclusive; None: the timeline has not ended)."""

    timeline: int
    start: Lsn
    end: Lsn | None

    def holds(self, lsn: Lsn) -> bool:
        """Whether the byte at ``lsn`` is in this range."""
        return self.start <= lsn and (self.end is None or lsn < self.end)


@dataclass(frozen=True, slots=True)
class TimelineHistory:
    """The path of one timeline from the cluster's beginning (timeline.c: readTimeLineHistory).

    ``switches`` begin with the oldest; timeline 1 has none, nor has a timeline whose history file is lost.
    """

    timeline: int
    switches: tuple[TimelineSwitch, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a path that goes back.

        Raises: InvalidTimelineHistoryError.
        """
        parents = [switch.parent for switch in self.switches]
        for earlier, later in pairwise([*parents, self.timeline]):
            if later <= earlier:
                raise self._error(f"timeline {later} after timeline {earlier}", "increasing timelines")
        lsns = [switch.lsn for switch in self.switches]
        for before, after in pairwise(lsns):
            if after < before:
                raise self._error(f"a switch at {after} after one at {before}", "increasing positions")

    @classmethod
    def parse(cls, timeline: int, content: bytes) -> Self:
        """Read the content of ``timeline``'s history file.

        Blank lines and lines that begin with ``#`` are skipped, as PostgreSQL does. A file that does not end as
        PostgreSQL ends it is half a copy and is refused. A copy without its last whole lines cannot be recognized, nor
        one that lacks no more than the blank line after a time.

        Raises: InvalidTimelineHistoryError.
        """
        name = history_name(timeline).name
        text = content.decode("utf-8", "surrogateescape")
        if not _is_whole(text):
            raise InvalidTimelineHistoryError(
                f"'{name}' ends in the middle, after {len(content)} bytes", hint="It is half a copy: copy it again."
            )
        lines = (line for line in text.split("\n") if line.strip(_SPACE) and not line.lstrip(_SPACE).startswith("#"))
        switches = tuple(_parse_line(name, line) for line in lines)
        if not switches:
            raise InvalidTimelineHistoryError(f"'{name}' has no entry, expected the timeline it came from")
        return cls(timeline, switches)

    def render(self) -> bytes:
        """Return the file's content, to the byte as PostgreSQL writes it (timeline.c: writeTimeLineHistory)."""
        lines = (
            f"{switch.parent}\t{switch.lsn}\t{switch.reason}{_line_end(switch.reason)}" for switch in self.switches
        )
        return "\n".join(lines).encode("utf-8", "surrogateescape")

    def forked(self, timeline: int, lsn: Lsn, reason: str) -> "TimelineHistory":
        """Return the history of a new timeline that leaves this one at ``lsn``."""
        kept = tuple(switch for switch in self.switches if switch.lsn <= lsn)
        parent = self.timeline_at(lsn)
        return TimelineHistory(timeline, (*(s for s in kept if s.parent < parent), TimelineSwitch(parent, lsn, reason)))

    def ranges(self) -> Iterator[TimelineRange]:
        """Yield each timeline's part of the path, the oldest first; a range may be empty."""
        start = Lsn(0)
        for switch in self.switches:
            yield TimelineRange(switch.parent, start, switch.lsn)
            start = switch.lsn
        yield TimelineRange(self.timeline, start, None)

    def path_to(self, lsn: Lsn) -> tuple[TimelineRange, ...]:
        """Return the ranges that lead to ``lsn``, the last one cut to end there; empty ranges are left out."""
        parts = (
            TimelineRange(part.timeline, part.start, lsn if part.end is None else min(part.end, lsn))
            for part in self.ranges()
        )
        return tuple(part for part in parts if part.end is not None and part.start < part.end)

    def timeline_at(self, lsn: Lsn) -> int:
        """Return the timeline that holds the byte at ``lsn`` on this path (timeline.c: tliOfPointInHistory)."""
        return next(part.timeline for part in self.ranges() if part.holds(lsn))

    def holds(self, timeline: int, lsn: Lsn) -> bool:
        """Whether the WAL of ``timeline`` up to ``lsn`` (exclusive) is on this path.

        Only then can a base backup that stopped at ``lsn`` on ``timeline`` be recovered along the path.
        """
        return any(part.timeline == timeline and (part.end is None or lsn <= part.end) for part in self.ranges())

    def segment_candidates(self, number: int, wal_segment_size: int) -> tuple[WalFileName, ...]:
        """Return the names under which recovery looks for a segment, in its order: the newest timeline first.

        A timeline is left out before the segment in which it begins (xlogrecovery.c: XLogFileReadAnyTLI). In the
        segment of a switch, the new timeline's file begins with a copy of the old timeline's.
        """
        timelines = [part.timeline for part in self.ranges() if part.start // wal_segment_size <= number]
        return tuple(segment_name(timeline, number, wal_segment_size) for timeline in reversed(timelines))

    def _error(self, found: str, expected: str) -> InvalidTimelineHistoryError:
        return InvalidTimelineHistoryError(
            f"'{history_name(self.timeline).name}' has {found}, expected {expected}",
            hint="The file was damaged, renamed or written by hand: fetch it again from the primary's pg_wal.",
        )


def _is_whole(text: str) -> bool:
    last = _ENTRY.fullmatch(text.rstrip("\n").rpartition("\n")[2])
    return text.endswith("\n") and not text.endswith("\n" + _line_end((last and last["reason"]) or ""))


def _line_end(reason: str) -> str:
    """Return what PostgreSQL writes after a reason: after a target time two line feeds (getRecoveryStopReason)."""
    return "\n\n" if _TARGET_TIME.match(reason) else "\n"


def _parse_line(name: str, line: str) -> TimelineSwitch:
    match = _ENTRY.fullmatch(line)
    if match is None:
        raise InvalidTimelineHistoryError(
            f"'{name}' has the line '{line[:100]}', expected a timeline, an LSN and a reason"
        )
    try:
        return TimelineSwitch(int(match["timeline"]), Lsn.parse(match["lsn"]), match["reason"] or "")
    except InvalidLsnError as error:
        raise InvalidTimelineHistoryError(f"'{name}' has the line '{line[:100]}': {error.message}") from error
