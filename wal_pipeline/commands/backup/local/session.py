"""One base backup of the method ``local``, from start to manifest: workers read the server's own data directory."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

from wal_pipeline.archive.format.base_backup.file_index import IndexedFile, index_lines
from wal_pipeline.archive.format.base_backup.manifest import (
    BackupTablespace,
    BaseBackupManifest,
    WalRange,
    backup_manifest_name,
    file_index_name,
    make_backup_id,
)
from wal_pipeline.archive.format.base_backup.report import BackupReport
from wal_pipeline.archive.format.configuration import configuration_name, configuration_to_tar
from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.records import BackupKind, BackupMethod
from wal_pipeline.codec.stream_encoder import StreamEncoder
from wal_pipeline.commands.backup.local.bundles import Bundle, plan_bundles
from wal_pipeline.commands.backup.local.file_worker import CompareTask, FileWorker, PackTask, Task
from wal_pipeline.commands.backup.local.last_volume import LastVolume
from wal_pipeline.commands.backup.local.packed import PackedVolumes
from wal_pipeline.commands.backup.local.parent_files import ParentFiles, ReferredVolumes
from wal_pipeline.commands.backup.local.processes.count import choose_processes
from wal_pipeline.commands.backup.local.processes.messages import WorkerSetup
from wal_pipeline.commands.backup.local.processes.spawned import SpawnedAhead
from wal_pipeline.commands.backup.local.processes.worker_process import WorkerProcess, worker_calls
from wal_pipeline.commands.backup.local.processes.workers import FileWorkers
from wal_pipeline.commands.backup.local.read_meter import ReadMeter
from wal_pipeline.commands.backup.local.resume.copier import VolumeCopier
from wal_pipeline.commands.backup.local.resume.find import UnfinishedBackup, find_unfinished
from wal_pipeline.commands.backup.local.resume.index_parts import IndexParts
from wal_pipeline.commands.backup.local.resume.units import resume_units
from wal_pipeline.commands.backup.local.stored_objects import StoredObjects
from wal_pipeline.commands.backup.local.volume_packer import VolumePacker
from wal_pipeline.commands.backup.preconditions import require_folders, require_nothing_lost
from wal_pipeline.commands.backup.session import BackupPhase, BackupProgress, ProgressCallback
from wal_pipeline.commands.backup.upload import BackupUpload
from wal_pipeline.commands.backup.watch.waits import BackupWait
from wal_pipeline.host.limits import usable_cores
from wal_pipeline.postgres.backup_server import BackupServer, ServerTablespace
from wal_pipeline.postgres.data_files import DataFile, SkippedEntries, walk_data_files
from wal_pipeline.postgres.online_backup import OnlineBackup, RunningBackup, StoppedBackup
from wal_pipeline.postgres.server_facts import ServerFacts
from wal_pipeline.postgres.started_backup import StartedBackup
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.names import segment_at

_SILENT_SECONDS: Final = 15.0
_LOOK_SECONDS: Final = 30.0
_SHOWN_WARNINGS: Final = 20
_TOLD_BYTES: Final = 16 << 20
_PACED_BYTES: Final = 256 << 10
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LocalPlan:
    """The facts and choices before a base backup begins. ``pgdata`` is proven to be the server's own.

    ``workers`` processes read at the same time (None: as many as there are cores, and none where the cluster is small),
    together ``max_rate_kib`` a second at most (None: as fast as they can). ``ahead`` starts them, or did so before.
    With ``parent`` what has not changed since is not stored again. A base backup that was cut is gone on with where it
    lies on all ``places``; ``identities`` open its index where that is encrypted.
    """

    facts: ServerFacts
    tablespaces: tuple[ServerTablespace, ...]
    layout: Layout
    encoder: StreamEncoder
    pgdata: Path
    label: str
    fast_checkpoint: bool
    volume_size_bytes: int
    workers: int | None
    max_rate_kib: int | None = None
    parent: ParentFiles | None = None
    places: Sequence[ClusterStore] = ()
    identities: Sequence[Any] = ()
    ahead: SpawnedAhead = field(default_factory=SpawnedAhead)


class LocalSession:
    """One base backup from start to manifest. ``backup_id`` is known once the server is in backup mode.

    ``resumed_ids`` are the base backups that were cut and gone on with, once all of them is in this one.
    """

    def __init__(
        self,
        server: BackupServer,
        plan: LocalPlan,
        on_progress: ProgressCallback,
        on_named: Callable[[str], object] = lambda _: None,
    ) -> None:
        """``on_named`` is called with the backup id, before the first object is stored."""
        self.backup_id: str | None = None
        self.resumed_ids: tuple[str, ...] = ()
        self._parts: IndexParts | None = None
        self._server = server
        self._plan = plan
        self._on_progress = on_progress
        self._on_named = on_named
        self._meter = ReadMeter(plan.max_rate_kib)
        self._packed = PackedVolumes()
        self._skipped = SkippedEntries()
        self._total_bytes: int | None = None
        self._looked_at = time.monotonic()

    def run(self, upload: BackupUpload, file_list: BinaryIO, staging_folder: Path | None = None) -> BaseBackupManifest:  # noqa: ARG002
        """Store all objects but the manifest, verified, and return the manifest.

        ``file_list`` is an empty file for ``backup_manifest``; nothing is staged. Raises: BaseBackupError,
        PostgresError.
        """
        plan = self._plan
        processes = choose_processes(plan.workers, plan.pgdata)
        with ExitStack() as stack:
            # First, because they take a while to load.
            threads, start = plan.workers or usable_cores(), lambda: WorkerProcess(plan.ahead.take())
            workers = stack.enter_context(FileWorkers(processes, threads, start))
            plan.ahead.close()
            databases = self._server.databases()
            unfinished = find_unfinished(plan.places, plan.encoder, plan.identities)
            running = stack.enter_context(self._started(upload))
            started = running.started
            self.backup_id = make_backup_id(
                started.started_at, segment_at(started.timeline, started.start_lsn, plan.facts.wal_segment_size)
            )
            self._on_named(self.backup_id)
            files = self._walk(databases)
            objects = StoredObjects(self.backup_id, plan.layout, plan.encoder, upload)
            packer = VolumePacker(
                self.backup_id,
                started,
                plan.encoder,
                objects.store,
                self._packed,
                plan.volume_size_bytes,
                self._meter.note,
            )
            self._parts = IndexParts(self.backup_id, started.start_lsn, plan.places, plan.encoder)
            self._begin(workers, FileWorker(VolumeCopier(objects, packer)), objects)
            self._pack(workers, unfinished, files, running, upload)
            self._parts.store_news(self._packed, is_last=True)
            last = LastVolume(plan.pgdata, [file for file in files if file.is_folder], self._packed)
            last.copy_control_file()
            stopped = running.stop()
        last.store(packer, stopped, file_list)
        manifest = self._manifest(objects, started, stopped, file_list)
        self._report(BackupPhase.VERIFYING, upload)
        upload.wait()
        if self._parts is not None:
            self._parts.remove()
        self.resumed_ids = tuple(one.backup_id for one in unfinished)
        return manifest

    @contextmanager
    def _started(self, upload: BackupUpload) -> Iterator[RunningBackup]:
        """Put the server into backup mode, and say so where its checkpoint takes long."""
        begun_at = datetime.now(UTC)

        def tell() -> None:
            wait = BackupWait("PostgreSQL waits for a checkpoint", begun_at, is_archiver=False)
            self._report(BackupPhase.WAITING, upload, wait)

        timer = threading.Timer(_SILENT_SECONDS, tell)
        timer.daemon = True
        timer.start()
        try:
            with OnlineBackup(self._server).started(self._plan.label, fast=self._plan.fast_checkpoint) as running:
                timer.cancel()
                yield running
        finally:
            timer.cancel()

    def _walk(self, databases: frozenset[int]) -> list[DataFile]:
        plan = self._plan
        files = list(walk_data_files(plan.pgdata, plan.facts.major_version, self._skipped))
        require_nothing_lost(self._skipped.lost)
        found = {file.path for file in files}
        require_folders(found, databases & self._server.databases())
        self._total_bytes = sum(file.size_bytes for file in files)
        return files

    def _pack(
        self,
        workers: FileWorkers,
        unfinished: Sequence[UnfinishedBackup],
        files: list[DataFile],
        running: RunningBackup,
        upload: BackupUpload,
    ) -> None:
        """Store all files: first what can be copied, so that what is newer lies in later volumes."""
        parent = self._plan.parent
        candidates = parent.candidates(files) if parent is not None else {}

        def tick() -> None:
            self._report(BackupPhase.COPYING, upload)
            if self._parts is not None:
                self._parts.store_news(self._packed)
            if time.monotonic() - self._looked_at > _LOOK_SECONDS:
                running.require_running()
                self._looked_at = time.monotonic()

        def stop() -> None:
            self._meter.stop()
            upload.give_up()

        for one in unfinished:
            _log.info("base backup '%s', which was cut, is gone on with", one.backup_id)
        taken: set[str] = set()
        for units in resume_units(unfinished, [file for file in files if file.path not in candidates]):
            workers.run(units, stop=stop, tick=tick)
            taken.update(file.path for unit in units for file in unit.files)
        files = [file for file in files if file.path not in taken]
        bundles = plan_bundles(files, self._plan.volume_size_bytes, candidates)
        workers.run((self._task(bundle, candidates) for bundle in bundles), stop=stop, tick=tick)

    def _task(self, bundle: Bundle, candidates: Mapping[str, IndexedFile]) -> Task:
        parent = self._plan.parent
        if parent is None or bundle[0].path not in candidates:
            return PackTask(bundle)
        return CompareTask(tuple((file, parent.known(candidates[file.path])) for file in bundle))

    def _begin(self, workers: FileWorkers, here: FileWorker, objects: StoredObjects) -> None:
        packer, is_paced = here.copier.packer, self._plan.max_rate_kib is not None
        setup = WorkerSetup(
            packer.backup_id,
            packer.started,
            packer.encoder,
            packer.volume_size_bytes,
            _PACED_BYTES if is_paced else _TOLD_BYTES,
            is_paced,
        )
        workers.begin(here, setup, worker_calls(self._packed, objects, self._meter.note), objects.store_encoded)

    @property
    def can_be_resumed(self) -> bool:
        """Whether a later base backup can go on with what this one stored."""
        return self._parts is not None and self._parts.is_begun

    def _manifest(
        self, objects: StoredObjects, started: StartedBackup, stopped: StoppedBackup, file_list: BinaryIO
    ) -> BaseBackupManifest:
        plan, packed = self._plan, self._packed
        referred = ReferredVolumes(plan.parent, packed.unchanged.values()) if plan.parent is not None else None
        encoder = plan.encoder
        file_list.seek(0)
        listed = objects.store_described(
            backup_manifest_name(encoder.codec, encrypted=encoder.encrypted),
            iter(lambda: file_list.read(1 << 20), b""),
        )
        files = list(packed.files.values())
        if referred is not None:
            files = [*referred.files(), *map(referred.moved, files)]
        chain = referred.chain if referred is not None else ()
        index = objects.store_described(
            file_index_name(encoder.codec, encrypted=encoder.encrypted),
            index_lines(files, {**(referred.start_lsns if referred else {}), objects.backup_id: started.start_lsn}),
        )
        kept, warnings = self._server.outside_configuration()
        configuration = None
        if kept is not None:
            name = configuration_name(encoder.codec, encrypted=encoder.encrypted)
            configuration = objects.store_described(name, [configuration_to_tar(kept)])
        return BaseBackupManifest(
            backup_id=objects.backup_id,
            kind=BackupKind.INCREMENTAL if chain else BackupKind.FULL,
            chain=chain,
            system_identifier=plan.facts.system_identifier,
            wal_ranges=(WalRange(started.timeline, started.start_lsn, stopped.stop_lsn),),
            started_at=started.started_at,
            finished_at=self._server.as_of() if plan.facts.in_recovery else stopped.finished_at,
            label=plan.label,
            wal_segment_size=plan.facts.wal_segment_size,
            server_version=plan.facts.server_version_num,
            codec=encoder.codec,
            encrypted=encoder.encrypted,
            staged=False,
            volume_size_bytes=plan.volume_size_bytes,
            tablespaces=tuple(BackupTablespace(space.oid, space.location) for space in plan.tablespaces),
            tars=(),
            backup_manifest=listed,
            configuration=configuration,
            method=BackupMethod.LOCAL,
            volumes=(*(referred.volumes if referred else ()), *packed.volumes()),
            file_index=index,
            files_size_bytes=sum(file.size_bytes for file in files),
            report=BackupReport(self._warnings(warnings), packed.damaged_pages(stopped.stop_lsn)),
        )

    def _warnings(self, more: tuple[str, ...]) -> tuple[str, ...]:
        unchecked = (
            f"the checksums of '{path}' are not verified to its end: its size is no multiple of a page's"
            for path in sorted(self._packed.unchecked)
        )
        found = (*self._skipped.warnings, *unchecked)
        rest = (f"and {len(found) - _SHOWN_WARNINGS} more warnings",) if len(found) > _SHOWN_WARNINGS else ()
        return (*found[:_SHOWN_WARNINGS], *rest, *more)

    def _report(self, phase: BackupPhase, upload: BackupUpload, wait: BackupWait | None = None) -> None:
        read_bytes = self._meter.read_bytes
        self._on_progress(BackupProgress(phase, read_bytes, self._total_bytes, upload.stored_bytes, wait))
