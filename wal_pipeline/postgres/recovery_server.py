"""Starts a restored server, and watches its recovery by the messages in its log and by its files and processes."""

import errno
import os
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.binaries import Binaries
from wal_pipeline.postgres.replay_progress import FINAL_STATES, READABLE_LOG, RecoveryProgress, RecoveryState
from wal_pipeline.postgres.startup_watch import StartupSigns, is_open, read_signs

_POLL_SECONDS: Final = 0.05
_LOOK_SECONDS: Final = 1.0
_TAIL_LINES: Final = 20
_SAYS_HOW_IT_GOES: Final = 15  # the major version that brought log_startup_progress_interval
_LOG_GRACE_SECONDS: Final = 5.0  # a server that is open has a log that says so, a moment later at most


@dataclass(frozen=True, slots=True)
class RecoveryLimits:
    """How long a recovery may take. ``quiet_seconds`` is the longest time in which nothing that can be seen happens.

    A recovery that goes on may take days; without ``total_seconds`` only one that stands still has an end. After
    ``told_seconds`` of silence, and again after each further such time, ``watch`` calls on_progress with what it waits
    for.
    """

    total_seconds: float | None = None
    quiet_seconds: float = 1800.0
    told_seconds: float = 30.0


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
        wal_folders: tuple[Path, ...] = (),
        follows: bool = False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``settings`` stand on the server's command line until its next restart.

        ``data_directory`` stands there too: one in a configuration file would win over ``-D``, and another folder
        would be served. ``environment`` is added to ours, or to ``inherited`` where the server must not get all of
        ours. ``wal_folders`` are where its WAL files come in. ``follows``: it is a standby, whose recovery goes on.
        """
        self.progress = RecoveryProgress(follows=follows)
        self._binaries = binaries
        self._pgdata = pgdata
        self._user = user
        self._log = log
        self._settings = {
            **(settings or {}),
            **READABLE_LOG,
            **({"log_startup_progress_interval": "10s"} if binaries.major >= _SAYS_HOW_IT_GOES else {}),
            "data_directory": str(pgdata),
        }
        self._environment = {**(os.environ if inherited is None else inherited), **(environment or {})}
        self._wal_folders = wal_folders
        self._now = now
        self._begun = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._read_bytes = 0
        self._signs: StartupSigns | None = None
        self._looked_at = self._changed_at = self._told_at = 0.0
        self._open_since: float | None = None

    @property
    def pid(self) -> int | None:
        """The postmaster's process id."""
        return None if self._process is None else self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the postmaster runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the server, which runs on when this program ends. Raises: PostgresError."""
        options = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
        command = [str(self._binaries.program("postgres")), "-D", str(self._pgdata), *options]
        self._begun = self._looked_at = self._changed_at = self._told_at = self._now()
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
                raise _foreign_log(self._log) from error
            raise PostgresError(f"the log '{self._log}' cannot be opened: {error.strerror}") from error
        if not _is_own_log(os.fstat(descriptor), self._user):
            os.close(descriptor)
            raise _foreign_log(self._log)
        os.set_blocking(descriptor, True)
        log = open(descriptor, "ab")  # noqa: PTH123, SIM115 - its own flags; the caller closes it
        log.seek(0, os.SEEK_END)
        return log

    def watch(
        self,
        limits: RecoveryLimits | None = None,
        on_progress: Callable[[RecoveryProgress], object] = lambda _: None,
    ) -> RecoveryProgress:
        """Return when recovery paused, is blocked by a setting, shut the server down or ended.

        ``on_progress`` is called for new lines of the log, and with ``waits_for`` where nothing happens.

        Raises: PostgresError, with the log's last lines, where the server ended otherwise, took too long, or went on
        no more. It still runs in the last two cases.
        """
        limits = limits or RecoveryLimits()
        while self.progress.state not in FINAL_STATES:
            ended = self._process is None or self._process.poll() is not None
            if self._read_log():
                self._note_change()
                on_progress(self.progress)
            if self.progress.state in FINAL_STATES:
                break
            if ended:
                self.progress.state = RecoveryState.FAILED
            else:
                self._look(limits, on_progress)
            time.sleep(_POLL_SECONDS)
        if self.progress.state is RecoveryState.FAILED:
            raise self._error("ended before its recovery did")
        if self.progress.state is RecoveryState.SHUT_DOWN and self._process is not None:
            self._wait(self._process)
        return self.progress

    def _look(self, limits: RecoveryLimits, on_progress: Callable[[RecoveryProgress], object]) -> None:
        """Look beside the log, now and then: is the server open, does anything happen, is a limit reached?"""
        now = self._now()
        if limits.total_seconds is not None and now - self._begun > limits.total_seconds:
            what = f"did not end its recovery within {limits.total_seconds:g} s"
            raise self._error(f"{what}: it waits for {self._wait_for()}")
        if now - self._looked_at < _LOOK_SECONDS or self._process is None:
            return
        self._looked_at = now
        if self._seems_open(now):
            self.progress.state = RecoveryState.OPEN
            self.progress.seconds.setdefault(RecoveryState.OPEN.value, now - self._begun)
            return
        signs = read_signs(self._process.pid, self._pgdata, self._wal_folders)
        if signs != self._signs:
            self._signs = signs
            self._note_change()
        quiet = now - self._changed_at
        if quiet > limits.quiet_seconds:
            raise self._error(f"has not gone on for {limits.quiet_seconds:g} s: it waits for {self._wait_for()}")
        if quiet >= limits.told_seconds and now - self._told_at >= limits.told_seconds:
            self._told_at = now
            self.progress.waits_for, self.progress.quiet_seconds = self._wait_for(), quiet
            on_progress(self.progress)

    def _seems_open(self, now: float) -> bool:
        """Return whether the server's files have said for a while that it is open, and its log says nothing."""
        if not is_open(self._pgdata):
            self._open_since = None
            return False
        self._open_since = self._open_since or now
        return now - self._open_since > _LOG_GRACE_SECONDS

    def _note_change(self) -> None:
        self._changed_at = self._now()
        self.progress.waits_for, self.progress.quiet_seconds = None, 0.0

    def _wait_for(self) -> str:
        return waited_for(self.progress, self._signs or StartupSigns("", None, ()))

    def stop(self, *, timeout_seconds: float = 120, immediately: bool = False) -> None:
        """Stop the server by a fast shutdown, or ``immediately`` where nothing of it is kept. No error where it ended.

        Raises: PostgresError where it does not end.
        """
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGQUIT if immediately else signal.SIGINT)
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
            hint=self._way_on(),
        )

    def _way_on(self) -> str:
        if self.is_running:
            return (
                f"The server still runs, with process id {self.pid}: it goes on by itself when the reason is "
                f"gone, or stop it: pg_ctl stop -D {self._pgdata}"
            )
        return "The data directory stays as it is: when the reason is gone, start the server to go on recovering."


def waited_for(progress: RecoveryProgress, signs: StartupSigns) -> str:
    """Return what a recovery waits for, by the server's log and its processes."""
    if signs.asked_for is not None:
        return (
            f"its restore_command, which was asked for WAL file {signs.asked_for or signs.doing.split(' ')[-1]}".strip()
        )
    if progress.held:
        return "a session that paused it: SELECT pg_wal_replay_resume() goes on"
    if progress.replayed_lsn is not None:
        return "the checkpoint at the end of the recovery"
    if signs.doing.startswith("recovering "):
        return f"the replay of WAL file {signs.doing.removeprefix('recovering ')}"
    if progress.state is RecoveryState.STARTING:
        return "the begin of its recovery"
    return "the next WAL file"


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)


def require_own_log(log: Path, user: ServerUser) -> None:
    """Refuse what lies where the log shall be, before a restore begins. Raises: PostgresError."""
    try:
        found = log.lstat()
    except OSError:
        return
    if not _is_own_log(found, user):
        raise _foreign_log(log)


def _is_own_log(found: os.stat_result, user: ServerUser) -> bool:
    owned = found.st_uid in (os.geteuid(), user.uid)
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and owned


def _foreign_log(log: Path) -> PostgresError:
    return PostgresError(
        f"the log '{log}' is not a plain file of ours or of the server's user, with no other name",
        hint="Look at what it is, then remove it.",
    )
