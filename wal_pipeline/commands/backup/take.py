"""Takes a base backup, records it, and waits until each store can restore it."""

import logging
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from wal_pipeline.archive.format.base_backup.manifest import BaseBackupManifest
from wal_pipeline.archive.format.base_backup.manifest_json import parse_manifest, to_json
from wal_pipeline.archive.format.base_backup.report import REPORT_NAME
from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.format.lease import LeasedWork
from wal_pipeline.archive.records import BackupKind, BackupMethod, BaseBackup, MethodChoice
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.codec.stream_encoder import StreamEncoder
from wal_pipeline.commands.backup.begin import SessionStart
from wal_pipeline.commands.backup.kind import ChosenKind, ParentWish, choose_kind, is_no_block, why_not_since_parent
from wal_pipeline.commands.backup.lease import held_lease
from wal_pipeline.commands.backup.leftovers import clean_leftovers, try_remove
from wal_pipeline.commands.backup.local.method import ChosenMethod, choose_backup_method
from wal_pipeline.commands.backup.local.processes.spawned import SpawnedAhead
from wal_pipeline.commands.backup.local.session import LocalSession
from wal_pipeline.commands.backup.objects import object_metadata
from wal_pipeline.commands.backup.options import BackupOptions, check_options
from wal_pipeline.commands.backup.parent import ParentBackup, parent_folder
from wal_pipeline.commands.backup.preconditions import (
    require_cluster,
    require_note,
    require_ready,
    require_segment_size,
)
from wal_pipeline.commands.backup.restorable import BaseBackupRecorder, StoreOutcome
from wal_pipeline.commands.backup.session import (
    BackupPhase,
    BackupProgress,
    BackupSession,
    ProgressCallback,
)
from wal_pipeline.commands.backup.upload import BackupUpload
from wal_pipeline.commands.backup.watch.alarms import BackupAlarms
from wal_pipeline.commands.backup.watch.waits import BackupWait
from wal_pipeline.commands.continuity.archived import stored_segment_size
from wal_pipeline.commands.relations.keep import KeepAttempt
from wal_pipeline.errors import BaseBackupError, PostgresError
from wal_pipeline.host.limits import usable_cores
from wal_pipeline.postgres.backup_server import BackupServer
from wal_pipeline.postgres.server_facts import ServerFacts
from wal_pipeline.stores.base import Store
from wal_pipeline.stores.cluster_store import ClusterStore

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BaseBackupResult:
    """A base backup that at least one store has. ``failures``: why the other stores lack it, by their names.

    ``why_remote``: why pg_basebackup took it, where the method was to be chosen; None otherwise.
    """

    manifest: BaseBackupManifest
    stored_on: tuple[str, ...]
    failures: dict[str, str]
    seconds: float
    why_remote: str | None = None

    @property
    def record(self) -> BaseBackup:
        """The base backup as the catalog knows it."""
        return self.manifest.record()


def take_base_backup(
    server: BackupServer,
    pg_basebackup: Path | None,
    stores: Sequence[Store],
    layout: Layout,
    *,
    encoder: StreamEncoder,
    options: BackupOptions,
    parent: ParentBackup | None = None,
    method: ChosenMethod = ChosenMethod(),  # noqa: B008 - it is frozen
    identities: Sequence[Any] = (),
    ahead: SpawnedAhead | None = None,
    clock: Callable[[], datetime],
    on_progress: ProgressCallback = lambda _: None,
) -> BaseBackupResult:
    """Take a base backup, incremental where there is a ``parent``, and store it on every store that takes it.

    ``pg_basebackup`` is the program's path, which the method ``local`` does not need; ``ahead`` are worker processes
    of that method which were started already.

    It exists on a store once its manifest is there, and is restorable from there once ``await_wal`` finds the WAL that
    it needs there too.

    Raises: BaseBackupError where the server cannot be backed up or no store took it; PostgresError.
    """
    check_options(options)
    facts = server.facts()
    require_ready(facts, layout, parent, method.method)
    places = [ClusterStore(store, layout) for store in stores]
    for place in places:
        require_segment_size(facts, stored_segment_size(place))

    def on_wait(text: str) -> None:
        wait = BackupWait(text, clock(), is_archiver=False)
        on_progress(BackupProgress(BackupPhase.WAITING, 0, None, 0, wait))

    lease = held_lease(
        places,
        LeasedWork.BASE_BACKUP,
        clock=clock,
        needs=parent.chain if parent else (),
        wait_seconds=options.wait_seconds,
        on_wait=on_wait,
    )
    with lease as held:
        for place in held.places:
            clean_leftovers(place, clock(), options.unfinished_after)
        start = SessionStart(
            server,
            layout,
            encoder,
            options,
            parent,
            pg_basebackup,
            held.places,
            identities,
            ahead or SpawnedAhead(),
        )
        session = start.session(method.method, on_progress, held.protect)
        result = _stored_by(session, held.places, layout, options)
    reasons = {name: str(getattr(error, "message", error)) for name, error in held.failures.items()}
    return replace(result, failures={**reasons, **result.failures}, why_remote=method.why_remote)


def _stored_by(
    session: BackupSession | LocalSession, places: Sequence[ClusterStore], layout: Layout, options: BackupOptions
) -> BaseBackupResult:
    """Run the session and store its manifest. Where that fails, only what a later one can go on with stays."""
    begun = time.monotonic()
    options.scratch_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    limits = options.limits
    if isinstance(session, LocalSession):
        limits = limits.for_workers(options.workers or usable_cores())
    try:
        with (
            BackupUpload([place.store for place in places], limits, read_back=options.read_back) as upload,
            tempfile.TemporaryFile(dir=options.scratch_folder) as file_list,
        ):
            manifest = replace(session.run(upload, file_list, options.staging), note=options.note)
            _store_manifest(upload, layout, manifest)
            stored_on, failures = tuple(store.name for store in upload.live_stores), upload.failures
    except BaseException:
        if not session.can_be_resumed:
            _remove_all(places, session.backup_id)
        raise
    for resumed_id in session.resumed_ids:
        _remove_all(places, resumed_id)
    reasons = {name: str(getattr(error, "message", error)) for name, error in failures.items()}
    return BaseBackupResult(manifest, stored_on, reasons, time.monotonic() - begun)


def _store_manifest(upload: BackupUpload, layout: Layout, manifest: BaseBackupManifest) -> None:
    """Store the manifest where every object has been verified: from then on the base backup exists.

    It is parsed first as a restore parses it: a manifest that a restore refuses must not be stored. Each object is
    looked at once more, for the first was stored hours ago: a manifest must not name what is gone.
    """
    data = to_json(manifest)
    parse_manifest(data, backup_id=manifest.backup_id)
    metadata = object_metadata(manifest.backup_id)
    if not manifest.report.is_empty:
        report = (manifest.report.without_names() if manifest.encrypted else manifest.report).to_json()
        upload.store_object(layout.base_key(manifest.backup_id, REPORT_NAME), metadata, lambda sink: sink(report))
        upload.wait()
    upload.look_again()
    upload.store_object(layout.manifest_key(manifest.backup_id), metadata, lambda sink: sink(data))
    upload.wait()


def _remove_all(places: Sequence[ClusterStore], backup_id: str | None) -> None:
    if backup_id is not None:
        for place in places:
            try_remove(place, backup_id)


@dataclass(frozen=True, slots=True)
class BackupOutcome:
    """A base backup that at least one store has, and its outcome on each store.

    ``notes`` say why it is a full one though an incremental one was asked for, and what lacks in the list of relations
    that was kept with it.
    """

    result: BaseBackupResult
    stores: tuple[StoreOutcome, ...]
    notes: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether it can be restored from every store."""
        return all(outcome.restorable for outcome in self.stores)

    @property
    def sound(self) -> bool:
        """Whether it is complete, and no page was damaged when it was taken."""
        return self.complete and not self.result.manifest.report.damaged_pages


class BaseBackupTaker:
    """Takes base backups of one server onto its stores and records them; without the catalog, the copies count."""

    def __init__(
        self,
        *,
        server: BackupServer,
        find_program: Callable[[int], Path],
        stores: Mapping[str, Store],
        layout: Callable[[int], Layout],
        encoder: StreamEncoder,
        options: BackupOptions,
        catalog: Catalog,
        clock: Callable[[], datetime],
        identities: Sequence[Any] = (),
        wal_timeout_seconds: float = 600.0,
        archive: Callable[[], object] | None = None,
        keep_relations: Callable[[], KeepAttempt] = lambda: KeepAttempt(is_kept=True),
        finish_wal: Callable[[BaseBackupManifest], object] = lambda _: None,
        ahead: SpawnedAhead | None = None,
    ) -> None:
        """``find_program`` returns pg_basebackup for a major version; ``archive`` brings waiting WAL to the stores.

        ``keep_relations`` keeps a list of the cluster's relations, and raises nothing. ``finish_wal`` has the segments
        finished that a base backup waits for, where its server cannot do so, and raises nothing. ``ahead`` are worker
        processes that were started already.
        """
        self._server = server
        self._find_program = find_program
        self._stores = stores
        self._layout = layout
        self._encoder = encoder
        self._options = options
        self.recorder = BaseBackupRecorder(
            stores, catalog, clock, wal_timeout_seconds=wal_timeout_seconds, archive=archive
        )
        self._clock = clock
        self._identities = identities
        self._keep_relations = keep_relations
        self._finish_wal = finish_wal
        self._ahead = ahead
        self._alarms = BackupAlarms(catalog, clock)

    def take(
        self,
        *,
        incremental: bool = False,
        parent_id: str | None = None,
        or_full: bool = False,
        note: str = "",
        wait_seconds: float = 0.0,
        on_progress: ProgressCallback = lambda _: None,
    ) -> BackupOutcome:
        """Take a base backup, incremental on ``parent_id`` or the newest one that all stores have.

        ``or_full``: where no incremental one can be had, a full one is taken. ``note`` stays with it. Another one of
        the same cluster that is running is waited for up to ``wait_seconds``.

        Raises: BaseBackupError where it failed or no store took it; BaseBackupRunningError where another one is
        running; PostgresError; SettingsError, also for a note of several lines.
        """
        options = replace(self._options, wait_seconds=wait_seconds, note=require_note(note))
        wish = ParentWish(parent_id, or_full, options.max_chain)
        told = self._alarms.told(on_progress)
        with self._alarms.watching():
            result, notes = self._take(wish if incremental or parent_id is not None else None, options, told)
        self._finish_wal(result.manifest)
        layout = self._layout(result.manifest.system_identifier)
        outcomes = self.recorder.settle(result.manifest, layout, [_stored(name, result) for name in self._stores])
        self._alarms.taken(result.record)
        return BackupOutcome(result, outcomes, notes)

    def _take(
        self, wish: ParentWish | None, options: BackupOptions, on_progress: ProgressCallback
    ) -> tuple[BaseBackupResult, tuple[str, ...]]:
        facts = self._server.facts()
        require_cluster(facts, self._options.system_identifier)
        listed = self._keep_relations()  # before it begins: a base backup has a list that is not younger than it
        layout, stores = self._layout(facts.system_identifier), list(self._stores.values())
        options.scratch_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with parent_folder(options.scratch_folder) as folder:
            kind = ChosenKind(None)
            if wish is not None:
                places = [ClusterStore(store, layout) for store in stores]
                check = partial(self._check_parent, facts, layout)
                kind = choose_kind(places, wish, check, identities=self._identities, folder=folder)

            def take(parent: ParentBackup | None, method: ChosenMethod) -> BaseBackupResult:
                is_local = method.method is BackupMethod.LOCAL
                return take_base_backup(
                    self._server,
                    None if is_local else self._find_program(facts.major_version),
                    stores,
                    layout,
                    encoder=self._encoder,
                    options=options,
                    parent=parent,
                    method=method,
                    identities=self._identities,
                    ahead=self._ahead,
                    clock=self._clock,
                    on_progress=on_progress,
                )

            method = self._method(facts, kind.parent)
            try:
                result = self._by_block_or_file(take, kind.parent, method)
            except BaseBackupError as error:
                why_full = why_not_since_parent(error) if wish is not None and wish.or_full and kind.parent else None
                if why_full is None:
                    raise
                kind = ChosenKind(None, why_full)
                result = take(None, self._method(facts, None))
            if kind.parent is not None and result.manifest.kind is BackupKind.FULL:
                kind = ChosenKind(None, f"no file is as it was in '{kind.parent.manifest.backup_id}'")
        # The first base backup may be the first thing on the stores: a list that is a little younger names the same.
        return result, (*kind.notes, *(listed if listed.is_kept else self._keep_relations()).notes)

    def _by_block_or_file(
        self,
        take: Callable[[ParentBackup | None, ChosenMethod], BaseBackupResult],
        parent: ParentBackup | None,
        method: ChosenMethod,
    ) -> BaseBackupResult:
        """Take a base backup; where the server cannot send the changed blocks after all, refer to unchanged files.

        Raises: as ``take_base_backup``.
        """
        try:
            return take(parent, method)
        except (BaseBackupError, PostgresError) as error:
            is_chosen = self._options.method is MethodChoice.AUTO and method.method is BackupMethod.REMOTE
            could_be_local = parent is not None and parent.manifest.method is BackupMethod.LOCAL
            if not (is_chosen and could_be_local) or not is_no_block(error):
                raise
            _log.warning("unchanged files are referred to, because the server sends no blocks: %s", error.message)
        return take(parent, self._method(None, parent))

    def _method(self, facts: ServerFacts | None, parent: ParentBackup | None) -> ChosenMethod:
        """Choose the method. Without the server's ``facts`` its own incremental base backups are out of question."""
        options, manifest = self._options, parent.manifest if parent else None
        return choose_backup_method(options.method, self._server, options.pgdata, manifest, facts)

    def _check_parent(self, facts: ServerFacts, layout: Layout, parent: ParentBackup) -> None:
        require_ready(facts, layout, parent, self._method(facts, parent).method)


def _stored(store: str, result: BaseBackupResult) -> StoreOutcome:
    return StoreOutcome(store, store in result.stored_on, error=result.failures.get(store))


def audit_entry(outcome: "BackupOutcome") -> dict[str, object]:
    """Return the audit log's entry for a base backup."""
    manifest = outcome.result.manifest
    states = {
        one.store: "restorable" if one.restorable else "stored" if one.stored else "missing" for one in outcome.stores
    }
    result = "incomplete" if not outcome.complete else "restorable" if outcome.sound else "restorable, damaged pages"
    return {"subject": manifest.backup_id, "result": result, "kind": manifest.kind.value, "stores": states}
