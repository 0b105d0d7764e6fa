"""Writes a dump so that it is there whole or not at all, and proves that every row arrived in it."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from wal_pipeline.commands.rescue.tables import FoundTable
from wal_pipeline.commands.rescue.wanted import RescueOptionError
from wal_pipeline.errors import RestoreError
from wal_pipeline.host.durable_file import NewFile, new_file
from wal_pipeline.host.mounts import is_writable


def check_output(path: Path) -> None:
    """Refuse a place where the dump cannot be written, before anything is restored. Raises: RescueOptionError."""
    if path.is_symlink() or path.exists():
        raise RescueOptionError(f"'{path}' exists, and is not written over.", hint="Name a new file.")
    if not path.parent.is_dir() or not is_writable(path.parent):
        raise RescueOptionError(f"no file can be written into '{path.parent}'.", hint="Name a file in another folder.")


@contextmanager
def whole_dump(path: Path) -> Iterator[NewFile]:
    """Give a new file that takes the name ``path`` at the end of the block. Raises: RestoreError."""
    try:
        with new_file(path) as file:
            yield file
    except FileExistsError:
        raise RestoreError(
            f"'{path}' was made by somebody else meanwhile, and is not written over", hint="Name a new file."
        ) from None
    except OSError as error:
        raise RestoreError(f"the dump '{path}' cannot be written: {error.strerror or error}") from error


def require_rows(
    expected: Mapping[tuple[str, str], int], arrived: Mapping[tuple[str, str], int], tables: Iterable[FoundTable]
) -> None:
    """Refuse rows that did not arrive. Raises: RestoreError with the first table whose numbers differ."""
    for table in tables:
        found = arrived.get(table.pair, 0)
        if found != expected[table.pair]:
            raise RestoreError(
                f"of '{table.shown}' {found} rows arrived, expected {expected[table.pair]}",
                hint="Do not use what arrived: try again, and look into the log of the target server if it was loaded.",
            )
