"""Records the files that an archiving run skipped, so that none of them starts a run before something changes."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Self

from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.spool import Spool, SpoolFile

# A person may mend a full disk or a missing mount without any change to the file.
STUCK_RETRY: Final = timedelta(hours=1)
SKIPPED_RETRY: Final = timedelta(minutes=1)
_KEY: Final = "spool.left"
Mark = tuple[int, ...]
"""Numbers of the file system that change when a file's content, owner or rights do."""


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file that a run left in the spool as ``mark`` says. It is tried again at ``retry_at``, or once it changes.

    ``message`` is the reason. ``needs_help``: a person has to mend something first.
    """

    mark: Mark
    retry_at: datetime
    message: str
    needs_help: bool

    def waits(self, path: Path, now: datetime) -> bool:
        """Return whether the file at ``path`` is as the run left it, and its time has not come."""
        # A clock that was set back must not keep a file waiting: no wait is longer than the longest.
        return timedelta(0) < self.retry_at - now <= STUCK_RETRY and _mark(path) == self.mark

    def as_json(self) -> dict[str, Any]:
        """Return it as the catalog keeps it."""
        return {
            "mark": list(self.mark),
            "retry_at": self.retry_at.isoformat(),
            "message": self.message,
            "needs_help": self.needs_help,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read it from the catalog's value."""
        retry_at = datetime.fromisoformat(values["retry_at"])
        return cls(tuple(values["mark"]), retry_at, values["message"], values["needs_help"])


@dataclass(frozen=True, slots=True)
class SkippedRecord:
    """The files that the last run skipped, by name. ``folders``: the rights of the spool and of the quarantine then."""

    folders: tuple[Mark | None, ...] = ()
    files: Mapping[str, SkippedFile] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return it as the catalog keeps it."""
        folders = [None if rights is None else list(rights) for rights in self.folders]
        return {"folders": folders, "files": {name: file.as_json() for name, file in self.files.items()}}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read it from the catalog's value."""
        folders = tuple(None if rights is None else tuple(rights) for rights in values["folders"])
        return cls(folders, {name: SkippedFile.from_json(file) for name, file in values["files"].items()})


class SkippedFiles:
    """The files that one run skips. At the run's end they take the place of those that the run before skipped."""

    def __init__(self, spool: Spool, catalog: Catalog, clock: Callable[[], datetime]) -> None:
        self._spool = spool
        self._catalog = catalog
        self._clock = clock
        self._files: dict[str, SkippedFile] = {}

    def add(self, file: SpoolFile, message: str, *, needs_help: bool) -> None:
        """Note a file that is skipped. ``needs_help``: a person has to mend something first."""
        mark = _mark(self._spool.path(file))
        if mark is None or mark[: len(file.identity)] != file.identity:
            return  # it changed after the run looked at it, and is due
        retry_at = self._clock() + (STUCK_RETRY if needs_help else SKIPPED_RETRY)
        self._files[file.name.name] = SkippedFile(mark, retry_at, message, needs_help)

    def save(self) -> None:
        """Write them to the catalog for the sensor and the health rules. Raises: CatalogError."""
        files = {name: file for name, file in self._files.items() if file.mark == _mark(self._spool.folder / name)}
        if files:
            self._catalog.values.put(_KEY, SkippedRecord(_folders(self._spool), files).as_json())
        elif self._catalog.values.get(_KEY) is not None:
            self._catalog.values.remove(_KEY)


def skipped_names(spool: Spool, catalog: Catalog, ready: Iterable[SpoolFile], now: datetime) -> frozenset[str]:
    """Return the names of the files that a run can do nothing about now: they are as the last run left them.

    A file that has changed in any way is due, and all files are due when the folders' rights changed.

    Raises: CatalogError.
    """
    files = list(ready)
    record = _last_record(catalog) if files else SkippedRecord()
    if record.folders != _folders(spool):
        return frozenset()
    return frozenset(
        file.name.name
        for file in files
        if file.name.name in record.files and record.files[file.name.name].waits(spool.path(file), now)
    )


def stuck_files(catalog: Catalog) -> dict[str, str]:
    """Return the last run's message for each file that needs a person, by name. Raises: CatalogError."""
    return {name: file.message for name, file in _last_record(catalog).files.items() if file.needs_help}


def _last_record(catalog: Catalog) -> SkippedRecord:
    value = catalog.values.get(_KEY)
    return SkippedRecord() if value is None else SkippedRecord.from_json(value)


def _mark(path: Path) -> Mark | None:
    """Return a file's mark; None where it is gone."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _folders(spool: Spool) -> tuple[Mark | None, ...]:
    return _rights(spool.folder), _rights(spool.quarantine_folder)


def _rights(folder: Path) -> Mark | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mode, status.st_uid, status.st_gid
