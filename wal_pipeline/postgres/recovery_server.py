"""Starts a restored server and watches its recovery by the messages in its log."""

import errno
import os
import re
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, Final

from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.binaries import Binaries
from wal_pipeline.wal.lsn import Lsn

_POLL_SECONDS: Final = 0.05
_TAIL_LINES: Final = 20
# Recovery is watched by the log, so it is on stderr, in English, in one known form. A restart ends these settings.
_WATCHABLE: Final = {
    "logging_collector": "off",
    "log_destination": "stderr",
    "lc_messages": "C",
    "log_min_messages": "info",
    "log_line_prefix": "%m [%p] ",
}
_LSN: Final = r"([0-9A-F]+/[0-9A-F]+)"
_TIME: Final = r"([0-9]{4}-[0-9-]+ [0-9:.]+[+-][0-9:]+)"


class RecoveryState(StrEnum):
    """The state of a recovery."""

    STARTING = "starting"
    REPLAYING = "replaying"
    CONSISTENT = "consistent"  # read-only connections are possible, replay continues
    PAUSED = "paused"  # at the target, by recovery_target_action
    SHUT_DOWN = "shut_down"  # at the target, by recovery_target_action
    OPEN = "open"  # recovery has ended, on a new timeline
    FAILED = "failed"


_FINAL: Final = frozenset({RecoveryState.PAUSED, RecoveryState.SHUT_DOWN, RecoveryState.OPEN, RecoveryState.FAILED})


@dataclass(slots=True)
class RecoveryProgress:
    """The progress of a recovery by the server's log. Seconds count from the start of the server.

    ``stopped_before_at``/``stopped_after_at`` is the commit at the target. ``last_commit_at`` is the last one replayed,
    known when recovery ends. ``segments`` counts the files that were restored.
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

    def read(self, line: str, seconds: float) -> None:
        """Read one line of the log."""
        for pattern, note in _NOTES:
            match = pattern.search(line)
            if match is not None:
                note(self, match)
                self.seconds.setdefault(self.state.value, seconds)
                return

    def _redo(self, match: "re.Match[str]") -> None:
        self.state, self.redo_lsn = RecoveryState.REPLAYING, Lsn.parse(match[1])

    def _consistent(self, match: "re.Match[str]") -> None:
        self.state, self.consistent_lsn = RecoveryState.CONSISTENT, Lsn.parse(match[1])

    def _file(self, match: "re.Match[str]") -> None:
        self.segments, self.last_file = self.segments + 1, match[1]

    def _stopping(self, match: "re.Match[str]") -> None:
        self.stopped = match[1]

    def _paused(self, _match: "re.Match[str]") -> None:
        self.state = RecoveryState.PAUSED

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

    def _failed(self, match: "re.Match[str]") -> None:
        self.errors.append(match[1])


# xlogrecovery.c and xlog.c of PostgreSQL 13 to 18.
_NOTES: Final[tuple[tuple["re.Pattern[str]", Callable[[RecoveryProgress, "re.Match[str]"], None]], ...]] = (
    (re.compile(rf"LOG:  redo starts at {_LSN}"), RecoveryProgress._redo),
    (re.compile(rf"LOG:  consistent recovery state reached at {_LSN}"), RecoveryProgress._consistent),
    (re.compile(r'LOG:  restored log file "([^"]+)" from archive'), RecoveryProgress._file),
    (re.compile(r"LOG:  (recovery stopping .*)"), RecoveryProgress._stopping),
    (re.compile(r"LOG:  pausing at the end of recovery"), RecoveryProgress._paused),
    (re.compile(r"LOG:  shutdown at recovery target"), RecoveryProgress._shut_down),
    (re.compile(rf"LOG:  redo done at {_LSN}"), RecoveryProgress._done),
    (re.compile(rf"LOG:  last completed transaction was at log time {_TIME}"), RecoveryProgress._commit),
    (re.compile(r"LOG:  selected new timeline ID: (\d+)"), RecoveryProgress._timeline),
    (re.compile(r"LOG:  database system is ready to accept connections"), RecoveryProgress._open),
    (re.compile(r"((?:FATAL|PANIC):  .*)"), RecoveryProgress._failed),
)


@dataclass(frozen=True, slots=True)
class ServerUser:
    """The operating system's user that owns PGDATA and runs the server; PostgreSQL refuses root."""

    uid: int
    gid: int

    def popen_options(self) -> dict[str, object]:
        """Return the options of ``subprocess.Popen`` that run a program as this user; none where we are that user."""
        if os.geteuid() == self.uid:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


class RecoveryServer:
    """The server of a restored data directory, started as PostgreSQL's user and watched until recovery ends."""

    def __init__(
        self,
        binaries: Binaries,
        pgdata: Path,
        *,
        user: ServerUser,
        log: Path,
        settings: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        inherited: Mapping[str, str] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``settings`` stand on the server's command line until its next restart.

        ``environment`` is added to ours, or to ``inherited`` where the server must not get all of ours.
        """
        self.progress = RecoveryProgress()
        self._binaries = binaries
        self._pgdata = pgdata
        self._user = user
        self._log = log
        self._settings = {**_WATCHABLE, **(settings or {})}
        self._environment = {**(os.environ if inherited is None else inherited), **(environment or {})}
        self._now = now
        self._begun = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._read_bytes = 0

    @property
    def pid(self) -> int | None:
        """The postmaster's process id."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the server, which runs on when this program ends. Raises: PostgresError."""
        options = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
        command = [str(self._binaries.program("postgres")), "-D", str(self._pgdata), *options]
        self._begun = self._now()
        try:
            with self._open_log() as log:
                self._read_bytes = log.tell()
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self._pgdata,
                    env=self._environment,
                    start_new_session=True,
                    **self._user.popen_options(),  # type: ignore[call-overload]
                )
        except OSError as error:
            raise PostgresError(f"'{command[0]}' cannot be started: {error.strerror}") from error

    def _open_log(self) -> BinaryIO:
        """Open the log to append to it; only a plain file with no other name, owned by us or by the server's user.

        As root we write beside the data directory, where the server's user may have put a link to one of root's files.

        Raises: OSError, PostgresError.
        """
        try:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(self._log, flags, 0o666)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise self._foreign_log() from error
            raise PostgresError(f"the log '{self._log}' cannot be opened: {error.strerror}") from error
        found = os.fstat(descriptor)
        owned = found.st_uid in (os.geteuid(), self._user.uid)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or not owned:
            os.close(descriptor)
            raise self._foreign_log()
        os.set_blocking(descriptor, True)
        log = open(descriptor, "ab")  # noqa: PTH123, SIM115 - its own flags; the caller closes it
        log.seek(0, os.SEEK_END)
        return log

    def _foreign_log(self) -> PostgresError:
        return PostgresError(
            f"the log '{self._log}' is not a plain file of ours or of the server's user, with no other name",
            hint="Look at what it is, then remove it.",
        )

    def watch(
        self, timeout_seconds: float | None = None, on_progress: Callable[[RecoveryProgress], object] = lambda _: None
    ) -> RecoveryProgress:
        """Return when recovery paused, shut the server down or ended.

        Raises: PostgresError, with the log's last lines, where the server ended otherwise or took too long.
        """
        while self.progress.state not in _FINAL:
            ended = self._process is None or self._process.poll() is not None
            if self._read_log():
                on_progress(self.progress)
            if ended and self.progress.state not in _FINAL:
                self.progress.state = RecoveryState.FAILED
            elif timeout_seconds is not None and self._now() - self._begun > timeout_seconds:
                raise self._error(f"did not end its recovery within {timeout_seconds:g} s")
            time.sleep(_POLL_SECONDS)
        if self.progress.state is RecoveryState.FAILED:
            raise self._error("ended before its recovery did")
        if self.progress.state is RecoveryState.SHUT_DOWN and self._process is not None:
            self._wait(self._process)
        return self.progress

    def stop(self, *, timeout_seconds: float = 120) -> None:
        """Stop the server (fast shutdown); no error where it has ended. Raises: PostgresError where it does not end."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGINT)
        self._wait(self._process, timeout_seconds)

    def _wait(self, process: "subprocess.Popen[bytes]", timeout_seconds: float = 120) -> None:
        try:
            process.wait(timeout_seconds)
        except subprocess.TimeoutExpired as error:
            raise self._error(f"did not shut down within {timeout_seconds:g} s") from error

    def _read_log(self) -> bool:
        """Read the log's new lines; True where there were any."""
        with open(self._log, "rb", opener=_open_no_link) as log:
            log.seek(self._read_bytes)
            data = log.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        for line in whole.decode("utf-8", errors="replace").splitlines():
            self.progress.read(line, self._now() - self._begun)
        return bool(whole)

    def _error(self, what: str) -> PostgresError:
        with open(self._log, encoding="utf-8", errors="replace", opener=_open_no_link) as log:
            tail = log.read().splitlines()[-_TAIL_LINES:]
        return PostgresError(
            f"the restored server in '{self._pgdata}' {what}; its log '{self._log}' ends with:\n" + "\n".join(tail),
            hint="The data directory stays as it is: when the reason is gone, start the server to go on recovering.",
        )


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)
