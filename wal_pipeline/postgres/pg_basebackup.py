"""Runs pg_basebackup: as a stream of one tar, or into a staging folder where there are tablespaces."""

import io
import re
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self, cast

from wal_pipeline.archive.format.base_backup.report import BackupReport
from wal_pipeline.archive.records import DamagedPages
from wal_pipeline.errors import BaseBackupError
from wal_pipeline.postgres.backup_words import LOST_HINT, BackupWords, lost_names

_PROGRESS: Final = re.compile(r"^\s*(\d+)/(\d+) kB")
_SPEAKER: Final = re.compile(r"^pg_basebackup: (?:error: )?")
_CHECKSUM_ERROR: Final = "checksum error occurred"
_KEPT_LINES: Final = 20
_BUFFER_BYTES: Final = 1 << 20
_STOP_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class BaseBackupCommand:
    """A command line of pg_basebackup.

    ``target`` is a folder, or None for one tar on standard output. ``parent_manifest`` is the ``backup_manifest``
    of the base backup on which an incremental one is built. ``max_rate_kib`` limits KiB a second.
    """

    program: Path
    conninfo: str
    label: str
    fast_checkpoint: bool = True
    target: Path | None = None
    parent_manifest: Path | None = None
    max_rate_kib: int | None = None

    def arguments(self) -> list[str]:
        """Return the arguments. They leave out the WAL: the archive has it, and the server waits until it does."""
        arguments = [str(self.program), "--format=tar", "--wal-method=none", "--no-password", "--verbose", "--progress"]
        arguments += [f"--pgdata={'-' if self.target is None else self.target}", f"--label={self.label}"]
        arguments += [f"--checkpoint={'fast' if self.fast_checkpoint else 'spread'}", f"--dbname={self.conninfo}"]
        if self.parent_manifest is not None:
            arguments.append(f"--incremental={self.parent_manifest}")
        if self.max_rate_kib is not None:
            arguments.append(f"--max-rate={self.max_rate_kib}")
        return arguments


class BaseBackupRun:
    """One running pg_basebackup; a context manager that leaves no process behind.

    ``total_bytes`` is the server's estimate of the bytes that it sends; None until it made one. ``words`` are what
    the program and the server said.
    """

    def __init__(self, command: BaseBackupCommand, environment: Mapping[str, str]) -> None:
        """Start the program. Raises: BaseBackupError."""
        self.total_bytes: int | None = None
        self.done_bytes = 0
        self.words = BackupWords()
        self._stopped: BaseBackupError | None = None
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        output = subprocess.PIPE if command.target is None else subprocess.DEVNULL
        try:
            self._process = subprocess.Popen(
                command.arguments(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.PIPE,
                env=dict(environment),
                bufsize=_BUFFER_BYTES,
            )
        except OSError as error:
            raise BaseBackupError(f"'{command.program}' cannot be started: {error.strerror}") from error
        self._reader = threading.Thread(target=self._read_messages, name="pg_basebackup-messages", daemon=True)
        self._reader.start()

    @property
    def tar(self) -> BinaryIO:
        """The stream of the tar's bytes."""
        if self._process.stdout is None:
            raise BaseBackupError("pg_basebackup writes into a folder, not to its standard output")
        return cast(BinaryIO, self._process.stdout)

    @property
    def report(self) -> BackupReport:
        """The warnings of PostgreSQL and its damaged pages, known at the end."""
        pages = self.words.damaged_pages
        if self.has_damaged_pages and not pages:
            pages = (DamagedPages("a file that only the server's log names", (), 0),)
        return BackupReport(self.words.warnings, pages)

    def wait(self, tick: Callable[[], object] = lambda: None) -> None:
        """Wait for the end, and call ``tick`` once a second meanwhile.

        A run that failed only because of pages with wrong checksums did all of its work: the server says so at the
        very end, after the last byte. ``words`` name the pages then.

        Raises: BaseBackupError with pg_basebackup's own message where it failed, or where files were left out.
        """
        while (status := self._poll(1.0)) is None:
            tick()
            self.require_nothing_lost()
        self._reader.join(_STOP_SECONDS)
        if status != 0 and (self._stopped is not None or not self.has_damaged_pages):
            raise self.failure()
        self.require_nothing_lost()

    @property
    def has_damaged_pages(self) -> bool:
        """Whether the program ended, and with no other error than wrong checksums of pages."""
        return [_SPEAKER.sub("", line).strip() for line in self._errors()] == [_CHECKSUM_ERROR]

    def require_nothing_lost(self) -> None:
        """Refuse a base backup without files that the cluster needs. Raises: BaseBackupError."""
        lost = self.words.lost
        if lost:
            raise BaseBackupError(
                f"PostgreSQL left {lost_names(lost)} out of the base backup: a symbolic link or no regular file",
                hint=LOST_HINT,
            )

    def stop(self, reason: BaseBackupError) -> None:
        """End the program from another thread; ``failure`` then returns the reason."""
        self._stopped = reason
        self._process.terminate()

    def failure(self) -> BaseBackupError:
        """Return the error that says how pg_basebackup ended."""
        if self._stopped is not None:
            return self._stopped
        status = self._process.poll()
        words = self._errors() or list(self._lines)[-3:]
        text = "; ".join(_SPEAKER.sub("", line).strip() for line in words) or "it printed nothing"
        return BaseBackupError(f"pg_basebackup ended with status {status}: {text}", hint=_hint(text))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the program where it still runs, and close its pipes."""
        if self._process.poll() is None:
            self._stop()
        self._reader.join(_STOP_SECONDS)
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def _errors(self) -> list[str]:
        return [line for line in self._lines if "error:" in line or "fatal:" in line.lower()]

    def _poll(self, timeout_seconds: float) -> int | None:
        try:
            return self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return None

    def _stop(self) -> None:
        self._process.terminate()
        if self._poll(_STOP_SECONDS) is None:
            self._process.kill()
            self._process.wait()

    def _read_messages(self) -> None:
        if self._process.stderr is None:
            return
        for line in io.TextIOWrapper(cast(BinaryIO, self._process.stderr), errors="replace"):
            found = _PROGRESS.match(line)
            if found is None:
                self._lines.append(line.rstrip())
                self.words.take(line.rstrip())
            else:
                self.done_bytes, self.total_bytes = int(found[1]) * 1024, int(found[2]) * 1024


def _hint(text: str) -> str | None:
    hints = {
        "could not open directory": "PostgreSQL's user must be able to read all that lies in the data directory: give "
        "it to that user ('sudo chown --reference=PGDATA PGDATA/lost+found'), or move it out. A 'lost+found' says that "
        "the data directory is a mount point; a folder below it is the better data directory.",
        "WAL summaries are required": "Take a full base backup: WAL summaries do not reach back to the parent.",
        "no pg_hba.conf entry": "Allow replication connections for this role in pg_hba.conf ('host replication ...').",
        "must be superuser or replication role": "ALTER ROLE ... REPLICATION, or use another role.",
        "permission denied to start WAL sender": "ALTER ROLE ... REPLICATION, or use another role.",
        "max_wal_senders": "Raise max_wal_senders on the server, or end another replication connection.",
    }
    return next((hint for part, hint in hints.items() if part in text), None)
