"""Fills the disk under an SQLite catalog: by SQLite's own limit of pages, or with a small disk in memory."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import Connection, Engine, event

_NO_LIMIT = 2**31 - 2


class PageLimit:
    """Stops the growth of this process's SQLite databases while ``is_full``. SQLite reports it as a full disk."""

    def __init__(self) -> None:
        self.is_full = False

    def __enter__(self) -> "PageLimit":
        event.listen(Engine, "begin", self._limit)
        return self

    def __exit__(self, *_: object) -> None:
        event.remove(Engine, "begin", self._limit)

    def _limit(self, connection: Connection) -> None:
        if connection.dialect.name == "sqlite":
            pages = 1 if self.is_full else _NO_LIMIT  # a limit below the present number stops growth at that number
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Path | None]:
    """Mount a disk of this size on a folder; None where this user may not."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", folder], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path) -> None:
    """Fill every free byte of a disk."""
    descriptor = os.open(folder / "ballast", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with suppress(OSError):
        while True:
            os.write(descriptor, bytes(4096))
    os.close(descriptor)
