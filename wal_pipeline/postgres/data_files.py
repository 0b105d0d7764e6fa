"""Walks a running cluster's data directory and yields what a base backup holds, as PostgreSQL's basebackup.c does."""

import errno
import os
import re
import stat
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from wal_pipeline.errors import BaseBackupError
from wal_pipeline.postgres.backup_words import is_needed
from wal_pipeline.postgres.control_file import read_control_file
from wal_pipeline.postgres.relation_file import file_oid, is_temporary_relation, parse_relation_file

CONTROL_PATH: Final = "global/pg_control"
# basebackup.c: excludeDirContents. Such a folder is kept, empty, wherever it lies; a link becomes a folder.
_EMPTIED: Final = frozenset(
    ("pg_stat_tmp", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_subtrans")
)
# basebackup.c: excludeFiles, wherever they lie. Names that begin with pg_internal.init are left out too.
_LEFT_OUT: Final = frozenset(
    (
        *("postgresql.auto.conf.tmp", "current_logfiles.tmp", "backup_label", "tablespace_map", "backup_manifest"),
        *("postmaster.pid", "postmaster.opts", ".DS_Store"),
    )
)
_LEFT_OUT_PREFIXES: Final = ("pgsql_tmp", "pg_internal.init")
_RESCUED: Final = "lost+found"  # the file system's own, where the data directory is a mount point
_WAL: Final = "pg_wal"
_SPACES: Final = "pg_tblspc"
_SUMMARIES_SINCE: Final = 17
_SOCKET: Final = re.compile(r"\.s\.PGSQL\.\d+(\.lock)?")
_DATABASE: Final = re.compile(r"(?:base|pg_tblspc/[0-9]+/PG_[^/]+)/([0-9]+)")
_GROUP_BITS: Final = 0o070
_GONE: Final = (errno.ENOENT, errno.ENOTDIR)


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file or folder of the data directory. ``path`` is relative to it, ``source`` is where it is read.

    ``size_bytes``, ``modified_ns`` (since 1970) and ``mode`` (permission bits) are as they were when the walk came by.
    ``relation``: it consists of pages, whose checksums can be verified. ``database`` is the oid of the database whose
    folder it is or lies in; None outside of those.
    """

    path: str
    source: Path
    size_bytes: int
    modified_ns: int
    mode: int
    is_folder: bool = False
    relation: bool = False
    database: int | None = None


@dataclass(slots=True)
class SkippedEntries:
    """Collects what a walk could not take. ``lost``: a cluster without these paths is not whole."""

    lost: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def special(self, path: str) -> None:
        """Take a symbolic link or a special file. The sockets of a server are no loss."""
        if is_needed(path):
            self.lost.append(path)
        elif not _SOCKET.fullmatch(path.rpartition("/")[2]):
            self.warnings.append(f'skipping special file "./{path}"')  # basebackup.c's own words


def walk_data_files(pgdata: Path, major: int, skipped: SkippedEntries | None = None) -> Iterator[DataFile]:
    """Yield the files and folders of a base backup of the running cluster in ``pgdata``.

    ``major`` is the server's major version (15 to 18). ``global/pg_control`` is not among them: it is read after all
    others. Every folder is yielded, also one with files, so that it is there when its files vanish before they are
    read. What vanishes during the walk is left out; WAL replay brings it to the state that it needs. Links and special
    files are collected in ``skipped``; only the links of tablespaces are followed, into the folder of this version.

    Raises: BaseBackupError where a folder or file cannot be looked at, PostgresError where pg_control cannot be read.
    """
    yield from _Walk(pgdata, major, skipped if skipped is not None else SkippedEntries()).everything()


class _Walk:
    def __init__(self, pgdata: Path, major: int, skipped: SkippedEntries) -> None:
        self._pgdata = pgdata
        self._major = major
        self._skipped = skipped
        self._made_mode = _folder_mode(pgdata)
        self._spaces_inside = frozenset(self._find_spaces_inside())

    def everything(self) -> Iterator[DataFile]:
        yield from self._folder("")
        yield from self._tablespaces()

    def _folder(self, folder: str) -> Iterator[DataFile]:
        """Yield what lies in a folder, which itself was yielded before."""
        entries = self._entries(folder)
        names = {entry.name for entry in entries}
        found = _DATABASE.fullmatch(folder)
        database = int(found[1]) if found else None
        has_relations = database is not None or folder == "global"
        within = int(found[1]) if (found := _DATABASE.match(folder)) else None
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if _is_left_out(entry.name) or path == CONTROL_PATH:
                continue
            relation = parse_relation_file(entry.name) if has_relations else None
            if relation is not None and relation.fork != "init" and self._is_unlogged(folder, relation.number, names):
                continue  # recovery makes it anew from its init fork
            if database is not None and is_temporary_relation(entry.name):
                continue
            yield from self._entry(entry, path, relation is not None, within)

    def _is_unlogged(self, folder: str, number: int, names: Container[str]) -> bool:
        """Whether a relation has an init fork, also one that came after the folder was listed (``names``).

        What slips through is an index that is being built now: see ``unlogged_rest``.
        """
        name = f"{number}_init"
        return name in names or os.path.lexists(self._pgdata / folder / name)

    def _entry(self, entry: "os.DirEntry[str]", path: str, relation: bool, database: int | None) -> Iterator[DataFile]:
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError as error:
            if error.errno in _GONE:
                return
            raise _unreadable(self._pgdata / path, error) from error
        kind = status.st_mode
        if path == _RESCUED and stat.S_ISDIR(kind) and status.st_uid == 0:
            return
        if entry.name in _EMPTIED and (stat.S_ISDIR(kind) or stat.S_ISLNK(kind)):
            yield self._made_folder(path, status, database)
        elif path == _WAL and (stat.S_ISDIR(kind) or stat.S_ISLNK(kind)):
            below = ("archive_status", *(["summaries"] if self._major >= _SUMMARIES_SINCE else []))
            yield self._made_folder(path, status)
            for name in below:
                yield self._made_folder(f"{path}/{name}", status)
        elif stat.S_ISDIR(kind):
            folder_of = int(found[1]) if (found := _DATABASE.fullmatch(path)) else database
            yield self._file(path, status, is_folder=True, database=folder_of)
            if path != _SPACES and path not in self._spaces_inside:
                yield from self._folder(path)
        elif stat.S_ISREG(kind):
            yield self._file(path, status, relation=relation, database=database)
        else:
            self._skipped.special(path)

    def _tablespaces(self) -> Iterator[DataFile]:
        """Yield the folders of this version in all tablespaces, also in those that lie in ``pg_tblspc`` itself."""
        oids = [entry.name for entry in self._entries(_SPACES) if file_oid(entry.name) is not None]
        if not oids:
            return
        version = f"PG_{self._major}_{read_control_file(self._pgdata).catalog_version}"
        for oid in oids:
            path = f"{_SPACES}/{oid}/{version}"
            source = self._pgdata / path
            try:
                status = source.lstat()
            except OSError as error:
                if error.errno not in _GONE:
                    raise _unreadable(source, error) from error
                self._judge_missing_space(oid, version)
                continue
            if stat.S_ISDIR(status.st_mode):
                yield self._file(path, status, is_folder=True)
                yield from self._folder(path)
            else:
                self._skipped.special(path)

    def _judge_missing_space(self, oid: str, version: str) -> None:
        """Tell of a tablespace without its folder, such as one on a disk that forgets; a dropped one is none."""
        link = self._pgdata / _SPACES / oid
        if link.is_symlink() or link.exists():
            place = f"'{link.readlink()}'" if link.is_symlink() else f"'{link}'"
            self._skipped.warnings.append(
                f"tablespace {oid} has no folder '{version}' in {place}: none of its files are in the base backup"
            )

    def _find_spaces_inside(self) -> Iterator[str]:
        """Yield the folders in the data directory that are tablespaces, whose files are yielded under their oid."""
        real = Path(os.path.realpath(self._pgdata))
        for entry in self._entries(_SPACES):
            if entry.is_symlink():
                target = Path(os.path.realpath(entry.path))
                if target.is_relative_to(real) and target != real:
                    yield str(target.relative_to(real))

    def _entries(self, folder: str) -> list["os.DirEntry[str]"]:
        path = self._pgdata / folder
        try:
            with os.scandir(path) as found:
                return sorted(found, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            if folder and error.errno in _GONE:
                return []  # dropped meanwhile
            raise _unreadable(path, error) from error

    def _made_folder(self, path: str, status: os.stat_result, database: int | None = None) -> DataFile:
        """Return a folder that is stored without its content; a link becomes a folder as the server would make it."""
        if stat.S_ISLNK(status.st_mode):
            source, mode = self._pgdata / path, self._made_mode
            return DataFile(path, source, 0, status.st_mtime_ns, mode, is_folder=True, database=database)
        return self._file(path, status, is_folder=True, database=database)

    def _file(
        self,
        path: str,
        status: os.stat_result,
        *,
        is_folder: bool = False,
        relation: bool = False,
        database: int | None = None,
    ) -> DataFile:
        size_bytes = 0 if is_folder else status.st_size
        mode = stat.S_IMODE(status.st_mode)
        return DataFile(path, self._pgdata / path, size_bytes, status.st_mtime_ns, mode, is_folder, relation, database)


def _folder_mode(pgdata: Path) -> int:
    """Return the permissions that the server gives to folders (file_perm.h: pg_dir_create_mode)."""
    try:
        return 0o750 if pgdata.stat().st_mode & _GROUP_BITS else 0o700
    except OSError as error:
        raise _unreadable(pgdata, error) from error


def _is_left_out(name: str) -> bool:
    return name in _LEFT_OUT or name.startswith(_LEFT_OUT_PREFIXES)


def _unreadable(path: Path, error: OSError) -> BaseBackupError:
    return BaseBackupError(
        f"'{path}' cannot be read: {error.strerror}",
        hint="The user of this program must be able to read all that lies in the data directory and its tablespaces: "
        "run it as PostgreSQL's user, or move out what is not the cluster's (such as 'lost+found').",
    )
