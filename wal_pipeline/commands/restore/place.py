"""Puts a base backup's files in place: extracts them, combines a chain, verifies, and gives them to the server."""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from wal_pipeline.archive.format.base_backup.manifest import BASE_TAR, BaseBackupManifest
from wal_pipeline.commands.archive_get.prefetch_folder import PrefetchFolder
from wal_pipeline.commands.restore.checks import TablespaceMove
from wal_pipeline.commands.restore.download import BaseBackupSource
from wal_pipeline.commands.restore.files.listed_files import BACKUP_MANIFEST
from wal_pipeline.commands.restore.files.on_disk import TABLESPACES, FilePlaces
from wal_pipeline.commands.restore.files.verify import compare_with_manifest
from wal_pipeline.commands.restore.places.wal_folder import PG_WAL
from wal_pipeline.commands.restore.places.workspace import NOT_CONTENT, combined, move_up
from wal_pipeline.commands.restore.prepare import RestoreRequest
from wal_pipeline.commands.restore.untar import hold_back_pg_control, release_pg_control
from wal_pipeline.errors import RestoreError
from wal_pipeline.host.mounts import LOST_AND_FOUND
from wal_pipeline.postgres.backup_words import program_warnings
from wal_pipeline.postgres.binaries import Binaries
from wal_pipeline.postgres.recovery_server import ServerUser
from wal_pipeline.text import length

_SHOWN_LINES: Final = 20
_STALL_SECONDS: Final = 3600.0
_LOOK_SECONDS: Final = 10.0


def extract_base_backup(
    manifest: BaseBackupManifest, source: BaseBackupSource, pgdata: Path, spaces: Mapping[int, Path]
) -> None:
    """Extract one base backup into ``pgdata`` and its tablespaces into ``spaces``, by oid, with links to them.

    ``global/pg_control`` is held back. Raises: RestoreError, CodecError, StoreError.
    """
    for oid, folder in spaces.items():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        source.extract(manifest.tar(str(oid)), folder)
    pgdata.mkdir(mode=0o700, parents=True, exist_ok=True)
    source.extract(manifest.tar(BASE_TAR), pgdata)
    if not (pgdata / BACKUP_MANIFEST).exists():
        source.write_backup_manifest(pgdata / BACKUP_MANIFEST)
    link_tablespaces(pgdata, spaces)
    limit_mode(pgdata)


def complete(source: BaseBackupSource, places: FilePlaces) -> None:
    """Add to files that were placed one by one what a cluster needs: PostgreSQL's manifest, the links, the mode.

    Raises: RestoreError, CodecError, StoreError.
    """
    if BACKUP_MANIFEST not in {path.name for path in places.pgdata.iterdir()}:
        source.write_backup_manifest(places.pgdata / BACKUP_MANIFEST)
    (places.pgdata / TABLESPACES).mkdir(mode=0o700, exist_ok=True)
    link_tablespaces(places.pgdata, places.spaces)
    limit_mode(places.pgdata)


def begin_keeping(pgdata: Path) -> None:
    """Make it impossible to start the old cluster whose right files stay, and remove its links. Raises: OSError.

    ``pg_wal`` goes with its content: no base backup has any.
    """
    hold_back_pg_control(pgdata)
    links = (path for path in (pgdata / PG_WAL, *pgdata.glob(f"{TABLESPACES}/*")) if path.is_symlink())
    for path in links:
        path.unlink()


def limit_mode(pgdata: Path) -> None:
    """Give a data directory the mode that PostgreSQL starts with. Raises: RestoreError."""
    group_reads = (pgdata / "global").stat().st_mode & 0o050  # initdb's --allow-group-access
    try:
        pgdata.chmod(0o750 if group_reads else 0o700)
    except OSError as error:
        raise RestoreError(f"the mode of '{pgdata}' cannot be changed: {error.strerror}") from error


def link_tablespaces(pgdata: Path, spaces: Mapping[int, Path]) -> None:
    """Link to the tablespaces, by oid. Raises: RestoreError where something else is in a link's place."""
    for oid, folder in spaces.items():
        link = pgdata / "pg_tblspc" / str(oid)
        try:
            if link.is_dir() and not link.is_symlink():
                link.rmdir()
            link.unlink(missing_ok=True)
            link.symlink_to(folder)
        except OSError as error:
            raise RestoreError(f"the link '{link}' to a tablespace cannot be made: {error.strerror}") from error


def combine_chain(
    binaries: Binaries,
    folders: Sequence[Path],
    pgdata: Path,
    staged: dict[int, Path],
    moves: Sequence[TablespaceMove],
) -> tuple[str, ...]:
    """Make ``pgdata`` from a full base backup and the incremental ones on it, with pg_combinebackup.

    ``staged`` are the newest one's tablespaces by oid. ``global/pg_control`` is held back. Returns the
    program's warnings. Raises: RestoreError, PostgresError.
    """
    for folder in folders:
        release_pg_control(folder)
    mapping = [f"--tablespace-mapping={_escaped(staged[move.oid])}={_escaped(combined(move.new))}" for move in moves]
    program = binaries.program("pg_combinebackup")
    output = combined(pgdata)  # its output must be empty, and neither the marks nor a lost+found are in it
    command = [str(program), *mapping, f"--output={output}", *map(str, folders)]
    warnings = run_tool(command, "the chain cannot be combined")
    hold_back_pg_control(output)
    try:
        for folder in (pgdata, *(move.new for move in moves)):
            move_up(folder)
    except OSError as error:
        raise RestoreError(f"'{error.filename}' cannot be moved: {error.strerror}") from error
    link_tablespaces(pgdata, {move.oid: move.new for move in moves})
    limit_mode(pgdata)
    return warnings


def _escaped(path: Path) -> str:
    return str(path).replace("=", "\\=")


def verify_files(
    request: RestoreRequest,
    binaries: Binaries,
    pgdata: Path,
    moves: Sequence[TablespaceMove] = (),
    *,
    ignored: Sequence[str] = (),
    proven: Mapping[str, bytes] | None = None,
) -> tuple[str, ...]:
    """Compare every file with PostgreSQL's own manifest, and return pg_verifybackup's warnings where it runs.

    What a file system or the restore itself keeps at the top of a folder is passed over, and what is in the folders
    ``ignored``, relative to the data directory. Our own comparison does not read the files ``proven`` again.

    ``global/pg_control`` is held back before and after it; only pg_verifybackup needs it in its place meanwhile.

    Raises: RestoreError.
    """
    tops = ("", *(f"pg_tblspc/{move.oid}/" for move in moves))
    names = [*(f"{top}{name}" for top in tops for name in NOT_CONTENT), *ignored]
    if not request.uses_pg_verifybackup:
        compare_with_manifest(pgdata, workers=request.worker_count, ignored=names, proven=proven)
        return ()
    program = binaries.program("pg_verifybackup")
    command = [str(program), "--no-parse-wal", "--quiet", *(f"--ignore={name}" for name in names), str(pgdata)]
    release_pg_control(pgdata)
    try:
        return run_tool(command, f"'{pgdata}' is not what was backed up")
    finally:
        hold_back_pg_control(pgdata)


def run_tool(command: list[str], failure: str, *, stall_seconds: float = _STALL_SECONDS) -> tuple[str, ...]:
    """Run one of PostgreSQL's programs, and return its warnings.

    Raises: RestoreError with its last words, also where it has neither read nor written for ``stall_seconds``.
    """
    name = Path(command[0]).name
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, "LC_ALL": "C"},
        )
    except OSError as error:
        raise RestoreError(f"'{command[0]}' cannot be started: {error.strerror}") from error
    with process:
        try:
            output, words = _ended(process, stall_seconds)
        except subprocess.TimeoutExpired as error:
            waited = f"'{name}' has neither read nor written for {length(stall_seconds)}, and was ended"
            raise RestoreError(
                f"{failure}: {waited}",
                hint=f"It waits for the disk below '{command[-1]}': is it there, and does it answer?",
            ) from error
        finally:
            process.kill()
    if process.returncode != 0:
        said = "\n".join((words or output).strip().splitlines()[-_SHOWN_LINES:])
        raise RestoreError(f"{failure}: '{name}' ended with {process.returncode}:\n{said}")
    return program_warnings(words)


def _ended(process: "subprocess.Popen[str]", stall_seconds: float) -> tuple[str, str]:
    """Return the output at the program's end. Raises: subprocess.TimeoutExpired where it stands still."""
    moved, since = _moved(process.pid), time.monotonic()
    while True:
        try:
            return process.communicate(timeout=min(_LOOK_SECONDS, stall_seconds))
        except subprocess.TimeoutExpired:
            before, moved = moved, _moved(process.pid)
            if moved is None or moved != before:  # where nobody can tell, it is not ended
                since = time.monotonic()
            elif time.monotonic() - since >= stall_seconds:
                raise


def _moved(pid: int) -> str | None:
    """Return what the kernel counts of a process's reads and writes; None where it does not tell."""
    try:
        return Path(f"/proc/{pid}/io").read_text(encoding="ascii")
    except OSError:
        return None


def write_tablespace_map(pgdata: Path, moves: Sequence[TablespaceMove]) -> None:
    """Rewrite ``tablespace_map``, from which the server makes its links when it starts (xlogbackup.c's format).

    One that came with the base backup is never left: it could have the server link to any folder of the machine.
    Raises: RestoreError.
    """
    path = pgdata / "tablespace_map"
    lines = [f"{move.oid} {_map_escaped(str(move.new))}\n" for move in moves]
    try:
        path.unlink(missing_ok=True)
        if moves:
            path.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")
            path.chmod(0o600)
    except OSError as error:
        raise RestoreError(f"'{path}' cannot be written: {error.strerror}") from error


def _map_escaped(path: str) -> str:
    for character in ("\\", "\n", "\r"):
        path = path.replace(character, "\\" + character)
    return path


def own(folders: Sequence[Path], user: ServerUser) -> None:
    """Give the folders and all below them to the server's user, where we are root. Links are not followed.

    A file system's own lost+found stays root's.
    """
    if os.geteuid() == user.uid:
        return
    for folder in folders:
        os.lchown(folder, user.uid, user.gid)
        for root, names, files in os.walk(folder):
            if LOST_AND_FOUND in names and (Path(root) == folder or os.path.ismount(root)):
                names.remove(LOST_AND_FOUND)
            for name in (*names, *files):
                os.lchown(Path(root) / name, user.uid, user.gid)


def make_owned(folder: Path, user: ServerUser) -> None:
    """Make a prefetch folder that the server's user can write in, and its parent where that is missing too.

    Raises: RestoreError, also where there is one that is another's.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        own(list(reversed(missing[:2])), user)
        PrefetchFolder(folder).check(user.uid)
    except OSError as error:
        raise RestoreError(f"'{folder}' cannot be made: {error.strerror}") from error
