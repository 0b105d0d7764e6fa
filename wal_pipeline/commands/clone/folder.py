"""Keeps a clone's folder: made once, marked as ours, locked while it changes, and removed whole."""

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from wal_pipeline.commands.beside.left_server import stop_server_in
from wal_pipeline.commands.beside.scratch_folder import PGDATA
from wal_pipeline.commands.beside.scratch_server import SOCKET_FOLDER
from wal_pipeline.commands.clone.record import CloneRecord
from wal_pipeline.errors import PostgresError, RestoreError
from wal_pipeline.host.durable_file import write_whole
from wal_pipeline.postgres.postmaster import find_server

MARK: Final = ".wal-pipeline-clone"
KEEPER: Final = "keeper.lock"
_RECORD: Final = "clone.json"
_SOCKET_BYTES: Final = 107  # unix(7): sun_path without its null
_HINT: Final = "WAL_PIPELINE_CLONE_FOLDER names another folder for clones."


class CloneBusyError(RestoreError):
    """Another command is making, moving or ending this clone."""

    is_refusal = True


def make_clone_root(root: Path) -> None:
    """Make the folder below which clones stand. PostgreSQL's user passes through it; nobody else may write there.

    Raises: RestoreError.
    """
    try:
        if not os.path.lexists(root):
            root.mkdir(parents=True)
            root.chmod(0o755)
        found = root.lstat()
    except OSError as error:
        raise RestoreError(f"the folder for clones '{root}' cannot be made: {error.strerror}", hint=_HINT) from error
    if not stat.S_ISDIR(found.st_mode):
        raise RestoreError(f"the folder for clones '{root}' is not a folder", hint=_HINT)
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise RestoreError(
            f"the folder for clones '{root}' is another user's, or others may write in it",
            hint=f"Nobody else may put something beside a clone, which is removed whole. {_HINT}",
        )


def clone_folders(root: Path) -> list["CloneFolder"]:
    """Return the clones' folders below ``root``, by name: those that carry our mark. ``root`` may be missing.

    Raises: RestoreError where it cannot be read.
    """
    try:
        names = sorted(path.name for path in root.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RestoreError(f"the folder for clones '{root}' cannot be read: {error.strerror}", hint=_HINT) from error
    return [folder for folder in (CloneFolder(root, name) for name in names) if folder.is_marked]


def clone_of(pgdata: Path) -> str | None:
    """Return the name of the clone whose data directory this is; None where it is no clone's."""
    for folder in pgdata.resolve().parents:
        if (folder / MARK).is_file():
            return folder.name
    return None


class CloneFolder:
    """The folder of one clone: ``NAME/1/pgdata`` with what belongs to it, and ``NAME/2`` after a move.

    ``socket`` is a link to the socket folder of the generation that stands, so that a move changes no address.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        self.name = name
        self.path = root / name
        self.socket = self.path / SOCKET_FOLDER

    @property
    def is_marked(self) -> bool:
        """Whether it is a folder with our mark, and no link."""
        try:
            return stat.S_ISDIR(self.path.lstat().st_mode) and stat.S_ISREG((self.path / MARK).lstat().st_mode)
        except OSError:
            return False

    def generation(self, number: int) -> Path:
        """Return the folder of one generation's files."""
        return self.path / str(number)

    def pgdata(self, number: int) -> Path:
        """Return the data directory of one generation."""
        return self.generation(number) / PGDATA

    def require_short_path(self, port: int) -> None:
        """Refuse a folder below which no socket can be made. Raises: RestoreError."""
        longest = os.fsencode(self.generation(99) / SOCKET_FOLDER / f".s.PGSQL.{port}")
        if len(longest) > _SOCKET_BYTES:
            raise RestoreError(
                f"the path of the clone's socket '{os.fsdecode(longest)}' has {len(longest)} bytes, expected at most "
                f"{_SOCKET_BYTES}",
                hint=f"{_HINT} A shorter --name helps too.",
            )

    @contextmanager
    def made(self) -> Iterator[None]:
        """Make the folder and hold its lock; it is removed again where the block raises.

        Raises: FileExistsError where there is one of that name, RestoreError.
        """
        with suppress(OSError):
            self.path.rmdir()  # one that was killed before it made its mark
        self.path.mkdir(mode=0o711)
        self.path.chmod(0o711)
        mark = os.open(self.path / MARK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                yield
            except BaseException:
                self.remove()
                raise
        finally:
            os.close(mark)

    @contextmanager
    def locked(self, *, wait: bool = False) -> Iterator[None]:
        """Hold the clone's lock. ``wait``: until whoever has it gives it back.

        Raises: CloneBusyError where another has it, RestoreError where the clone is gone, or not our user's.
        """
        gone = RestoreError(f"there is no clone '{self.name}'", hint="'wal-pipeline clone list' shows all.")
        try:
            mark = os.open(self.path / MARK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except PermissionError as error:
            raise RestoreError(
                f"the clone '{self.name}' is another user's", hint="Run this as the user who made it."
            ) from error
        except OSError:
            raise gone from None
        try:
            self._require_own(mark)
            try:
                fcntl.flock(mark, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise CloneBusyError(
                    f"another command is making, moving or ending the clone '{self.name}'",
                    hint="Wait until it has ended: 'wal-pipeline clone list' shows it.",
                ) from None
            if not _is_same(mark, self.path / MARK):  # it was ended while we waited
                raise gone
            yield
        finally:
            os.close(mark)

    def _require_own(self, mark: int) -> None:
        ours = os.geteuid()
        if self.path.is_symlink() or self.path.stat().st_uid != ours or os.fstat(mark).st_uid != ours:
            raise RestoreError(f"the clone '{self.name}' is another user's", hint="Run this as the user who made it.")

    def read(self) -> CloneRecord | None:
        """Return the clone's record; None where there is none yet. Raises: RestoreError where it cannot be read."""
        path = self.path / _RECORD
        try:
            return CloneRecord.from_json(path.read_bytes(), path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RestoreError(f"'{path}' cannot be read: {error.strerror}") from error

    def require_record(self) -> CloneRecord:
        """Return the clone's record. Raises: RestoreError where there is none."""
        record = self.read()
        if record is None:
            raise RestoreError(
                f"the clone '{self.name}' was never finished", hint=f"'wal-pipeline clone stop {self.name}' removes it."
            )
        return record

    def write(self, record: CloneRecord) -> None:
        """Put the record into the folder; from now on the clone stands. Raises: RestoreError."""
        try:
            write_whole(record.to_json(), self.path / _RECORD, mode=0o644)
        except OSError as error:
            raise RestoreError(f"'{self.path / _RECORD}' cannot be written: {error.strerror}") from error

    def point_socket(self, number: int) -> None:
        """Let ``socket`` mean the socket folder of a generation. Raises: RestoreError."""
        temporary = self.path / f"{SOCKET_FOLDER}.new"
        try:
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(f"{number}/{SOCKET_FOLDER}")
            temporary.replace(self.socket)
        except OSError as error:
            raise RestoreError(f"'{self.socket}' cannot be made: {error.strerror}") from error

    def stop_server(self, number: int) -> None:
        """Stop the server of a generation; nothing where none runs. Raises: RestoreError where one goes on."""
        pgdata = self.pgdata(number)
        hint = f"Stop the server that runs in '{pgdata}' yourself, then: 'wal-pipeline clone stop {self.name}'."
        stop_server_in(pgdata, whose=f"the clone '{self.name}'", hint=hint)
        try:
            found = find_server(pgdata)
        except PostgresError as error:
            raise RestoreError(error.message, hint=hint) from error
        if found is not None:  # of another container: its files must stay as long as it runs
            raise RestoreError(found.message, hint=hint)

    def remove_generation(self, number: int) -> None:
        """Stop a generation's server, and remove its files. Raises: RestoreError."""
        self.stop_server(number)
        try:
            shutil.rmtree(self.generation(number))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self._left(error) from error

    def remove(self) -> None:
        """Stop the clone's servers and remove its folder, the mark last. Our caller holds the lock.

        Raises: RestoreError where a server does not stop, or something cannot be removed: then the mark stays.
        """
        numbers = [int(path.name) for path in self.path.iterdir() if path.name.isdigit()]
        for number in numbers:
            self.remove_generation(number)
        try:
            for path in self.path.iterdir():
                if path.name != MARK:
                    path.unlink()
            (self.path / MARK).unlink()
            self.path.rmdir()
        except OSError as error:
            raise self._left(error) from error

    def _left(self, error: OSError) -> RestoreError:
        return RestoreError(
            f"the clone '{self.name}' cannot be removed: '{error.filename or self.path}': "
            f"{os.strerror(error.errno or errno.EIO)}",
            hint=f"When the reason is gone: 'wal-pipeline clone stop {self.name}'.",
        )


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except OSError:
        return False
