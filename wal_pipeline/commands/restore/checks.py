"""Checks the target's action, encryption, tablespaces, owner, disk and program before a byte is downloaded."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from wal_pipeline.archive.format.base_backup.file_index import FileIndex
from wal_pipeline.archive.format.base_backup.manifest import BaseBackupManifest
from wal_pipeline.archive.format.keys import ENCRYPTED_SUFFIX, Layout
from wal_pipeline.archive.recovery.restore_plan import RestorePlan
from wal_pipeline.archive.recovery.target import RecoveryTarget, TargetKind
from wal_pipeline.commands.archive_get.wal_source import WalSource
from wal_pipeline.commands.backup.objects import open_object
from wal_pipeline.commands.copies.find import find_copies
from wal_pipeline.commands.restore.files.workers import volumes_at_once
from wal_pipeline.errors import CodecError, RestoreError, StoreError, WalPipelineError
from wal_pipeline.host.file_owner import name_of_user, way_hint
from wal_pipeline.host.mounts import is_writable, nearest
from wal_pipeline.postgres.recovery import TargetAction
from wal_pipeline.postgres.recovery_server import ServerUser
from wal_pipeline.stores.base import Store
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.text import size
from wal_pipeline.wal.names import WalFileName, require_file_name


def require_action(asked: RecoveryTarget, target: RecoveryTarget, action: TargetAction) -> None:
    """Refuse an action that PostgreSQL cannot do at the target. ``asked`` is a person's target, ``target`` the plan's.

    Raises: RestoreError for a pause or a shutdown at the end of the archive: without a target PostgreSQL ignores
    recovery_target_action and opens.
    """
    if target.kind is not TargetKind.END or action is TargetAction.PROMOTE:
        return
    if asked.kind is TargetKind.END:
        raise RestoreError(
            f"PostgreSQL cannot {action.value} at the end of the archive: it opens the cluster there",
            hint="Name a target before the end, or leave the action at promote.",
        )
    raise RestoreError(
        f"PostgreSQL cannot {action.value} at {asked}, the last commit that is archived: it stops at a time only "
        "where a later commit follows",
        hint="Name an earlier time, add --exclusive to stop just before this commit, or leave the action at promote.",
    )


_HINT = "Set WAL_PIPELINE_AGE_IDENTITY_FILE to the file with the age identity."


def check_identities(
    plan: RestorePlan,
    chain: Sequence[BaseBackupManifest],
    stores: Sequence[Store],
    layout: Layout,
    identities: Sequence[Any],
) -> bool:
    """Return whether anything is encrypted, after a proof that it can be opened.

    The proof opens a small object of each encrypted base backup, and the first and the last WAL file.

    Raises: RestoreError where something is encrypted that cannot be opened.
    """
    places = [ClusterStore(store, layout) for store in stores]
    encrypted = [manifest for manifest in chain if manifest.encrypted]
    for manifest in encrypted:
        _require_identities(identities, f"base backup '{manifest.backup_id}'")
        _open_manifest(manifest, places, identities)
    made = {tail.segment.name for tail in plan.tails}  # the plan has opened their pieces
    whole = [file.name for file in plan.wal if file.name not in made]
    names = sorted({*whole[:1], *whole[-1:]})
    found = [name for name in map(require_file_name, names) if _is_encrypted(name, places)]
    for name in found:
        _require_identities(identities, f"WAL file '{name.name}'")
        try:
            WalSource(layout, tuple(stores), tuple(identities)).fetch(name)
        except WalPipelineError as error:
            raise RestoreError(error.message, hint=_HINT) from error
    pieces = [one.object_key for tail in plan.tails for one in tail.pieces if one.object_key.endswith(ENCRYPTED_SUFFIX)]
    return bool(encrypted or found or pieces)


def _require_identities(identities: Sequence[Any], what: str) -> None:
    if not identities:
        raise RestoreError(f"{what} is encrypted and there is no identity to open it with", hint=_HINT)


def _open_manifest(manifest: BaseBackupManifest, places: Sequence[ClusterStore], identities: Sequence[Any]) -> None:
    """Open PostgreSQL's own manifest, a small object of each base backup, from the first store that has it whole."""
    reasons: list[str] = []
    for place in places:
        try:
            open_object(place, manifest, manifest.backup_manifest, identities=identities, sink=lambda _: None)
        except (StoreError, CodecError) as error:
            reasons.append(f"{place.name}: {error.message.removeprefix(place.name + ': ')}")
        else:
            return
    raise RestoreError(
        f"base backup '{manifest.backup_id}' is encrypted and could not be opened:\n" + "\n".join(reasons), hint=_HINT
    )


def _is_encrypted(name: WalFileName, places: Sequence[ClusterStore]) -> bool:
    """Return whether all copies of a file are encrypted, as far as the stores answer."""
    found: list[bool] = []
    for place in places:
        try:
            found += [stored.encrypted for _, stored in find_copies(place, name)]
        except StoreError:
            continue
    return bool(found) and all(found)


_WAL_ROOM_BYTES: Final = 1 << 30  # prefetched and replayed segments
_LARGEST_STAGED_OBJECTS: Final = 4


@dataclass(frozen=True, slots=True)
class TablespaceMove:
    """A tablespace of the base backup: its folder then, and its folder in the restored cluster."""

    oid: int
    old: Path
    new: Path


def map_tablespaces(
    manifest: BaseBackupManifest, given: Mapping[str, Path], root: Path | None = None
) -> tuple[TablespaceMove, ...]:
    """Return the new folder of each tablespace: ``given`` maps its oid or its old folder to it.

    One that is not given goes below ``root``, or without that to where it was.

    Raises: RestoreError for a name that no tablespace has, and for two tablespaces in one folder.
    """
    moves = []
    left = dict(given)
    for space in manifest.tablespaces:
        stays = Path(space.location) if root is None else root / str(space.oid)
        new = left.pop(str(space.oid), None) or left.pop(space.location, None) or stays
        moves.append(TablespaceMove(space.oid, Path(space.location), new.absolute()))
    if left:
        known = ", ".join(f"{space.oid} ('{space.location}')" for space in manifest.tablespaces) or "none"
        raise RestoreError(f"the base backup has no tablespace '{next(iter(left))}', expected one of: {known}")
    folders = [move.new for move in moves]
    if len(set(folders)) != len(folders):
        raise RestoreError("two tablespaces would go into one folder", hint="Give each its own with --tablespace-map.")
    return tuple(moves)


def server_user(pgdata: Path, owner: str | None) -> ServerUser:
    """Return the user who shall own the restored files: root gives them to PostgreSQL's user, others keep them.

    For root that is ``owner``, else the owner of the data directory, of the folder around it, or the user postgres.

    Raises: RestoreError.
    """
    if os.geteuid() != 0:
        if owner is not None and pwd.getpwuid(os.geteuid()).pw_name != owner:
            raise RestoreError(f"only root can give the restored files to '{owner}'")
        return ServerUser(os.geteuid(), os.getegid())
    if owner is not None:
        return _named_user(owner)
    for folder in (pgdata, *pgdata.parents):
        if folder.exists() and folder.stat().st_uid != 0:
            return ServerUser(folder.stat().st_uid, folder.stat().st_gid)
    return _named_user("postgres")


def _named_user(name: str) -> ServerUser:
    try:
        entry = pwd.getpwnam(name)
    except KeyError as error:
        raise RestoreError(
            f"there is no user '{name}' to own the restored files", hint="Name PostgreSQL's user with --owner."
        ) from error
    return ServerUser(entry.pw_uid, entry.pw_gid)


@dataclass(frozen=True, slots=True)
class DiskNeed:
    """The room that a restore needs on the file system of ``folder``, and the room that is free there."""

    folder: Path
    needed_bytes: int
    free_bytes: int


def disk_needs(
    chain: tuple[BaseBackupManifest, ...],
    pgdata: Path,
    moves: tuple[TablespaceMove, ...],
    *,
    work_place: Path,
    wal_place: Path,
    index: FileIndex | None = None,
    workers: int = 0,
) -> tuple[DiskNeed, ...]:
    """Return the room that each file system needs. The content that --force would remove counts as free.

    Downloads are kept in ``work_place``, by default in the data directory; a chain of incremental base backups is
    opened there and combined into the data directory. Fetched and replayed segments lie in ``wal_place``. ``index``:
    of a base backup of the method ``local``, whose volumes so many ``workers`` open at the same time.
    """
    sizes = _tablespace_sizes(chain[-1], moves, index)
    whole = max(one.size_bytes for one in chain)  # the result is about as large as its full base backup
    staged = sum(one.size_bytes for one in chain) if len(chain) > 1 else 0
    objects = sorted(
        (item.size_bytes for one in chain for item in (*one.objects, *(volume.item for volume in one.referred))),
        reverse=True,
    )
    wanted = [
        (pgdata, whole - sum(sizes.values())),
        (work_place, staged + sum(objects[: max(_LARGEST_STAGED_OBJECTS, volumes_at_once(workers))])),
        (wal_place, _WAL_ROOM_BYTES),
        *((move.new, sizes[move.oid] if len(chain) == 1 else chain[0].size_bytes) for move in moves),
    ]
    return tuple(_merged(wanted))


def _tablespace_sizes(
    manifest: BaseBackupManifest, moves: Sequence[TablespaceMove], index: FileIndex | None
) -> dict[int, int]:
    if index is None:
        return {move.oid: manifest.tar(str(move.oid)).size_bytes for move in moves}
    sizes = {move.oid: 0 for move in moves}
    for file in index.files.values():
        folder, _, rest = file.path.partition("/")
        oid = rest.partition("/")[0]
        if folder == "pg_tblspc" and oid.isdigit() and int(oid) in sizes:
            sizes[int(oid)] += file.size_bytes
    return sizes


def _merged(wanted: Sequence[tuple[Path, int]]) -> list[DiskNeed]:
    """Add up the needs on one file system, which has the name of the first folder that needs it."""
    found: dict[int, DiskNeed] = {}
    counted: set[Path] = set()
    for folder, needed in wanted:
        existing = nearest(folder)
        device = existing.stat().st_dev
        before = found.get(device)
        free = before.free_bytes if before else shutil.disk_usage(existing).free
        free += _used_bytes(folder) if folder.exists() and folder not in counted else 0
        counted.add(folder)
        found[device] = DiskNeed(
            before.folder if before else folder, needed + (before.needed_bytes if before else 0), free
        )
    return list(found.values())


def _used_bytes(folder: Path) -> int:
    """Return what a folder holds on its own disk, not on those that are mounted in it."""
    found = (path.lstat() for path in folder.rglob("*") if not path.is_symlink())
    device = folder.stat().st_dev
    return sum(status.st_blocks * 512 for status in found if status.st_dev == device)


def check_disk(needs: tuple[DiskNeed, ...]) -> None:
    """Refuse a disk that is too small. Raises: RestoreError."""
    for need in needs:
        if need.needed_bytes > need.free_bytes:
            raise RestoreError(
                f"the disk of '{need.folder}' has {size(need.free_bytes)} free, "
                f"expected at least {size(need.needed_bytes)} for the restore",
                hint="Make room, restore into another folder, move tablespaces with --tablespace-map or the WAL with "
                "--waldir, or keep what is downloaded on another disk with --work-dir.",
            )


def check_writable(pgdata: Path, folders: Sequence[Path]) -> None:
    """Refuse folders in which we may not write, before anything is downloaded. Raises: RestoreError."""
    ours = os.geteuid()
    if pgdata.exists() and ours not in (0, pgdata.stat().st_uid):
        owner = name_of_user(pgdata.stat().st_uid)
        raise RestoreError(
            f"the data directory '{pgdata}' is of user '{owner}', and PostgreSQL starts only in one of its own user",
            hint=f"Type: sudo chown {name_of_user(ours)} {pgdata}; or restore as root, or into another folder.",
        )
    for folder in (pgdata, *folders):
        if not is_writable(folder):
            raise RestoreError(
                f"user '{name_of_user(ours)}' cannot write in '{nearest(folder)}'",
                hint=f"Make '{folder}' for this user, or restore as root.",
            )


def check_runnable(program: Sequence[str], user: ServerUser) -> None:
    """Run the restore command's program as the server's user: recovery stops at once where it cannot.

    Raises: RestoreError.
    """
    name = name_of_user(user.uid)
    hint = way_hint(_needed_files(program), user.uid) or (
        f"Install wal-pipeline, and keep its settings file, where the user '{name}' can read them."
    )
    try:
        done = subprocess.run(
            [*program, "--print-restore-command"],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=60,
            cwd="/",
            **user.popen_options(),  # type: ignore[call-overload]
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RestoreError(f"the user '{name}' cannot run '{program[0]}': {error}", hint=hint) from error
    if done.returncode != 0:
        said, _, own_hint = done.stderr.strip().partition("\nHINT: ")
        words = said or f"it ended with {done.returncode}"
        raise RestoreError(f"the user '{name}' cannot run the restore command: {words}", hint=own_hint or hint)


def _needed_files(program: Sequence[str]) -> Iterator[Path]:
    """Yield what the restore command's process opens: the interpreter, its library, this package, the settings file."""
    yield Path(program[0])
    yield Path(os.__file__)
    yield Path(__file__)
    yield from (Path(value) for word, value in pairwise(program) if word == "--env-file")
