"""Stores the parts of a base backup one after the other: the tars from pg_basebackup, then PostgreSQL's file list."""

import io
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, Final

from wal_pipeline.archive.format.base_backup.manifest import (
    BASE_TAR,
    BackupObject,
    BackupTablespace,
    BackupTar,
    BaseBackupManifest,
    WalRange,
    backup_manifest_name,
    make_backup_id,
    tar_cuts_name,
    volume_name,
)
from wal_pipeline.archive.format.base_backup.report import BackupReport
from wal_pipeline.archive.format.base_backup.tar_cuts import Cuts, VolumeDatabases, cuts_to_json
from wal_pipeline.archive.format.configuration import configuration_name, configuration_to_tar
from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.records import BackupKind
from wal_pipeline.codec.stream_encoder import Source, StreamEncoder
from wal_pipeline.commands.backup.objects import object_metadata
from wal_pipeline.commands.backup.preconditions import require_folders
from wal_pipeline.commands.backup.remote.staging import staging
from wal_pipeline.commands.backup.remote.tar_volumes import TarStream
from wal_pipeline.commands.backup.upload import BackupUpload
from wal_pipeline.commands.backup.watch.waits import BackupWait, SilenceWatch
from wal_pipeline.errors import BaseBackupError
from wal_pipeline.postgres.backup_server import BackupServer, ServerTablespace
from wal_pipeline.postgres.pg_basebackup import BaseBackupCommand, BaseBackupRun
from wal_pipeline.postgres.server_facts import ServerFacts
from wal_pipeline.postgres.tar_watch import Sink, TarWatch
from wal_pipeline.wal.backup_label import BackupLabel, parse_backup_label, read_wal_ranges
from wal_pipeline.wal.names import require_file_name

_LABEL_FILE: Final = "backup_label"
_LIST_FILE: Final = "backup_manifest"
_INDEXED_VOLUMES: Final = 2  # where there is one volume, it is always needed, and nothing is extracted beside it
_log = logging.getLogger(__name__)


class BackupPhase(StrEnum):
    """The phase of a base backup."""

    WAITING = "waiting"  # PostgreSQL sends nothing, or another base backup runs
    STAGING = "staging"  # pg_basebackup writes into the staging folder
    COPYING = "copying"  # the tar is read, encoded and uploaded
    VERIFYING = "verifying"  # the last objects are stored and read back


@dataclass(frozen=True, slots=True)
class BackupProgress:
    """The progress of a base backup.

    ``total_bytes`` is the server's estimate of the tars' bytes (None: not known yet), of which ``read_bytes`` were
    read. ``stored_bytes`` were handed over for upload. ``wait`` is what it waits for, while it does.
    """

    phase: BackupPhase
    read_bytes: int
    total_bytes: int | None
    stored_bytes: int
    wait: BackupWait | None = None


ProgressCallback = Callable[[BackupProgress], object]


@dataclass(frozen=True, slots=True)
class BackupPlan:
    """The facts and choices before a base backup begins. ``command`` has no target yet.

    ``silence_seconds``: a server that sends nothing for so long is waited for no longer.
    """

    facts: ServerFacts
    tablespaces: tuple[ServerTablespace, ...]
    layout: Layout
    encoder: StreamEncoder
    command: BaseBackupCommand
    chain: tuple[str, ...]
    volume_size_bytes: int
    silence_seconds: float = 14400.0


class BackupSession:
    """One base backup from start to manifest. ``backup_id`` is known once PostgreSQL has sent its start.

    ``report`` is what PostgreSQL said of it, known at its end.
    """

    def __init__(
        self,
        server: BackupServer,
        plan: BackupPlan,
        on_progress: ProgressCallback,
        on_named: Callable[[str], object] = lambda _: None,
    ) -> None:
        """``on_named`` is called with the backup id, before the first object is stored."""
        self.backup_id: str | None = None
        self.report = BackupReport()
        self.can_be_resumed = False
        self.resumed_ids: tuple[str, ...] = ()
        self._on_named = on_named
        self._server = server
        self._plan = plan
        self._on_progress = on_progress
        self._read_bytes = 0
        self._total_bytes: int | None = None
        self._cuts: dict[str, Cuts] = {}
        self._databases: dict[str, VolumeDatabases] = {}
        self._folders: set[str] = set()

    def run(self, upload: BackupUpload, file_list: BinaryIO, staging_folder: Path | None) -> BaseBackupManifest:
        """Store all objects but the manifest, verified, and return the manifest.

        ``file_list`` is an empty file for ``backup_manifest``. Raises: BaseBackupError, PostgresError.
        """
        databases = self._server.databases()
        if self._plan.tablespaces:
            tars, finished_at = self._staged(upload, file_list, staging_folder)
        else:
            tars, finished_at = self._streamed(upload, file_list)
        require_folders(self._folders, databases & self._server.databases())
        listed = self._store_file_list(upload, file_list)
        tar_cuts = self._store_cuts(upload)
        configuration = self._store_configuration(upload)
        self._report(BackupPhase.VERIFYING, upload)
        upload.wait()
        manifest = self._manifest(tars, listed, tar_cuts, file_list, finished_at)
        return replace(manifest, configuration=configuration)

    def _streamed(self, upload: BackupUpload, file_list: BinaryIO) -> tuple[tuple[BackupTar, ...], datetime]:
        with (
            BaseBackupRun(self._plan.command, self._server.program_environment()) as run,
            self._watching(run, upload) as silence,
        ):

            def on_read(count: int) -> None:
                self._total_bytes = run.total_bytes
                run.require_nothing_lost()
                self._count(count, upload)

            label = bytearray()
            kept: dict[str, Sink] = {_LABEL_FILE: label.extend, _LIST_FILE: file_list.write}
            watch = TarWatch(kept, self._plan.volume_size_bytes)
            tar = TarStream(silence.source(run.tar), watch, on_read)
            if not tar.has_more():
                run.wait()
            self._begin(label, watch)
            volumes = self._store_volumes(upload, BASE_TAR, tar)
            run.wait()
            finished_at = self._server.as_of()
        self._folders |= watch.folders
        self.report = run.report
        tar.require_complete()
        if _LIST_FILE not in watch.seen:
            raise BaseBackupError("pg_basebackup's tar has no 'backup_manifest'")
        self._note_volumes(BASE_TAR, watch, len(volumes))
        return (BackupTar(BASE_TAR, tar.size_bytes, tar.sha256, volumes),), finished_at

    def _staged(
        self, upload: BackupUpload, file_list: BinaryIO, folder: Path | None
    ) -> tuple[tuple[BackupTar, ...], datetime]:
        if folder is None:
            raise BaseBackupError(
                f"the cluster has {len(self._plan.tablespaces)} tablespaces and there is no staging folder",
                hint="pg_basebackup streams one tar only. Set a staging folder with room for the whole cluster.",
            )
        _log.info("the cluster has %d tablespaces: staged in '%s'", len(self._plan.tablespaces), folder)
        with staging(folder, self._server.size_bytes()) as staged:
            self._fill(staged, upload)
            finished_at = self._server.as_of()
            with (staged / f"{BASE_TAR}.tar").open("rb") as base:
                label = bytearray()
                watch = TarWatch({_LABEL_FILE: label.extend})
                TarStream(base, watch).has_more()
                self._begin(label, watch)
            names = [*(str(space.oid) for space in self._plan.tablespaces), BASE_TAR]
            tars = tuple(self._store_staged(upload, staged, name) for name in names)
            listed = staged / _LIST_FILE
            if not listed.exists():  # pg_basebackup ends before it renames it where pages had wrong checksums
                listed = staged / f"{_LIST_FILE}.tmp"
            with listed.open("rb") as source:
                while data := source.read(1 << 20):
                    file_list.write(data)
        return tars, finished_at

    def _fill(self, staged: Path, upload: BackupUpload) -> None:
        command = replace(self._plan.command, target=staged)

        with (
            BaseBackupRun(command, self._server.program_environment()) as run,
            self._watching(run, upload) as silence,
        ):

            def tick() -> None:
                if run.done_bytes != self._read_bytes:
                    self._read_bytes, self._total_bytes = run.done_bytes, run.total_bytes
                    self._report(BackupPhase.STAGING, upload)

            silence.begins()
            run.wait(tick)
        self.report = run.report
        self._read_bytes = 0

    def _watching(self, run: BaseBackupRun, upload: BackupUpload) -> SilenceWatch:
        return SilenceWatch(
            self._server,
            self._plan.silence_seconds,
            done_bytes=lambda: run.done_bytes,
            tell=lambda wait: self._report(BackupPhase.WAITING, upload, wait),
            end=run.stop,
        )

    def _store_staged(self, upload: BackupUpload, staged: Path, name: str) -> BackupTar:
        path = staged / f"{name}.tar"
        with path.open("rb") as source:
            watch = TarWatch({}, self._plan.volume_size_bytes, name)
            tar = TarStream(source, watch, lambda count: self._count(count, upload))
            volumes = self._store_volumes(upload, name, tar)
            tar.require_complete()
        path.unlink()
        self._folders |= watch.folders if name == BASE_TAR else set()
        self._note_volumes(name, watch, len(volumes))
        return BackupTar(name, tar.size_bytes, tar.sha256, volumes)

    def _begin(self, label: bytearray, watch: TarWatch) -> BackupLabel:
        """Name the base backup after its start, which PostgreSQL sends in the tar's first file."""
        if _LABEL_FILE not in watch.seen:
            raise BaseBackupError("pg_basebackup's tar does not begin with 'backup_label'")
        found = parse_backup_label(label.decode("utf-8", "replace"))
        if (found.incremental_from is not None) != bool(self._plan.chain):
            expected = BackupKind.INCREMENTAL if self._plan.chain else BackupKind.FULL
            raise BaseBackupError(f"'backup_label' is of another kind of base backup, expected '{expected}'")
        self.backup_id = make_backup_id(self._plan.facts.server_at, require_file_name(found.start_segment))
        self._on_named(self.backup_id)
        return found

    def _store_volumes(self, upload: BackupUpload, name: str, tar: TarStream) -> tuple[BackupObject, ...]:
        encoder = self._plan.encoder
        objects = []
        for number, volume in enumerate(tar.volumes(self._plan.volume_size_bytes)):
            part = volume_name(name, number, encoder.codec, encrypted=encoder.encrypted)
            objects.append(self._store(upload, part, volume))
            objects[-1] = replace(objects[-1], content_size_bytes=volume.size_bytes)
        return tuple(objects)

    def _store_file_list(self, upload: BackupUpload, file_list: BinaryIO) -> BackupObject:
        size_bytes = file_list.tell()
        file_list.seek(0)
        encoder = self._plan.encoder
        name = backup_manifest_name(encoder.codec, encrypted=encoder.encrypted)
        return self._store(upload, name, file_list, size_bytes)

    def _note_volumes(self, name: str, watch: TarWatch, volumes: int) -> None:
        self._cuts[name] = watch.cuts[: volumes - 1]
        self._databases[name] = tuple(map(frozenset, watch.databases[:volumes]))

    def _store_cuts(self, upload: BackupUpload) -> BackupObject | None:
        if sum(map(len, self._databases.values())) < _INDEXED_VOLUMES:
            return None
        data, encoder = cuts_to_json(self._cuts, self._databases), self._plan.encoder
        name = tar_cuts_name(encoder.codec, encrypted=encoder.encrypted)
        return self._store(upload, name, io.BytesIO(data), len(data))

    def _store_configuration(self, upload: BackupUpload) -> BackupObject | None:
        kept, warnings = self._server.outside_configuration()
        self.report = replace(self.report, warnings=(*self.report.warnings, *warnings))
        if kept is None:
            return None
        data, encoder = configuration_to_tar(kept), self._plan.encoder
        name = configuration_name(encoder.codec, encrypted=encoder.encrypted)
        return self._store(upload, name, io.BytesIO(data), len(data))

    def _store(self, upload: BackupUpload, name: str, source: Source, content_size_bytes: int = 0) -> BackupObject:
        """Store one object. The caller sets a volume's content size, which is known only after reading."""
        if self.backup_id is None:
            raise BaseBackupError("the base backup has no id yet")
        key = self._plan.layout.base_key(self.backup_id, name)
        encode = self._plan.encoder.encode
        stored = upload.store_object(key, object_metadata(self.backup_id), lambda sink: encode(source, sink))
        return BackupObject(name, stored.size_bytes, stored.sha256, content_size_bytes)

    def _manifest(
        self,
        tars: Iterable[BackupTar],
        listed: BackupObject,
        tar_cuts: BackupObject | None,
        file_list: BinaryIO,
        finished_at: datetime,
    ) -> BaseBackupManifest:
        plan, facts = self._plan, self._plan.facts
        file_list.seek(0)
        ranges = tuple(WalRange(item.timeline, item.start_lsn, item.end_lsn) for item in read_wal_ranges(file_list))
        return BaseBackupManifest(
            backup_id=self.backup_id or "",
            kind=BackupKind.INCREMENTAL if plan.chain else BackupKind.FULL,
            chain=plan.chain,
            report=self.report,
            system_identifier=facts.system_identifier,
            wal_ranges=ranges,
            started_at=facts.server_at,
            finished_at=finished_at,
            label=plan.command.label,
            wal_segment_size=facts.wal_segment_size,
            server_version=facts.server_version_num,
            codec=plan.encoder.codec,
            encrypted=plan.encoder.encrypted,
            staged=bool(plan.tablespaces),
            volume_size_bytes=plan.volume_size_bytes,
            tablespaces=tuple(BackupTablespace(space.oid, space.location) for space in plan.tablespaces),
            tars=tuple(tars),
            backup_manifest=listed,
            tar_cuts=tar_cuts,
        )

    def _count(self, count: int, upload: BackupUpload) -> None:
        self._read_bytes += count
        self._report(BackupPhase.COPYING, upload)

    def _report(self, phase: BackupPhase, upload: BackupUpload, wait: BackupWait | None = None) -> None:
        self._on_progress(BackupProgress(phase, self._read_bytes, self._total_bytes, upload.stored_bytes, wait))
