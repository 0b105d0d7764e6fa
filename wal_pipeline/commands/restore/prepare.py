"""Plans and checks a restore, and writes nothing."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from wal_pipeline.archive.format.backup_manifest import BaseBackupManifest
from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.recovery.restore_plan import RestorePlan, plan_restore
from wal_pipeline.archive.recovery.target import RecoveryTarget
from wal_pipeline.commands.restore.checks import (
    DiskNeed,
    TablespaceMove,
    check_disk,
    check_identities,
    disk_needs,
    map_tablespaces,
    require_action,
    server_user,
)
from wal_pipeline.commands.restore.contents import gather
from wal_pipeline.commands.restore.folders import check_data_directory, check_folders
from wal_pipeline.errors import RestoreError
from wal_pipeline.postgres.binaries import Binaries, find_binaries
from wal_pipeline.postgres.recovery import TargetAction
from wal_pipeline.postgres.recovery_server import ServerUser
from wal_pipeline.stores.base import Store

_PROGRAMS: Final = ("postgres", "pg_verifybackup")


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """The restore that a person asks for. ``tablespaces`` maps an oid or an old folder to a new folder.

    ``verify``: compare all files with PostgreSQL's manifest before the end. ``archiving`` True: the server takes its
    original's place; False: it is a copy beside it, which does not archive; None: nobody has said.
    ``signs_of_original`` say that there may be one that lives.
    """

    pgdata: Path
    target: RecoveryTarget = field(default_factory=RecoveryTarget)
    action: TargetAction = TargetAction.PROMOTE
    base_backup: str | None = None
    force: bool = False
    owner: str | None = None
    tablespaces: Mapping[str, Path] = field(default_factory=dict)
    verify: bool = True
    archiving: bool | None = None
    bindir: Path | None = None
    signs_of_original: tuple[str, ...] = ()

    @property
    def is_copy(self) -> bool:
        """Whether the server is a copy beside its original, to be set apart from it."""
        return self.archiving is False


@dataclass(frozen=True, slots=True)
class PreparedRestore:
    """A restore that was planned and checked; nothing was written yet.

    ``chain`` begins with the full base backup. The old content of the folders ``emptied`` will be removed.
    ``encrypted``: a base backup or WAL is encrypted, and the identities at hand open it. ``stores`` are those that
    answered, ``silent`` the names of those that did not.
    """

    request: RestoreRequest
    plan: RestorePlan
    chain: tuple[BaseBackupManifest, ...]
    stores: tuple[Store, ...]
    silent: tuple[str, ...]
    layout: Layout
    identities: tuple[Any, ...]
    moves: tuple[TablespaceMove, ...]
    emptied: tuple[Path, ...]
    encrypted: bool
    disk: tuple[DiskNeed, ...]
    user: ServerUser
    binaries: Binaries
    notes: tuple[str, ...]
    plan_seconds: float

    @property
    def download_bytes(self) -> int:
        """Bytes that are downloaded before the server starts. It fetches the WAL itself."""
        return sum(one.stored_size_bytes for one in self.chain)


def prepare_restore(
    request: RestoreRequest, stores: Sequence[Store], layout: Layout, identities: Sequence[Any] = ()
) -> PreparedRestore:
    """Plan a restore from the stores' present content, and check everything that can be checked before it.

    Raises: RecoveryTargetError, RestoreError, PostgresError, StoreError.
    """
    begun = time.monotonic()
    check_data_directory(request.pgdata, force=request.force)
    target = request.target
    found = gather(stores, layout, target.at or target.not_before_at, identities)
    plan = found.checked_plan(lambda contents: plan_restore(contents, target, base_backup=request.base_backup))
    require_action(plan.asked, plan.target, request.action)
    chain = tuple(found.manifests[one.backup.backup_id] for one in plan.chain)
    moves = map_tablespaces(chain[-1], request.tablespaces)
    _check_apart(request.pgdata, moves)
    emptied = check_folders(request.pgdata, moves, force=request.force)
    encrypted = check_identities(plan, chain, found.answered, layout, identities)
    needs = disk_needs(chain, request.pgdata.absolute(), moves)
    check_disk(needs)
    user = server_user(request.pgdata.absolute(), request.owner)
    programs = (*_PROGRAMS, *(("pg_combinebackup",) if len(chain) > 1 else ()))
    binaries = find_binaries(chain[-1].server_version // 10_000, exactly=True, programs=programs, bindir=request.bindir)
    return PreparedRestore(
        request,
        plan,
        chain,
        found.answered,
        tuple(store.name for store in stores if store not in found.answered),
        layout,
        tuple(identities),
        moves,
        emptied,
        encrypted,
        needs,
        user,
        binaries,
        (*found.notes, *plan.notes),
        time.monotonic() - begun,
    )


def _check_apart(pgdata: Path, moves: Sequence[TablespaceMove]) -> None:
    real = pgdata.absolute()
    for move in moves:
        if real == move.new or real in move.new.parents or move.new in real.parents:
            raise RestoreError(f"the tablespace folder '{move.new}' and the data directory '{real}' overlap")


def require_answers(prepared: PreparedRestore) -> None:
    """Refuse a restore whose recovery could not end: PostgreSQL ends it at a file that is proven absent.

    Raises: RestoreError.
    """
    if not prepared.silent:
        return
    silent = " and ".join(prepared.silent)
    others = " or ".join(f"--store {store.name}" for store in prepared.stores)
    raise RestoreError(
        f"{silent} did not answer, so nothing proves that there is no later WAL or newer timeline on {silent}: "
        "the recovery could not end",
        hint=f"Wait for {silent}, or restore from what answers alone with {others}; with --plan it says up to when.",
    )
