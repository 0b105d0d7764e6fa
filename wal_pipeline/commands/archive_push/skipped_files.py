"""Files that an archiving run had to leave in the spool: no run is started for them alone before something changes."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.spool import Spool, SpoolFile

# A disk that was full or a mount that was gone may be mended without any change to the file.
STUCK_RETRY: Final = timedelta(hours=1)
LEFT_RETRY: Final = timedelta(minutes=1)
_KEY: Final = "spool.left"


class SkippedFiles:
    """What one run left in the spool, written down at its end in the place of what the run before it left."""

    def __init__(self, spool: Spool, catalog: Catalog, clock: Callable[[], datetime]) -> None:
        self._spool = spool
        self._catalog = catalog
        self._clock = clock
        self._files: dict[str, dict[str, Any]] = {}

    def add(self, file: SpoolFile, message: str, *, needs_help: bool) -> None:
        """Note a file that was left. ``needs_help``: a person has to mend something first."""
        mark = _mark(self._spool.path(file))
        if mark is None or tuple(mark[: len(file.identity)]) != file.identity:
            return  # it changed since it was looked at, and is due
        retry_at = self._clock() + (STUCK_RETRY if needs_help else LEFT_RETRY)
        told = {"message": message, "needs_help": needs_help}
        self._files[file.name.name] = {"mark": mark, "retry_at": retry_at.isoformat(), **told}

    def save(self) -> None:
        """Write it down for the sensor and the health rules. Raises: CatalogError."""
        files = {name: left for name, left in self._files.items() if left["mark"] == _mark(self._spool.folder / name)}
        if files:
            self._catalog.values.put(_KEY, {"folders": _folders(self._spool), "files": files})
        elif self._catalog.values.get(_KEY) is not None:
            self._catalog.values.remove(_KEY)


def left_names(spool: Spool, catalog: Catalog, ready: Iterable[SpoolFile], now: datetime) -> frozenset[str]:
    """Return those of the spool's files for which nothing can be done now: they are as the last run left them.

    One that has changed in any way is due, and so are all of them when the folders' rights did. Raises: CatalogError.
    """
    files = list(ready)
    value = catalog.values.get(_KEY) if files else None
    if value is None or value["folders"] != _folders(spool):
        return frozenset()
    left = value["files"]
    return frozenset(
        file.name.name
        for file in files
        if file.name.name in left and _is_as_left(spool.path(file), left[file.name.name], now)
    )


def stuck_files(catalog: Catalog) -> dict[str, str]:
    """Return what the last run said of each file that needs a person, by name. Raises: CatalogError."""
    value = catalog.values.get(_KEY)
    files: Mapping[str, Any] = {} if value is None else value["files"]
    return {name: left["message"] for name, left in files.items() if left["needs_help"]}


def _is_as_left(path: Path, left: Mapping[str, Any], now: datetime) -> bool:
    # A clock that was set back must not keep a file waiting: no wait is longer than the longest.
    wait = datetime.fromisoformat(left["retry_at"]) - now
    return timedelta(0) < wait <= STUCK_RETRY and _mark(path) == left["mark"]


def _mark(path: Path) -> list[int] | None:
    """Return what changes when a file's content, owner or rights do; None where it is gone."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _folders(spool: Spool) -> list[list[int] | None]:
    return [_rights(spool.folder), _rights(spool.quarantine_folder)]


def _rights(folder: Path) -> list[int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return [status.st_dev, status.st_ino, status.st_mode, status.st_uid, status.st_gid]
