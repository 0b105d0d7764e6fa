"""Judges the rights in the spool: PostgreSQL must write there, we must read and remove there."""

import errno
import os
import pwd
import secrets
import shlex
import shutil
import stat
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from wal_pipeline.commands.setup.findings import Finding, Level
from wal_pipeline.errors import READ_ONLY_HINT, PostgresError, SpoolError, cause_hint
from wal_pipeline.host.file_owner import is_read_only, name_of_user
from wal_pipeline.postgres.server import PostgresServer
from wal_pipeline.postgres.server_facts import ServerFacts

PROBE_PREFIX: Final = ".wal-pipeline-probe."  # the dot keeps it from being taken for a WAL file


class ServerWrites(StrEnum):
    """The outcome of the server's try to write into the spool that we see."""

    YES = "yes"
    REFUSED = "refused"
    ELSEWHERE = "elsewhere"  # it wrote, but not into this folder: another host or container
    UNKNOWN = "unknown"


class FilesReadable(StrEnum):
    """Our right to read the files that the server archives: they are for its own user, perhaps for its group."""

    YES = "yes"
    WITH_GROUP_BIT = "with group bit"  # we share the group, but the server gives it no right to read
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class SpoolAccess:
    """The rights in the spool folder. ``writes_message`` is the server's own text where it refused.

    ``server_uid`` is the operating system user that runs the server, where it is known.
    """

    folder: Path
    exists: bool
    is_folder: bool = False
    we_can_read: bool = False
    we_can_remove: bool = False
    others_can_write: bool = False
    is_read_only: bool = False
    free_bytes: int = 0
    our_uid: int = 0
    server_uid: int | None = None
    server_writes: ServerWrites = ServerWrites.UNKNOWN
    writes_message: str = ""
    files_readable: FilesReadable = FilesReadable.UNKNOWN


def look_at_spool_access(folder: Path, server: PostgresServer | None, facts: ServerFacts | None) -> SpoolAccess:
    """Find out the rights in the spool. Where the role may, the server writes one small file there, which we remove."""
    server_uid = _owner_uid(facts.data_directory if facts else None)
    try:
        status = folder.stat()
    except OSError:
        return SpoolAccess(folder, exists=False, our_uid=os.geteuid(), server_uid=server_uid)
    access = SpoolAccess(
        folder,
        exists=True,
        is_folder=stat.S_ISDIR(status.st_mode),
        we_can_read=os.access(folder, os.R_OK | os.X_OK, effective_ids=True),
        we_can_remove=os.access(folder, os.W_OK | os.X_OK, effective_ids=True),
        others_can_write=bool(status.st_mode & stat.S_IWOTH),
        is_read_only=is_read_only(folder),
        free_bytes=shutil.disk_usage(folder).free,
        our_uid=os.geteuid(),
        server_uid=server_uid,
    )
    if not access.is_folder or server is None or facts is None:
        return access
    return _with_server(access, server, facts)


def make_spool(folder: Path, server_uid: int | None) -> None:
    """Make the spool for the server's user, with rights for that user alone.

    Raises: SpoolError where we are neither root nor that user, or the folder above is missing.
    """
    ours = os.geteuid()
    if server_uid is None or ours not in (0, server_uid):
        raise SpoolError(
            f"spool '{folder}' does not exist and cannot be made by user '{name_of_user(ours)}'",
            hint=f"Type: {install_line(folder, server_uid)}",
        )
    try:
        folder.mkdir(mode=0o700)
        if ours != server_uid:
            os.chown(folder, server_uid, _primary_group(server_uid))
    except OSError as error:
        raise SpoolError(
            f"spool '{folder}' cannot be made: {error.strerror}",
            hint=cause_hint(error) or f"Type: {install_line(folder, server_uid)}",
        ) from error


def install_line(folder: Path, server_uid: int | None) -> str:
    """Return the shell line that makes the spool with the right owner."""
    owner = _server_user(server_uid)
    return f"sudo install -d -o {owner} -m 0700 {shell_word(folder)}"


def shell_word(path: Path) -> str:
    """Return a path as one word of a shell line."""
    return shlex.quote(str(path))


def _server_user(uid: int | None) -> str:
    """Return the name of the server's user; PostgreSQL's usual one where it is not known."""
    return "postgres" if uid is None else name_of_user(uid)


def _with_server(access: SpoolAccess, server: PostgresServer, facts: ServerFacts) -> SpoolAccess:
    if not facts.role.can_write_files or not access.we_can_remove:
        return replace(access, files_readable=_readable(access.server_uid, None, facts))
    probe = access.folder / f"{PROBE_PREFIX}{secrets.token_hex(8)}"
    try:
        server.write_file(probe, "written by 'wal-pipeline' to see whether PostgreSQL can write here; remove it")
        written = probe.lstat()
        probe.unlink()
    except PostgresError as error:
        return replace(access, server_writes=ServerWrites.REFUSED, writes_message=error.message)
    except FileNotFoundError:
        return replace(access, server_writes=ServerWrites.ELSEWHERE)
    except OSError as error:
        return replace(access, server_writes=ServerWrites.YES, we_can_remove=False, writes_message=error.strerror or "")
    return replace(
        access,
        server_writes=ServerWrites.YES,
        server_uid=written.st_uid,
        files_readable=_readable(written.st_uid, written.st_gid, facts),
    )


def _readable(server_uid: int | None, group: int | None, facts: ServerFacts) -> FilesReadable:
    """Judge by the mode of the server's files: 0600, or 0640 after ``initdb --allow-group-access``."""
    ours = os.geteuid()
    if ours in (0, server_uid):
        return FilesReadable.YES
    if group is None:
        return FilesReadable.UNKNOWN
    if group not in {os.getegid(), *os.getgroups()}:
        return FilesReadable.NO
    return FilesReadable.YES if facts.group_access else FilesReadable.WITH_GROUP_BIT


def _owner_uid(data_directory: str | None) -> int | None:
    """Return the data directory's owner, who runs the server: PostgreSQL refuses to start as another user."""
    if data_directory is None:
        return None
    try:
        return Path(data_directory).stat().st_uid
    except OSError:
        return None


def _primary_group(uid: int) -> int:
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return -1


_NAME: Final = "spool"
_WRITES_NAME: Final = "spool: server writes"
_READS_NAME: Final = "spool: we read"


def judge_spool(access: SpoolAccess) -> tuple[Finding, ...]:
    """Judge the folder, then PostgreSQL's right to write there, then our right to read and remove."""
    if not access.exists:
        line = install_line(access.folder, access.server_uid)
        return (Finding(_NAME, Level.PROBLEM, f"'{access.folder}' does not exist", lines=(line,)),)
    if not access.is_folder:
        return (Finding(_NAME, Level.PROBLEM, f"'{access.folder}' is not a folder"),)
    if access.is_read_only:
        return (_folder(access),)  # no right of any user is wrong then
    return (_folder(access), _server_writes(access), _we_read(access))


def _folder(access: SpoolAccess) -> Finding:
    ours = name_of_user(access.our_uid)
    if access.is_read_only:
        message = f"'{access.folder}' is on a file system that is mounted read-only for this process"
        return Finding(_NAME, Level.PROBLEM, message, lines=(READ_ONLY_HINT,))
    if not access.we_can_read or not access.we_can_remove:
        missing = "read" if not access.we_can_read else "remove files from"
        message = f"user '{ours}' cannot {missing} '{access.folder}'"
        return Finding(_NAME, Level.PROBLEM, message, lines=_same_user_lines(access))
    if access.others_can_write:
        line = f"sudo chmod o-w {shell_word(access.folder)}"
        return Finding(_NAME, Level.WARNING, f"every user of this host can write into '{access.folder}'", lines=(line,))
    return Finding(_NAME, Level.OK, f"'{access.folder}', {access.free_bytes / 2**30:.1f} GiB free")


def _refused_write_line(access: SpoolAccess, server: str) -> str:
    """Return what mends that PostgreSQL cannot write, by its own words: they end with the operating system's."""
    folder = shell_word(access.folder)
    if os.strerror(errno.EROFS) in access.writes_message:
        return f"let the server's own unit write there (ReadWritePaths={access.folder}), or mount it for writing"
    if os.strerror(errno.ENOSPC) in access.writes_message:
        return f"make room on the disk of {folder}: 'wal-pipeline archive' empties the spool"
    return f"sudo chown {server} {folder} && sudo chmod u+rwx {folder}"


def _server_writes(access: SpoolAccess) -> Finding:
    server = _server_user(access.server_uid)
    if access.server_writes is ServerWrites.YES:
        return Finding(_WRITES_NAME, Level.OK, f"PostgreSQL writes there as user '{server}'")
    if access.server_writes is ServerWrites.REFUSED:
        line = _refused_write_line(access, server)
        return Finding(_WRITES_NAME, Level.PROBLEM, access.writes_message, lines=(line,))
    if access.server_writes is ServerWrites.ELSEWHERE:
        message = (
            f"PostgreSQL wrote a file into its '{access.folder}', but it is not in ours: "
            "the server runs on another host or in another container"
        )
        return Finding(_WRITES_NAME, Level.PROBLEM, message, lines=("share one folder between both",))
    lines = ("connect as a superuser or a member of pg_write_server_files",)
    return Finding(
        _WRITES_NAME, Level.WARNING, "not tried: PostgreSQL's role or our rights do not allow it", lines=lines
    )


def _we_read(access: SpoolAccess) -> Finding:
    ours, server = name_of_user(access.our_uid), _server_user(access.server_uid)
    if access.files_readable is FilesReadable.YES:
        return Finding(_READS_NAME, Level.OK, f"user '{ours}' can read and remove what PostgreSQL archives")
    if access.files_readable is FilesReadable.WITH_GROUP_BIT:
        message = f"user '{ours}' shares the group of '{server}': the archive_command gives it the right to read"
        return Finding(_READS_NAME, Level.OK, message)
    if access.files_readable is FilesReadable.NO:
        message = f"user '{ours}' cannot read what PostgreSQL archives as user '{server}'"
        return Finding(_READS_NAME, Level.PROBLEM, message, lines=_same_user_lines(access))
    message = f"not known whether user '{ours}' can read what PostgreSQL archives"
    return Finding(_READS_NAME, Level.WARNING, message, lines=_same_user_lines(access))


def _same_user_lines(access: SpoolAccess) -> tuple[str, ...]:
    """Return both ways, the simple one first. With a shared group, the set-group-id bit gives new files that group."""
    server, ours = _server_user(access.server_uid), name_of_user(access.our_uid)
    folder = shell_word(access.folder)
    return (
        f"run wal-pipeline as user '{server}', or:",
        f"sudo usermod -aG $(id -gn {server}) {ours} && sudo chgrp $(id -gn {server}) {folder} "
        f"&& sudo chmod 2770 {folder}",
    )
