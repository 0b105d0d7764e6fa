"""Plans and checks a restore, and writes nothing."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from wal_pipeline.archive.format.base_backup.file_index import FileIndex
from wal_pipeline.archive.format.base_backup.manifest import BaseBackupManifest
from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.records import BackupMethod
from wal_pipeline.archive.recovery.coverage import ArchiveContents
from wal_pipeline.archive.recovery.restore_plan import RestorePlan, plan_restore
from wal_pipeline.archive.recovery.target import RecoveryTarget
from wal_pipeline.archive.restore_time.forecast import RestoreForecast
from wal_pipeline.commands.restore.checks import (
    DiskNeed,
    TablespaceMove,
    check_disk,
    check_identities,
    check_writable,
    disk_needs,
    map_tablespaces,
    require_action,
    server_user,
)
from wal_pipeline.commands.restore.chosen.databases import ChosenDatabases, choose_databases, needed_of, require_copy
from wal_pipeline.commands.restore.chosen.lists import read_database_lists
from wal_pipeline.commands.restore.chosen.volumes import fetched_bytes
from wal_pipeline.commands.restore.contents import RestoreInventory, gather
from wal_pipeline.commands.restore.files.small_objects import read_file_index
from wal_pipeline.commands.restore.files.verify import VerifyWith
from wal_pipeline.commands.restore.folders import check_data_directory, check_folders
from wal_pipeline.commands.restore.places.configuration import ConfigurationPlan, plan_configuration
from wal_pipeline.commands.restore.places.stored_configuration import has_own_configuration, read_kept
from wal_pipeline.commands.restore.places.wal_folder import PG_WAL, WalFolder, other_links, plan_wal_folder, wal_place
from wal_pipeline.commands.restore.places.workspace import left_by_restore, lost_writes, may_keep
from wal_pipeline.commands.restore.standby.request import StandbyRequest
from wal_pipeline.errors import RestoreError, WalPipelineError
from wal_pipeline.host.limits import usable_cores
from wal_pipeline.postgres.binaries import Binaries, find_binaries
from wal_pipeline.postgres.recovery import TargetAction
from wal_pipeline.postgres.recovery_server import ServerUser
from wal_pipeline.stores.base import Store
from wal_pipeline.stores.cluster_store import ClusterStore

_VERIFY: Final = "pg_verifybackup"
_COMBINE: Final = "pg_combinebackup"


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """The restore that a person asks for. ``tablespaces`` maps an oid or an old folder to a new folder.

    ``tablespace_root``: each tablespace that is not mapped goes below it, into a folder named by its oid.

    ``verify``: compare all files with PostgreSQL's manifest before the end. ``archiving`` True: the server takes its
    original's place; False: it is a copy beside it, which does not archive; None: nobody has said.
    ``signs_of_original`` say that there may be one that lives.
    ``waldir``: the folder to which ``pg_wal`` will link. ``work_dir``: where downloads are kept before they are opened,
    instead of in the data directory.
    ``config_file`` is the server's, where it is not in the data directory. ``restore_config``: the configuration that
    was kept with the base backup is written into the data directory; None: where this machine has none for it.
    ``only_databases``: the server, which must be a copy, has only these databases, beside those of every cluster.
    ``verify_with``: who compares the files with PostgreSQL's manifest. ``workers``: how many files are worked on at the
    same time; None: as many as there are cores. ``delta``: files of the old cluster that are right stay.
    ``standby``: the server follows a primary, and is no copy and no replacement. ``wal_only``: the data directory is
    there, and stays as it is; only its recovery is set up.
    """

    pgdata: Path
    target: RecoveryTarget = field(default_factory=RecoveryTarget)
    action: TargetAction = TargetAction.PROMOTE
    base_backup: str | None = None
    force: bool = False
    owner: str | None = None
    tablespaces: Mapping[str, Path] = field(default_factory=dict)
    tablespace_root: Path | None = None
    verify: bool = True
    archiving: bool | None = None
    bindir: Path | None = None
    signs_of_original: tuple[str, ...] = ()
    waldir: Path | None = None
    work_dir: Path | None = None
    config_file: Path | None = None
    restore_config: bool | None = None
    only_databases: tuple[str, ...] = ()
    verify_with: VerifyWith = VerifyWith.OWN
    workers: int | None = None
    delta: bool = False

    @property
    def worker_count(self) -> int:
        """How many files are worked on at the same time."""
        return self.workers or usable_cores()

    @property
    def uses_pg_verifybackup(self) -> bool:
        """Whether PostgreSQL's own program compares the files."""
        return self.verify and self.verify_with is VerifyWith.POSTGRES

    standby: StandbyRequest | None = None
    wal_only: bool = False

    @property
    def is_copy(self) -> bool:
        """Whether the server is a copy beside its original, to be set apart from it."""
        return self.archiving is False


@dataclass(frozen=True, slots=True)
class PreparedRestore:
    """A restore that was planned and checked; nothing was written yet.

    ``chain`` begins with the full base backup. The old content of the folders ``emptied`` will be removed.
    ``refusals`` are all that the restore would refuse, though it could be planned.
    ``encrypted``: a base backup or WAL is encrypted, and the identities at hand open it. ``stores`` are those that
    answered, ``silent`` the names of those that did not. ``chosen``: only these databases come back; None: all.
    ``index``: the files of a base backup of the method ``local``. ``keeps``: what is right in the folders stays, and
    only the rest is fetched.
    ``forecast``: how long it will take; None where nobody asked.
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
    wal_folder: WalFolder | None = None
    configuration: ConfigurationPlan = field(default_factory=ConfigurationPlan)
    refusals: tuple[WalPipelineError, ...] = ()
    chosen: ChosenDatabases | None = None
    index: FileIndex | None = None
    keeps: bool = False
    forecast: RestoreForecast | None = None

    @property
    def is_single(self) -> bool:
        """Whether one base backup is brought back by itself, and none is combined with it."""
        return len(self.chain) == 1

    @property
    def filled_elsewhere(self) -> tuple[Path, ...]:
        """The folders outside the data directory that are filled."""
        wal = () if self.wal_folder is None else (self.wal_folder.folder,)
        return (*(move.new for move in self.moves), *wal)

    @property
    def download_bytes(self) -> int:
        """Bytes that are downloaded before the server starts. It fetches the WAL itself."""
        return sum(map(fetched_bytes, needed_of(self.chosen, self.chain)))


def prepare_restore(
    request: RestoreRequest, stores: Sequence[Store], layout: Layout, identities: Sequence[Any] = ()
) -> PreparedRestore:
    """Plan a restore from the stores' present content, and check everything that can be checked before it.

    Raises: RecoveryTargetError, RestoreError, PostgresError, StoreError.
    """
    begun = time.monotonic()
    require_copy(request.only_databases, is_copy=request.is_copy)
    own = layout.system_identifier if request.delta else None
    check_data_directory(request.pgdata, force=request.force, own=own)
    found, plan = _planned(request, stores, layout, identities)
    require_action(plan.asked, plan.target, request.action)
    chain = _needed_of_chain(found, plan)
    moves = map_tablespaces(chain[-1], request.tablespaces, request.tablespace_root)
    _check_apart(request.pgdata, moves)
    emptied = check_folders(request.pgdata, moves, force=request.force, own=own)
    encrypted = check_identities(plan, chain, found.answered, layout, identities)
    pgdata = request.pgdata.absolute()
    wal_folder = plan_wal_folder(pgdata, request.waldir, replaced=pgdata in emptied)
    user = server_user(pgdata, request.owner)
    work_place = pgdata if request.work_dir is None else request.work_dir.absolute()
    check_writable(pgdata, (*(move.new for move in moves), wal_place(pgdata, wal_folder), work_place))
    index = _index_of(chain[-1], found, layout, identities)
    chosen = _chosen(request, chain, found, layout, identities, index=index)
    needs = disk_needs(
        needed_of(chosen, chain),
        pgdata,
        moves,
        work_place=work_place,
        wal_place=wal_place(pgdata, wal_folder),
        index=index,
        workers=request.worker_count,
    )
    check_disk(needs)
    programs = (
        "postgres",
        *((_VERIFY,) if request.uses_pg_verifybackup else ()),
        *((_COMBINE,) if len(chain) > 1 else ()),
    )
    binaries = find_binaries(chain[-1].server_version // 10_000, exactly=True, programs=programs, bindir=request.bindir)
    configuration = _plan_configuration(request, chain[-1], found.answered, layout, identities)
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
        (
            *_said_of(found.manifests[one.backup.backup_id] for one in plan.chain),
            *found.notes,
            *plan.notes,
            *_folder_notes(request, chain, emptied, wal_folder),
            *configuration.notes,
            *(() if chosen is None else chosen.notes),
        ),
        time.monotonic() - begun,
        wal_folder,
        configuration,
        chosen=chosen,
        index=index,
        keeps=bool(emptied) and _may_keep(request, chain),
    )


def prepare_replay(
    request: RestoreRequest, stores: Sequence[Store], layout: Layout, identities: Sequence[Any] = ()
) -> PreparedRestore:
    """Plan how a data directory that was restored before goes on to a later target: only WAL is fetched.

    ``request.pgdata`` stays as it is, and ``request.base_backup`` names the base backup that it was restored from.

    Raises: RecoveryTargetError, RestoreError, PostgresError, StoreError.
    """
    begun = time.monotonic()
    found, plan = _planned(request, stores, layout, identities)
    chain = _needed_of_chain(found, plan)
    encrypted = check_identities(plan, chain, found.answered, layout, identities)
    return PreparedRestore(
        request,
        plan,
        chain,
        found.answered,
        tuple(store.name for store in stores if store not in found.answered),
        layout,
        tuple(identities),
        moves=(),
        emptied=(),
        encrypted=encrypted,
        disk=(),
        user=server_user(request.pgdata, request.owner),
        binaries=find_binaries(
            chain[-1].server_version // 10_000, exactly=True, programs=("postgres",), bindir=request.bindir
        ),
        notes=(*found.notes, *plan.notes),
        plan_seconds=time.monotonic() - begun,
        chosen=_chosen(request, chain, found, layout, identities),
    )


def _planned(
    request: RestoreRequest, stores: Sequence[Store], layout: Layout, identities: Sequence[Any]
) -> tuple[RestoreInventory, RestorePlan]:
    target = request.target
    found = gather(stores, layout, target.at or target.not_before_at, identities)

    def plan(contents: ArchiveContents) -> RestorePlan:
        usable = contents if request.standby is None else replace(contents, tails={})  # a standby gets no pieces
        return plan_restore(usable, target, base_backup=request.base_backup)

    return found, found.checked_plan(plan)


def _chosen(
    request: RestoreRequest,
    chain: Sequence[BaseBackupManifest],
    found: RestoreInventory,
    layout: Layout,
    identities: Sequence[Any],
    *,
    index: FileIndex | None = None,
) -> ChosenDatabases | None:
    places = [ClusterStore(store, layout) for store in found.answered]
    return choose_databases(request.only_databases, chain, places, identities, read_database_lists, index=index)


def _needed_of_chain(found: RestoreInventory, plan: RestorePlan) -> tuple[BaseBackupManifest, ...]:
    """Return the base backups of a plan that are brought back: those that are combined, the oldest first.

    One of the method ``local`` is brought back by itself: its list names also the volumes of earlier ones.
    """
    needed: list[BaseBackupManifest] = []
    for planned in reversed(plan.chain):
        needed.insert(0, found.manifests[planned.backup.backup_id])
        if not needed[0].is_combined:
            break
    return tuple(needed)


def _index_of(
    manifest: BaseBackupManifest, found: RestoreInventory, layout: Layout, identities: Sequence[Any]
) -> FileIndex | None:
    if manifest.method is not BackupMethod.LOCAL:
        return None
    return read_file_index(manifest, [ClusterStore(store, layout) for store in found.answered], identities)


def _plan_configuration(
    request: RestoreRequest,
    manifest: BaseBackupManifest,
    stores: Sequence[Store],
    layout: Layout,
    identities: Sequence[Any],
) -> ConfigurationPlan:
    places = [ClusterStore(store, layout) for store in stores]
    return plan_configuration(
        request.pgdata.absolute(),
        manifest.server_version // 10_000,
        kept=None if request.restore_config is False else read_kept(manifest, places, identities),
        given=request.config_file,
        wanted=request.restore_config,
        has_own=lambda: has_own_configuration(manifest, places, identities),
    )


def _may_keep(request: RestoreRequest, chain: Sequence[BaseBackupManifest]) -> bool:
    """Say whether files that lie in the data directory may stay where they are right."""
    return len(chain) == 1 and may_keep(request.pgdata.absolute(), delta=request.delta)


def _folder_notes(
    request: RestoreRequest, chain: Sequence[BaseBackupManifest], emptied: Sequence[Path], wal: WalFolder | None
) -> list[str]:
    """Say what becomes of what lies in the folders, before anything is removed."""
    notes = []
    pgdata = request.pgdata.absolute()
    if left_by_restore(pgdata):
        stays = "what is right in it stays" if _may_keep(request, chain) else "what it brought is removed"
        why = ", as the disk had lost what it wrote" if lost_writes(pgdata) else ""
        notes.append(f"'{pgdata}' was left by a restore that did not end{why}: {stays}")
    if request.delta and len(chain) > 1:
        notes.append("--delta saves nothing here: all base backups of the chain are fetched, to be combined")
    if wal is not None:
        links = f"'{pgdata / PG_WAL}' {'stays' if wal.kept else 'becomes'} a link to '{wal.folder}'"
        notes.append(f"{links}{', whose WAL is removed' if wal.emptied else ''}")
    if pgdata in emptied:
        notes += [
            f"'{pgdata / name}' is a link to '{target}': the link is removed, what it points to stays as it is"
            for name, target in other_links(pgdata).items()
        ]
    return notes


def _said_of(chain: Iterable[BaseBackupManifest]) -> Iterator[str]:
    """Yield what PostgreSQL said of the base backups when they were taken."""
    for one in chain:
        for pages in one.report.damaged_pages:
            yield f"base backup '{one.backup_id}' has DAMAGED PAGES, as the cluster had: wrong checksum in {pages}"
        for warning in one.report.warnings:
            yield f"base backup '{one.backup_id}' was taken with a warning: {warning}"


def _check_apart(pgdata: Path, moves: Sequence[TablespaceMove]) -> None:
    real = pgdata.absolute()
    for move in moves:
        if real == move.new or real in move.new.parents or move.new in real.parents:
            raise RestoreError(f"the tablespace folder '{move.new}' and the data directory '{real}' overlap")


def require_answers(prepared: PreparedRestore) -> None:
    """Refuse a restore whose recovery could not end: PostgreSQL ends it at a file that is proven absent.

    Raises: RestoreError.
    """
    if not prepared.silent or prepared.request.standby is not None:  # a standby's recovery does not end, it asks again
        return
    silent = " and ".join(prepared.silent)
    others = " or ".join(f"--store {store.name}" for store in prepared.stores)
    raise RestoreError(
        f"{silent} did not answer, so nothing proves that there is no later WAL or newer timeline on {silent}: "
        "the recovery could not end",
        hint=f"Wait for {silent}, or restore from what answers alone with {others}; with --plan it says up to when.",
    )
