"""Checks our own files: the lock, the catalog, the quarantine, and the spool's files with other names."""

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Final

from wal_pipeline.archive.alerts import AlertKind
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.commands.archive_push.events import QuarantineReason
from wal_pipeline.commands.check.item import CheckItem, try_item
from wal_pipeline.errors import InvalidWalFileError, SpoolError
from wal_pipeline.spool import Spool, SpoolListing
from wal_pipeline.wal.names import parse_file_name
from wal_pipeline.wal.page_header import LONG_HEADER_BYTES, check_segment

_PROBE: Final = "check.probe"
_MOST_NAMED: Final = 5


def check_lock(spool: Spool) -> CheckItem:
    """Check whether the lock can be taken, without delaying a run."""
    return try_item("spool: lock", lambda: "an archiving run holds it" if spool.busy() else "it can be taken")


def check_other_names(listing: Callable[[], SpoolListing]) -> CheckItem:
    """Check the names in the spool that are never archived."""
    return try_item("spool: other names", lambda: _other_names(listing().foreign))


def check_catalog(open_catalog: Callable[[], Catalog], spool: Spool) -> tuple[CheckItem, ...]:
    """Check whether the catalog can be written, and whether files in quarantine can be archived after all."""
    opened: list[Catalog] = []

    def write() -> str:
        catalog = open_catalog()
        catalog.values.put(_PROBE, {})
        catalog.values.remove(_PROBE)
        opened.append(catalog)
        return "it can be read and written"

    written = try_item("catalog", write)
    if not opened:
        return (written,)
    return written, try_item("quarantine", lambda: _quarantine(whole_in_quarantine(opened[0]), spool))


def whole_in_quarantine(catalog: Catalog) -> list[Path]:
    """Return the files that were moved to quarantine half written and are whole now. Raises: CatalogError."""
    alerts = [alert for alert in catalog.alerts.active() if alert.kind is AlertKind.QUARANTINE]
    halves = [alert.details for alert in alerts if alert.details.get("reason") == QuarantineReason.NOT_WHOLE.value]
    return [path for details in halves if _is_whole(path := Path(str(details.get("path", ""))))]


def _is_whole(path: Path) -> bool:
    name = parse_file_name(path.name[:24])
    if name is None:
        return False
    try:
        with path.open("rb") as file:
            check_segment(name, file.read(LONG_HEADER_BYTES), os.fstat(file.fileno()).st_size, None)
    except (OSError, InvalidWalFileError):
        return False
    return True


def _quarantine(whole: list[Path], spool: Spool) -> str:
    if not whole:
        return "no file in quarantine has become whole"
    lines = [f"mv -n {shlex.quote(str(path))} {shlex.quote(str(spool.folder / path.name[:24]))}" for path in whole]
    raise SpoolError(
        f"{len(whole)} files were moved to quarantine as halves and are whole now, the first '{whole[0].name}'",
        hint=f"Their copy went on after that. Type: {' && '.join(lines[:_MOST_NAMED])}",
    )


def _other_names(foreign: tuple[str, ...]) -> str:
    if not foreign:
        return "none"
    shown = ", ".join(f"'{name}'" for name in foreign[:_MOST_NAMED]) + (", …" if len(foreign) > _MOST_NAMED else "")
    meant = [name for name in foreign if _is_meant_as_wal(name)]
    if not meant:
        return f"{len(foreign)} are left alone: {shown}"
    raise SpoolError(
        f"{len(foreign)} names in the spool are never archived: {shown}",
        hint="A file of the archive is a plain file under PostgreSQL's own name: archive_command must neither compress "
        "nor link nor rename.",
    )


def _is_meant_as_wal(name: str) -> bool:
    return any(parse_file_name(start) is not None for start in (name, name[:24], name[:16]))
