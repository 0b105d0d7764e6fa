"""Take a base backup's tar apart, safely: nothing is ever written outside the folder that was named."""

import os
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from wal_pipeline.errors import RestoreError

PG_CONTROL: Final = "global/pg_control"
HELD_BACK: Final = "global/pg_control.wal-pipeline-restore"
_COPY_BYTES: Final = 1 << 20
_MODE_LIMIT: Final = 0o750  # PostgreSQL starts with 0700 or, where the cluster lets its group read, 0750
Sink = Callable[[bytes], object]


def untar(produce: Callable[[Sink], object], folder: Path) -> None:
    """Extract the tar whose bytes ``produce`` passes to its sink, in a thread of its own.

    ``global/pg_control`` is put under another name, so that no server can start on a folder that is not complete.

    Raises: RestoreError for a tar that is damaged or would write elsewhere, and whatever ``produce`` raises.
    """
    with _piped(produce) as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                for member in tar:
                    _extract(tar, member, folder)
            while stream.read(_COPY_BYTES):  # the padding after the tar's end
                pass
        except tarfile.TarError as error:
            raise RestoreError(f"the base backup's tar is damaged: {error}") from error
        except OSError as error:
            raise RestoreError(f"'{error.filename or folder}' cannot be written: {error.strerror}") from error


@contextmanager
def _piped(produce: Callable[[Sink], object]) -> Iterator[BinaryIO]:
    """Turn a producer into a stream; its error is raised in the place of what followed from it."""
    failures: list[BaseException] = []
    reader, writer = os.pipe()

    def work() -> None:
        try:
            with open(writer, "wb", buffering=_COPY_BYTES) as sink:  # noqa: PTH123 - a pipe's end
                produce(sink.write)
        except BrokenPipeError:
            pass  # the reader gave up, and says why
        except BaseException as error:  # noqa: BLE001 - raised again below, in the reader's thread
            failures.append(error)

    thread = threading.Thread(target=work, name="open-base-backup", daemon=True)
    thread.start()
    try:
        with open(reader, "rb", buffering=_COPY_BYTES) as stream:  # noqa: PTH123
            yield stream
    except RestoreError:
        thread.join()
        if failures:
            raise failures[0] from None
        raise
    thread.join()
    if failures:
        raise failures[0]


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    path = folder / safe_name(member.name)
    if path == folder / PG_CONTROL:
        path = folder / HELD_BACK
    if member.isdir():
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod((member.mode & _MODE_LIMIT) | 0o700)
        return
    if not member.isreg():
        raise RestoreError(
            f"the base backup's tar holds '{member.name}' of type {member.type!r}, expected only files and folders"
        )
    source = tar.extractfile(member)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as target:  # noqa: PTH123 - the descriptor was opened with its own flags
        if source is not None:
            shutil.copyfileobj(source, target, _COPY_BYTES)
        os.fchmod(descriptor, (member.mode & _MODE_LIMIT & ~0o111) | 0o600)


def safe_name(name: str) -> str:
    """Return a member's name where it stays below the folder.

    Raises: RestoreError.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise RestoreError(f"the base backup's tar holds the name '{name}', expected one below the data directory")
    return "/".join(parts)


def release_pg_control(pgdata: Path) -> None:
    """Give ``global/pg_control`` its name: from now on a server can start on the folder. Raises: RestoreError."""
    try:
        (pgdata / HELD_BACK).replace(pgdata / PG_CONTROL)
    except OSError as error:
        raise RestoreError(f"the base backup has no file '{PG_CONTROL}'") from error


def hold_back_pg_control(pgdata: Path) -> None:
    """Take the name away again: the folder turned out not to be right."""
    with suppress(OSError):
        (pgdata / PG_CONTROL).replace(pgdata / HELD_BACK)
