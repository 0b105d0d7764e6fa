"""Reads the progress of a recovery out of the server's log."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from wal_pipeline.wal.lsn import Lsn

# What the reading depends on stands on the server's command line, where it wins over files: the log is on stderr, in
# English, in one known form. A restart ends these settings.
READABLE_LOG: Final = {
    "logging_collector": "off",
    "log_destination": "stderr",
    "lc_messages": "C",
    "log_min_messages": "info",
    "log_error_verbosity": "default",
    "log_line_prefix": "%m [%p] ",
}
_LSN: Final = r"([0-9A-F]+/[0-9A-F]+)"
_TIME: Final = r"([0-9]{4}-[0-9-]+ [0-9:.]+[+-][0-9:]+)"
# elog.c: the prefix, the severity, and with log_error_verbosity = verbose the SQLSTATE. Other programs, such as the
# restore_command, write into the same log, but not behind this prefix; and a session's text comes later in the line.
_PREFIX: Final = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \S+ \[\d+\] "
_SQLSTATE: Final = r"(?:[0-9A-Z]{5}: )?"


REPLAYED: Final = "replayed"  # beside the states: the last record is replayed, and the server is not open yet


class RecoveryState(StrEnum):
    """The state of a recovery."""

    STARTING = "starting"
    REPLAYING = "replaying"
    CONSISTENT = "consistent"  # the base backup is whole, replay continues
    PAUSED = "paused"  # at the target, by recovery_target_action
    BLOCKED = "blocked"  # paused before the target, because a setting is lower than on the original
    SHUT_DOWN = "shut_down"  # at the target, by recovery_target_action
    FOLLOWING = "following"  # a standby that is consistent, and takes read-only sessions
    OPEN = "open"  # recovery has ended, on a new timeline
    FAILED = "failed"


FINAL_STATES: Final = frozenset(
    {
        RecoveryState.PAUSED,
        RecoveryState.BLOCKED,
        RecoveryState.SHUT_DOWN,
        RecoveryState.FOLLOWING,
        RecoveryState.OPEN,
        RecoveryState.FAILED,
    }
)


@dataclass(slots=True)
class RecoveryProgress:
    """The progress of a recovery by the server's log. Seconds count from the start of the server.

    ``stopped_before_at``/``stopped_after_at`` is the commit at the target. ``last_commit_at`` is the last one replayed,
    known when recovery ends. ``segments`` counts the files that were restored. ``too_low`` are the server's words on
    settings that are lower than on the original. ``held``: a session has paused the replay. ``waits_for`` says what
    nothing has come of for ``quiet_seconds``; None while the recovery goes on. ``warnings`` are the server's, each
    once, and ``lost`` those of them that mean that data is lost. ``invalid`` are the folders of the pages that the
    replay missed, each with the server's words on the first: with ``ignore_invalid_pages`` it goes on without them.
    ``follows``: it is a standby's, and its last state is that it follows.
    """

    state: RecoveryState = RecoveryState.STARTING
    redo_lsn: Lsn | None = None
    consistent_lsn: Lsn | None = None
    replayed_lsn: Lsn | None = None
    last_commit_at: datetime | None = None
    stopped: str | None = None
    timeline: int | None = None
    segments: int = 0
    last_file: str | None = None
    errors: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    too_low: list[str] = field(default_factory=list)
    held: bool = False
    waits_for: str | None = None
    quiet_seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    invalid: dict[str, str] = field(default_factory=dict)
    follows: bool = False

    @property
    def lost(self) -> tuple[str, ...]:
        """The warnings that mean that data is lost."""
        return lost_words(self.warnings)

    def read(self, line: str, seconds: float) -> None:
        """Read one line of the log."""
        warned = _WARNING.search(line)
        if warned is not None:
            self._warned(warned[1])
            return
        for pattern, note in _NOTES:
            match = pattern.search(line)
            if match is not None:
                note(self, match)
                name = REPLAYED if note is RecoveryProgress._done else self.state.value
                self.seconds.setdefault(name, seconds)
                return

    def _warned(self, text: str) -> None:
        missed = _INVALID_PAGE.match(text)
        if missed is not None:
            self.invalid.setdefault(missed[1], text)
        if missed is not None or text == _INVALID_PAGES:
            return
        if text in self.warnings or _TOLD_AS_TOO_LOW in text:
            return
        if len(self.warnings) < _MOST_WARNINGS or lost_words([text]):
            self.warnings.append(text)

    def _redo(self, match: "re.Match[str]") -> None:
        self.state, self.redo_lsn = RecoveryState.REPLAYING, Lsn.parse(match[1])

    def _consistent(self, match: "re.Match[str]") -> None:
        self.state, self.consistent_lsn = RecoveryState.CONSISTENT, Lsn.parse(match[1])

    def _file(self, match: "re.Match[str]") -> None:
        self.segments, self.last_file, self.held = self.segments + 1, match[1], False

    def _stopping(self, match: "re.Match[str]") -> None:
        self.stopped = match[1]

    def _paused(self, _match: "re.Match[str]") -> None:
        self.state = RecoveryState.PAUSED

    def _held(self, _match: "re.Match[str]") -> None:
        if self.too_low:
            self.state = RecoveryState.BLOCKED
        else:
            self.held = True

    def _low(self, match: "re.Match[str]") -> None:
        self.too_low.append(match[1])

    def _shut_down(self, _match: "re.Match[str]") -> None:
        self.state = RecoveryState.SHUT_DOWN

    def _done(self, match: "re.Match[str]") -> None:
        self.replayed_lsn = Lsn.parse(match[1])

    def _commit(self, match: "re.Match[str]") -> None:
        self.last_commit_at = datetime.fromisoformat(match[1])

    def _timeline(self, match: "re.Match[str]") -> None:
        self.timeline = int(match[1])

    def _open(self, _match: "re.Match[str]") -> None:
        if self.state is not RecoveryState.PAUSED:
            self.state = RecoveryState.OPEN

    def _readable(self, _match: "re.Match[str]") -> None:
        if self.follows:
            self.state = RecoveryState.FOLLOWING

    def _failed(self, match: "re.Match[str]") -> None:
        self.errors.append(match[1])


def _log(text: str, severity: str = "LOG") -> "re.Pattern[str]":
    return re.compile(rf"{_PREFIX}{severity}:  {_SQLSTATE}{text}")


def lost_words(warnings: Iterable[str]) -> tuple[str, ...]:
    """Return those of a server's warnings that mean that data is lost, though it goes on (bufmgr.c, twophase.c)."""
    return tuple(text for text in warnings if any(words in text for words in _LOSSES))


_WARNING: Final = _log("(.*)", "WARNING")
_MOST_WARNINGS: Final = 20
_TOLD_AS_TOO_LOW: Final = "hot standby is not possible because of insufficient parameter settings"
# xlogutils.c: report_invalid_page, log_invalid_page
_INVALID_PAGE: Final = re.compile(r"page \d+ of relation (\S+)/\S+ (?:is uninitialized|does not exist)\Z")
_INVALID_PAGES: Final = "WAL contains references to invalid pages"
_LOSSES: Final = (
    "page verification failed",
    "zeroing out page",
    "removing corrupt two-phase state file",
)
# xlogrecovery.c and xlog.c of PostgreSQL 13 to 18.
_NOTES: Final[tuple[tuple["re.Pattern[str]", Callable[[RecoveryProgress, "re.Match[str]"], None]], ...]] = (
    (_log(rf"redo starts at {_LSN}"), RecoveryProgress._redo),
    (_log(rf"consistent recovery state reached at {_LSN}"), RecoveryProgress._consistent),
    (_log(r'restored log file "([^"]+)" from archive'), RecoveryProgress._file),
    (_log(r"(recovery stopping .*)"), RecoveryProgress._stopping),
    (_log(r"pausing at the end of recovery"), RecoveryProgress._paused),
    (_log(r"(\w+ = \d+ is a lower setting than on the .*)", "DETAIL"), RecoveryProgress._low),
    (_log(r"recovery has paused"), RecoveryProgress._held),
    (_log(r"shutdown at recovery target"), RecoveryProgress._shut_down),
    (_log(rf"redo done at {_LSN}"), RecoveryProgress._done),
    (_log(rf"last completed transaction was at log time {_TIME}"), RecoveryProgress._commit),
    (_log(r"selected new timeline ID: (\d+)"), RecoveryProgress._timeline),
    (_log(r"database system is ready to accept connections"), RecoveryProgress._open),
    (_log(r"database system is ready to accept read.only connections"), RecoveryProgress._readable),
    (re.compile(rf"{_PREFIX}((?:FATAL|PANIC):  .*)"), RecoveryProgress._failed),
)
