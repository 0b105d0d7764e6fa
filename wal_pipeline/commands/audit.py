"""Writes the audit log: each JSON line names an action, its subject, its result and who did it."""

import fcntl
import getpass
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Final, Self

from wal_pipeline.errors import WalPipelineError
from wal_pipeline.host.file_owner import give_to_folder_owner, owner_trouble

FILE_NAME: Final = "audit.jsonl"
_log = logging.getLogger(__name__)


class AuditLog:
    """One file that only grows; old ones are kept beside it as ``audit.jsonl.1`` and so on.

    Each line is one write in append mode, so that several processes can share it. It is not fsynced: the log must cost
    the archiving nothing, and the catalog and the stores hold the same facts. It never breaks the work: where it cannot
    be written, a warning says so.
    """

    def __init__(
        self, folder: Path, clock: Callable[[], datetime], *, max_bytes: int = 10 * 2**20, files: int = 10
    ) -> None:
        """A file larger than ``max_bytes`` is set aside; ``files`` old ones are kept."""
        self.path = folder / FILE_NAME
        self._clock = clock
        self._max_bytes = max_bytes
        self._files = files

    def signed(self, by: str | None) -> Self:
        """Return the same log, whose lines name ``by`` where nobody else is named; None: the user."""
        other = copy(self)
        if by is not None:
            other._user = by
        return other

    def write(self, action: str, subject: str, result: str, *, by: str | None = None, **details: object) -> None:
        """Add one line. ``by`` names who did it, by default the user. ``details`` must be JSON's types or text."""
        line = {
            "at": self._clock().isoformat(timespec="milliseconds"),
            "action": action,
            "subject": subject,
            "result": result,
            "by": by or self._user,
            **details,
        }
        try:
            self._append(json.dumps(line, default=str, ensure_ascii=False) + "\n")
        except OSError as error:
            why = owner_trouble([self.path], os.W_OK) or error.strerror
            _log.warning("audit log '%s' cannot be written: %s", self.path, why)

    @cached_property
    def _user(self) -> str:
        return running_user()

    @contextmanager
    def work(
        self, action: str, subject: str, *, by: str | None = None, **details: object
    ) -> Iterator[dict[str, object]]:
        """Add one line when the work ends: its result is ``failed``, with the reason, where it raises.

        Else the result is the one that the work puts into the yielded values, which all stand in the line.
        """
        told: dict[str, object] = {}
        try:
            yield told
        except BaseException as error:
            reason = error.message if isinstance(error, WalPipelineError) else type(error).__name__
            self.write(action, subject, "failed", by=by, **details, message=reason)
            raise
        line = {**details, **told}
        self.write(action, str(line.pop("subject", subject)), str(line.pop("result", "done")), by=by, **line)

    def _append(self, line: str) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = self._open()
        try:
            if os.fstat(descriptor).st_size >= self._max_bytes:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if _same_file(descriptor, self.path):  # another process may have set it aside while we waited
                    self._rotate()
                os.close(descriptor)
                descriptor = self._open()
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def _open(self) -> int:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        give_to_folder_owner(self.path)
        return descriptor

    def _rotate(self) -> None:
        for number in range(self._files - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                older.replace(self._numbered(number + 1))
        self.path.replace(self._numbered(1))

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")


def running_user() -> str:
    """Return the name of the user who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
        return f"uid {os.getuid()}"


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
