"""Runs child processes with a log file, waits until they are ready, and ends them by their process ids."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

# The kernel signals a child when the *thread* that started it ends, so one thread that lives as long as
# the interpreter starts them all.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="process-starter")


class ServerError(RuntimeError):
    """A server did not start, did not stop, or ended by itself."""


@dataclass(frozen=True, slots=True)
class RunAs:
    """The user that a child runs as. ``reads_everything`` adds CAP_DAC_OVERRIDE, for folders closed to that user."""

    name: str
    uid: int
    gid: int
    reads_everything: bool = False

    def wrap(self, command: Sequence[str]) -> list[str]:
        """Return the command that runs ``command`` as this user."""
        return list(command) if os.getuid() == self.uid else [_setpriv(), *self.options(), "--", *command]

    def options(self) -> list[str]:
        """Return setpriv's options that change to this user."""
        if os.getuid() == self.uid:
            return []
        options = [f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups"]
        if self.reads_everything:
            options += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
        return options


class ChildProcess:
    """A program in a process group of its own that dies with the process that started it."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        run_as: RunAs | None = None,
    ) -> None:
        self.name = name
        self.log = log
        user = [] if run_as is None else run_as.options()
        self._command = [_setpriv(), "--pdeathsig=KILL", *user, "--", *command]
        self._env = None if env is None else dict(env)
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id. Raises: ServerError where it is not started."""
        if self._process is None:
            raise ServerError(f"'{self.name}' is not started")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process is started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal, ``None`` while it runs."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start the program; its output is added to the log."""
        if self.is_running:
            raise ServerError(f"'{self.name}' is started already")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._process = _starter.submit(self._open).result()

    def _open(self) -> "subprocess.Popen[bytes]":
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,
            )

    def wait_until(self, is_ready: Callable[[], bool], *, timeout_seconds: float = 60) -> None:
        """Return once ``is_ready`` is true. Raises: ServerError with the log's end, when it ended or took too long."""
        deadline = time.monotonic() + timeout_seconds
        while not is_ready():
            if not self.is_running:
                raise ServerError(f"'{self.name}' ended with {self.returncode} while starting:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise ServerError(f"'{self.name}' was not ready after {timeout_seconds} s:\n{self.log_tail()}")
            time.sleep(0.05)

    def send_signal(self, signal_number: signal.Signals) -> None:
        """Send a signal to the process alone."""
        if self._process is not None:
            self._process.send_signal(signal_number)

    def stop(self, *, with_signal: signal.Signals = signal.SIGTERM, timeout_seconds: float = 30) -> int | None:
        """Ask the process to end, kill its group after the timeout, and return the exit code."""
        if self._process is None:
            return None
        self.send_signal(with_signal)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_seconds)
        self.kill()
        return self._process.returncode

    def wait(self, *, timeout_seconds: float) -> int:
        """Wait for the process to end by itself and return its exit code."""
        if self._process is None:
            raise ServerError(f"'{self.name}' is not started")
        return self._process.wait(timeout_seconds)

    def kill(self) -> None:
        """SIGKILL the process and all that it started, as a crash of the machine would, and wait for their end."""
        if self._process is None:
            return
        doomed = [] if self._process.poll() is not None else _descendants(self._process.pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for pid in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(30)
        _wait_gone(doomed, timeout_seconds=30)

    def log_tail(self, lines: int = 30) -> str:
        """The last lines of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""


def lock_holder(lock: Path) -> int | None:
    """Return the process that holds the flock on a file, as the kernel lists it; None where none does."""
    if not lock.exists():
        return None
    inode = lock.stat().st_ino
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if fields[1] == "FLOCK" and fields[5].endswith(f":{inode}"):
            return int(fields[4])
    return None


def _setpriv() -> str:
    """Find util-linux's setpriv, which changes the user and sets the parent-death signal without code after a fork."""
    program = shutil.which("setpriv")
    if program is None:
        raise ServerError("program 'setpriv' is missing; HINT: install util-linux.")
    return program


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            after_name = stat.read_text(errors="replace").rpartition(")")[2].split()
            children.setdefault(int(after_name[1]), []).append(int(stat.parent.name))
    found, queue = [], [pid]
    while queue:
        born = children.get(queue.pop(), [])
        found += born
        queue += born
    return found


def _wait_gone(pids: Sequence[int], *, timeout_seconds: float) -> None:
    deadline = time.monotonic() + timeout_seconds
    while any(is_alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            raise ServerError(f"processes {[pid for pid in pids if is_alive(pid)]} did not end")
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
