"""Looks for what would end the first base backup, or leave something out of it: links, folders, tablespaces, stores."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wal_pipeline.commands.setup.findings import Finding, Level
from wal_pipeline.errors import PostgresError, StoreError
from wal_pipeline.postgres.backup_server import BackupServer
from wal_pipeline.postgres.backup_words import is_needed
from wal_pipeline.postgres.own_data_directory import LocalReading, judge_local_reading
from wal_pipeline.postgres.server_facts import ServerFacts
from wal_pipeline.stores.base import Store
from wal_pipeline.text import counted, size

_DATA: Final = "data directory"
_SPACES: Final = "tablespaces"
_METHOD: Final = "base backups"
# pg_basebackup follows or replaces these links (basebackup.c), and those of tablespaces.
_FOLLOWED: Final = frozenset(
    ("pg_wal", "pg_dynshmem", "pg_notify", "pg_replslot", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans")
)
_LOOKED_INTO: Final = ("", "base", "global")
_MOST_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class BackupLook:
    """Looks at what a base backup of one server needs. ``pgdata`` and ``staging_folder`` are on this host.

    ``reads_files``: base backups read the data directory themselves, where they can. ``incremental``: incremental base
    backups are scheduled.
    """

    server: BackupServer
    pgdata: Path | None
    staging_folder: Path
    reads_files: bool = False
    incremental: bool = False

    def findings(self, facts: ServerFacts) -> tuple[Finding, ...]:
        """Return what is found; what cannot be looked at from here is left out."""
        folder = self.pgdata or (Path(facts.data_directory) if facts.data_directory else None)
        found = [] if folder is None else list(judge_data_directory(folder, facts))
        if folder is None or not self.reads_files:
            return (*found, *self._tablespaces(), *self._summaries(facts))
        reading = self._reading(folder)
        found.append(judge_method(reading, facts))
        return tuple(found) if reading.is_possible else (*found, *self._tablespaces(), *self._summaries(facts))

    def _summaries(self, facts: ServerFacts) -> tuple[Finding, ...]:
        """Return the advice about WAL summaries, which only pg_basebackup's incremental base backups need."""
        return judge_summaries(facts) if self.incremental else ()

    def _reading(self, folder: Path) -> LocalReading:
        try:
            return judge_local_reading(self.server, folder)
        except PostgresError as error:
            return LocalReading(error.message, error.hint)

    def _tablespaces(self) -> Iterator[Finding]:
        try:
            spaces = self.server.tablespaces()
            if not spaces:
                return
            needed_bytes = self.server.size_bytes()
        except PostgresError as error:
            yield Finding(_SPACES, Level.WARNING, f"not known: {error.message}")
            return
        existing = next(path for path in (self.staging_folder, *self.staging_folder.parents) if path.exists())
        free_bytes = shutil.disk_usage(existing).free
        count = counted(len(spaces), "tablespace")
        staged = f"{count}: base backups are staged in '{self.staging_folder}', which needs"
        if needed_bytes is None:
            message = f"{staged} room for the whole cluster, whose size is not known; {size(free_bytes)} free"
            yield Finding(_SPACES, Level.WARNING, message)
            return
        message = f"{staged} {size(needed_bytes)} of {size(free_bytes)} free"
        if free_bytes >= needed_bytes:
            yield Finding(_SPACES, Level.OK, message)
            return
        line = "set WAL_PIPELINE_BASE_BACKUP_STAGING_FOLDER to a folder on a larger disk"
        yield Finding(_SPACES, Level.PROBLEM, message, lines=(line,))


def judge_method(reading: LocalReading, facts: ServerFacts) -> Finding:
    """Say how base backups are taken: from the files, or else through pg_basebackup, where the role may use that."""
    if reading.is_possible:
        return Finding(_METHOD, Level.OK, "they are read from the data directory, several files at once")
    lines = (reading.hint,) if reading.hint else ()
    if facts.role.replication:
        message = f"they come in one stream from pg_basebackup: {reading.obstacle}"
        return Finding(_METHOD, Level.WARNING, message, lines=lines)
    message = f"they cannot be taken: {reading.obstacle}; and role '{facts.role.name}' lacks REPLICATION, which "
    role = facts.role.name.replace('"', '""')
    replication = f'or let it use pg_basebackup: ALTER ROLE "{role}" REPLICATION;'
    return Finding(_METHOD, Level.PROBLEM, f"{message}pg_basebackup needs", lines=(*lines, replication))


def judge_summaries(facts: ServerFacts) -> tuple[Finding, ...]:
    """Find a server that could take incremental base backups through pg_basebackup, and keeps no WAL summaries."""
    if facts.summarize_wal is not False:
        return ()
    message = "incremental ones are scheduled, and each will be a full one: the server's 'summarize_wal' is 'off'"
    lines = ("ALTER SYSTEM SET summarize_wal = on;", "SELECT pg_reload_conf();")
    return (Finding(_METHOD, Level.WARNING, message, lines=lines),)


def judge_data_directory(pgdata: Path, facts: ServerFacts) -> Iterator[Finding]:
    """Name the links that a base backup leaves out, and the folders that the server cannot read.

    A data directory that is not on this host, or that we may not read, has no finding.
    """
    links = list(_links(pgdata))
    lost = [path for path in links if is_needed(path)]
    if lost:
        message = f"{_named(lost)} is a symbolic link: base backups lack what it points to, and so are refused"
        line = "stop the server and move it back into the data directory, or make it a tablespace"
        yield Finding(_DATA, Level.PROBLEM, message, lines=(line,))
    other = [path for path in links if path not in lost]
    if other:
        message = f"{_named(other)} is a symbolic link: no base backup has it, so a restored cluster lacks it"
        yield Finding(_DATA, Level.WARNING, message, lines=("keep a copy of it elsewhere",))
    closed = list(_unreadable(pgdata))
    if closed:
        message = f"{_named(closed)} cannot be read by PostgreSQL's user: every base backup fails"
        line = f"chown it to the user of the server, or move the data directory into a folder below '{pgdata}'"
        yield Finding(_DATA, Level.PROBLEM, message, lines=(line,))
    if not (lost or other or closed) and _may_look(pgdata, facts):
        yield Finding(_DATA, Level.OK, "a base backup has all that lies in it")


def judge_stores(stores: Mapping[str, Store], missing: Mapping[str, Sequence[str]]) -> tuple[Finding, ...]:
    """Ask each store whether it can be used. ``missing``: by store, the variables without which it cannot be asked."""
    unset = [
        Finding(f"store {name}", Level.PROBLEM, f"not asked: {', '.join(variables)} not set")
        for name, variables in missing.items()
        if variables
    ]
    return (*(_store(name, store) for name, store in stores.items()), *unset)


def _store(name: str, store: Store) -> Finding:
    try:
        store.check_access()
    except StoreError as error:
        lines = (error.hint,) if error.hint else ()
        return Finding(f"store {name}", Level.PROBLEM, error.message, lines=lines)
    return Finding(f"store {name}", Level.OK, "it answers")


def _links(pgdata: Path) -> Iterator[str]:
    for folder in _LOOKED_INTO:
        for entry in _entries(pgdata / folder):
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_symlink() and path not in _FOLLOWED:
                yield path


def _unreadable(pgdata: Path) -> Iterator[str]:
    """Yield the folders that belong to another user than the data directory's, and that this one may not read."""
    try:
        owner = pgdata.stat().st_uid
        for entry in _entries(pgdata):
            status = entry.stat(follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False) and status.st_uid != owner and not status.st_mode & 0o005:
                yield entry.name
    except OSError:
        return


def _entries(folder: Path) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError:
        return []


def _may_look(pgdata: Path, facts: ServerFacts) -> bool:
    return bool(_entries(pgdata)) and facts.data_directory in (None, str(pgdata))


def _named(paths: list[str]) -> str:
    shown = ", ".join(f"'{path}'" for path in paths[:_MOST_NAMED])
    return shown if len(paths) <= _MOST_NAMED else f"{shown} and {len(paths) - _MOST_NAMED} more"
