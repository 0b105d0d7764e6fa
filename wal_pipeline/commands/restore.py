"""Restore: plan from the stores alone, check, bring the files back, and hand the cluster to PostgreSQL's recovery."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from wal_pipeline.archive.base_backup import BaseBackupManifest
from wal_pipeline.archive.layout import Layout
from wal_pipeline.archive.recovery_target import RecoveryTarget, TargetKind
from wal_pipeline.archive.restore_plan import RestorePlan, plan_restore
from wal_pipeline.commands.restore_action import require_action
from wal_pipeline.commands.restore_checks import (
    DiskNeed,
    TablespaceMove,
    check_disk,
    disk_needs,
    map_tablespaces,
    server_user,
)
from wal_pipeline.commands.restore_download import BaseBackupSource, DownloadFault
from wal_pipeline.commands.restore_folders import check_data_directory, check_folders, locked
from wal_pipeline.commands.restore_inventory import gather
from wal_pipeline.commands.restore_keys import check_identities
from wal_pipeline.commands.restore_place import (
    combine_chain,
    empty,
    extract_base_backup,
    link_tablespaces,
    own,
    remove_staging,
    verify_files,
    write_tablespace_map,
)
from wal_pipeline.commands.restore_untar import release_pg_control
from wal_pipeline.errors import RestoreError
from wal_pipeline.postgres.binaries import Binaries, find_binaries
from wal_pipeline.postgres.recovery import RecoverySettings, TargetAction, write_recovery_settings
from wal_pipeline.postgres.recovery_bound import bounded_command
from wal_pipeline.postgres.recovery_server import ServerUser
from wal_pipeline.stores.base import Store

_PROGRAMS: Final = ("postgres", "pg_verifybackup")


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """What a person asks for. ``tablespaces`` maps an oid or an old folder to a new folder.

    ``verify``: compare all files with PostgreSQL's manifest before the end. ``archiving`` False switches the
    restored server's archiving off, for a copy that lives beside its original.
    """

    pgdata: Path
    target: RecoveryTarget = field(default_factory=RecoveryTarget)
    action: TargetAction = TargetAction.PROMOTE
    base_backup: str | None = None
    force: bool = False
    owner: str | None = None
    tablespaces: Mapping[str, Path] = field(default_factory=dict)
    verify: bool = True
    archiving: bool = True
    bindir: Path | None = None


@dataclass(frozen=True, slots=True)
class PreparedRestore:
    """A restore that was planned and checked; nothing was written yet.

    ``chain`` is the full base backup first; the old content of the folders ``emptied`` is going to be removed.
    ``encrypted``: something is, and the identities at hand open it. ``stores`` are those that answered, ``silent`` the
    names of those that did not.
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
        """What is downloaded before the server starts; the WAL comes when it asks for it."""
        return sum(one.stored_size_bytes for one in self.chain)


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """What a restore did. ``seconds`` by phase: plan, download, combine, verify, finish."""

    pgdata: Path
    backup_ids: tuple[str, ...]
    timeline: int
    downloaded_bytes: int
    seconds: Mapping[str, float]
    faults: tuple[DownloadFault, ...]


@dataclass(slots=True)
class RestoreEvents:
    """Who is told what: a phase that begins, bytes that came (negative: they count no more), a copy passed over."""

    phase: Callable[[str], object] = lambda _: None
    bytes_came: Callable[[int], object] = lambda _: None
    fault: Callable[[DownloadFault], object] = lambda _: None


def prepare_restore(
    request: RestoreRequest, stores: Sequence[Store], layout: Layout, identities: Sequence[Any] = ()
) -> PreparedRestore:
    """Plan a restore from what the stores hold now, and check everything that can be checked before it.

    Raises: RecoveryTargetError, RestoreError, PostgresError, StoreError.
    """
    begun = time.monotonic()
    check_data_directory(request.pgdata, force=request.force)
    target = request.target
    found = gather(stores, layout, target.at or target.not_before_at, identities)
    plan = plan_restore(found.contents, target, base_backup=request.base_backup)
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


def perform_restore(
    prepared: PreparedRestore, restore_command: str, events: RestoreEvents | None = None
) -> RestoreResult:
    """Bring the files back and write the recovery settings; the server is not started.

    Until everything is in place and verified, ``global/pg_control`` has another name, so that nothing can start there.

    Raises: RestoreError, also where a store did not answer, CodecError, StoreError, PostgresError.
    """
    require_answers(prepared)
    return _Restore(prepared, restore_command, events or RestoreEvents()).run()


def require_answers(prepared: PreparedRestore) -> None:
    """Refuse a restore whose recovery could not end: at its end PostgreSQL asks for what must be proven absent.

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


class _Restore:
    def __init__(self, prepared: PreparedRestore, restore_command: str, events: RestoreEvents) -> None:
        self._prepared = prepared
        self._restore_command = restore_command
        self._events = events
        self._pgdata = prepared.request.pgdata.absolute()
        self._staging = self._pgdata.with_name(f".{self._pgdata.name}.wal-pipeline-restore")
        self._seconds = {"plan": prepared.plan_seconds}
        self._faults: list[DownloadFault] = []
        self._bytes = 0

    def run(self) -> RestoreResult:
        with locked(self._pgdata):
            return self._restore()

    def _restore(self) -> RestoreResult:
        chain = self._prepared.chain
        self._make_folders()
        try:
            if len(chain) == 1:
                self._place_full(chain[0])
            else:
                self._place_chain(chain)
            self._finish()
        except BaseException:
            self._keep_tablespaces()
            raise
        finally:
            remove_staging(self._staging)
        return RestoreResult(
            self._pgdata,
            tuple(one.backup_id for one in chain),
            self._prepared.plan.timeline,
            self._bytes,
            self._seconds,
            tuple(self._faults),
        )

    def _make_folders(self) -> None:
        """Make the staging folder, and empty what --force allows to empty: as it is now, not as it was planned.

        Raises: RestoreError where a folder may not be emptied, or was not to be when the plan was made.
        """
        request = self._prepared.request
        emptied = check_folders(request.pgdata, self._prepared.moves, force=request.force)
        unplanned = [folder for folder in emptied if folder not in self._prepared.emptied]
        if unplanned:
            raise RestoreError(f"'{unplanned[0]}' was empty when the restore was planned and is not any more")
        remove_staging(self._staging)
        try:
            self._staging.mkdir(mode=0o700, parents=True)
            for folder in emptied:
                empty(folder)
        except OSError as error:
            raise RestoreError(f"'{error.filename}' cannot be made or emptied: {error.strerror}") from error

    def _keep_tablespaces(self) -> None:
        """Have the failed data directory link to what was begun, so that --force knows it as its own the next time."""
        begun = {move.oid: move.new for move in self._prepared.moves if move.new.is_dir() and any(move.new.iterdir())}
        if begun:
            with suppress(OSError, RestoreError):
                (self._pgdata / "pg_tblspc").mkdir(mode=0o700, parents=True, exist_ok=True)
                link_tablespaces(self._pgdata, begun)

    def _folders(self) -> list[Path]:
        return [self._pgdata, *(move.new for move in self._prepared.moves)]

    def _place_full(self, manifest: BaseBackupManifest) -> None:
        with self._phase("download"):
            spaces = {move.oid: move.new for move in self._prepared.moves}
            extract_base_backup(manifest, self._source(manifest), self._pgdata, spaces)
        release_pg_control(self._pgdata)

    def _place_chain(self, chain: Sequence[BaseBackupManifest]) -> None:
        folders: list[Path] = []
        staged: dict[int, Path] = {}
        with self._phase("download"):
            for manifest in chain:
                folder = self._staging / manifest.backup_id
                staged = {
                    space.oid: self._staging / f"{manifest.backup_id}.{space.oid}" for space in manifest.tablespaces
                }
                extract_base_backup(manifest, self._source(manifest), folder, staged)
                folders.append(folder)
        with self._phase("combine"):
            combine_chain(self._prepared.binaries, folders, self._pgdata, staged, self._prepared.moves)

    def _finish(self) -> None:
        request, prepared = self._prepared.request, self._prepared
        if request.verify:
            with self._phase("verify"), _flushing():
                verify_files(prepared.binaries, self._pgdata)
        with self._phase("finish"):
            write_tablespace_map(self._pgdata, prepared.moves)
            write_recovery_settings(self._pgdata, recovery_settings(prepared, self._restore_command))
            own(self._folders(), prepared.user)
            os.sync()  # the server itself syncs only what it writes from now on

    def _source(self, manifest: BaseBackupManifest) -> BaseBackupSource:
        planned = next(one for one in self._prepared.plan.chain if one.backup.backup_id == manifest.backup_id)
        return BaseBackupSource(
            manifest,
            self._prepared.layout,
            [store for store in self._prepared.stores if store.name in planned.stores],
            identities=self._prepared.identities,
            staging=self._staging,
            # Of a chain pg_verifybackup sees only what was combined; of one base backup it reads every file.
            hash_tars=len(self._prepared.chain) > 1,
            on_bytes=self._came,
            on_fault=self._fault,
        )

    def _came(self, count: int) -> None:
        self._bytes += count
        self._events.bytes_came(count)

    def _fault(self, fault: DownloadFault) -> None:
        self._faults.append(fault)
        self._events.fault(fault)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        self._events.phase(name)
        begun = time.monotonic()
        yield
        self._seconds[name] = time.monotonic() - begun


@contextmanager
def _flushing() -> Iterator[None]:
    """Let the disk write while the block reads from memory; the sync at the end of the restore finds little left."""
    thread = threading.Thread(target=os.sync, name="flush", daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def recovery_settings(prepared: PreparedRestore, restore_command: str) -> RecoverySettings:
    """Return what the server is told: the plan's target, which may differ from the one that was asked for."""
    target, last = prepared.plan.target, prepared.plan.bound
    return RecoverySettings(
        restore_command=restore_command if last is None else bounded_command(restore_command, last),
        target=_target_setting(target),
        inclusive=target.inclusive,
        timeline=str(target.timeline),
        action=prepared.request.action,
        extra=() if prepared.request.archiving else (("archive_mode", "off"),),
    )


def _target_setting(target: RecoveryTarget) -> tuple[str, str] | None:
    match target.kind:
        case TargetKind.END:
            return None
        case TargetKind.IMMEDIATE:
            return "recovery_target", "immediate"
        case TargetKind.TIME:
            assert target.at is not None  # noqa: S101 - RecoveryTarget holds it so
            return "recovery_target_time", target.at.isoformat(" ")
        case _:
            return f"recovery_target_{target.kind.value}", str(target.lsn or target.xid or target.name)
