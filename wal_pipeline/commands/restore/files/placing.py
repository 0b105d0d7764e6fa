"""Puts the files of a restore's base backups in place: one by itself, what is missing of it, or a chain combined."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from wal_pipeline.archive.format.base_backup.file_index import FileIndex
from wal_pipeline.archive.format.base_backup.manifest import BaseBackupManifest
from wal_pipeline.archive.records import BackupMethod
from wal_pipeline.commands.archive_get.wal_source import StoreHealth
from wal_pipeline.commands.restore.chosen.left_out import LeftOutDatabases, check_parts, fill_left_out
from wal_pipeline.commands.restore.download import BaseBackupSource
from wal_pipeline.commands.restore.files.fetch import DownloadFault, ObjectFetcher
from wal_pipeline.commands.restore.files.listed_files import BACKUP_MANIFEST, read_backup_manifest
from wal_pipeline.commands.restore.files.local import LocalFiles
from wal_pipeline.commands.restore.files.on_disk import FilePlaces
from wal_pipeline.commands.restore.files.small_objects import read_file_index
from wal_pipeline.commands.restore.files.tars import KeptFiles, UnwantedFiles, keep_right_files
from wal_pipeline.commands.restore.place import combine_chain, complete, extract_base_backup, verify_files
from wal_pipeline.commands.restore.prepare import PreparedRestore
from wal_pipeline.stores.cluster_store import ClusterStore


@dataclass(frozen=True, slots=True)
class PlacingEvents:
    """Takes the progress: ``phase`` is open while it lasts; ``will_fetch`` gets the bytes once they are known."""

    phase: Callable[[str], AbstractContextManager[None]]
    will_fetch: Callable[[int], object]
    bytes_came: Callable[[int], object]
    fault: Callable[[DownloadFault], object]


@dataclass(slots=True)
class FilePlacing:
    """The files of one restore on their way into the data directory and the tablespaces.

    ``keeps``: what is right in these folders stays. ``staging`` takes what is downloaded. ``global/pg_control`` is held
    back when it ends.
    """

    prepared: PreparedRestore
    staging: Path
    keeps: bool
    events: PlacingEvents
    kept_bytes: int = 0
    proven: Mapping[str, bytes] = field(default_factory=dict)
    left_out_folders: tuple[str, ...] = ()
    warnings: list[str] = field(default_factory=list)
    _health: StoreHealth = field(default_factory=StoreHealth)

    def run(self) -> None:
        """Put all files in place. Raises: RestoreError, CodecError, StoreError, PostgresError."""
        chain, index = self.prepared.chain, self.prepared.index
        if len(chain) > 1:
            self._place_chain(chain)
            return
        if index is not None:
            self._place_local(chain[0], index)
        else:
            self._place_tars(chain[0])
        if self._left_out is not None:
            self.left_out_folders = fill_left_out(self._pgdata, [self._pgdata], self._left_out)

    @property
    def _pgdata(self) -> Path:
        return self.prepared.request.pgdata.absolute()

    @property
    def _left_out(self) -> LeftOutDatabases | None:
        return None if self.prepared.chosen is None else self.prepared.chosen.left_out

    @property
    def _places(self) -> FilePlaces:
        return FilePlaces(self._pgdata, {move.oid: move.new for move in self.prepared.moves})

    def _place_local(self, manifest: BaseBackupManifest, index: FileIndex) -> None:
        request = self.prepared.request
        proves = request.verify and not request.uses_pg_verifybackup
        files = self._local_files(manifest, index, self._places, proves=proves)
        if self.keeps:
            with self.events.phase("compare"):
                files.keep()
                self.kept_bytes = files.compared.kept_bytes
        with self.events.phase("download"):
            self.events.will_fetch(files.download_bytes)
            files.place(self._fetcher(), self.prepared.identities)
            complete(self._source(manifest), self._places)
        self.proven = files.proven

    def _local_files(
        self, manifest: BaseBackupManifest, index: FileIndex, places: FilePlaces, *, proves: bool
    ) -> LocalFiles:
        left_out = () if self._left_out is None else self._left_out.names
        return LocalFiles(manifest, index, places, self.prepared.request.worker_count, left_out, proves=proves)

    def _place_tars(self, manifest: BaseBackupManifest) -> None:
        kept = self._kept_files(manifest) if self.keeps else None
        with self.events.phase("download"):
            self.events.will_fetch(self.prepared.download_bytes if kept is None else kept.fetched_bytes(manifest))
            extract_base_backup(manifest, self._source(manifest, kept), self._pgdata, self._places.spaces)

    def _kept_files(self, manifest: BaseBackupManifest) -> KeptFiles:
        """Find out what is right already in the folders, remove the rest, and choose the volumes that are needed."""
        with self.events.phase("compare"):
            listed = self.staging / BACKUP_MANIFEST
            source = self._source(manifest)
            source.write_backup_manifest(listed)
            left_out = self._left_out or LeftOutDatabases()
            files = read_backup_manifest(listed).files
            right = keep_right_files(files, self._places, left_out.names, workers=self.prepared.request.worker_count)
            self.kept_bytes = sum(files[name].size_bytes for name in right)
            self.proven = right
            return KeptFiles(right, left_out, source.volumes_of_right_files(right))

    def _place_chain(self, chain: Sequence[BaseBackupManifest]) -> None:
        folders: list[Path] = []
        staged: dict[int, Path] = {}
        with self.events.phase("download"):
            self.events.will_fetch(self.prepared.download_bytes)
            for manifest in chain:
                folder = self.staging / manifest.backup_id
                staged = {
                    space.oid: self.staging / f"{manifest.backup_id}.{space.oid}" for space in manifest.tablespaces
                }
                self._place_apart(manifest, FilePlaces(folder, staged))
                folders.append(folder)
        if self._left_out is not None:
            self._verify_parts(folders, self._left_out)
        with self.events.phase("combine"):
            self.warnings += combine_chain(self.prepared.binaries, folders, self._pgdata, staged, self.prepared.moves)
        if self._left_out is not None:
            self.left_out_folders = fill_left_out(self._pgdata, folders, self._left_out)

    def _place_apart(self, manifest: BaseBackupManifest, places: FilePlaces) -> None:
        """Bring one base backup of a chain back into folders of its own."""
        if manifest.method is not BackupMethod.LOCAL:
            extract_base_backup(manifest, self._source(manifest), places.pgdata, places.spaces)
            return
        stores = [ClusterStore(store, self.prepared.layout) for store in self.prepared.stores]
        index = read_file_index(manifest, stores, self.prepared.identities)
        self._local_files(manifest, index, places, proves=False).place(self._fetcher(), self.prepared.identities)
        complete(self._source(manifest), places)

    def _verify_parts(self, folders: Sequence[Path], left_out: LeftOutDatabases) -> None:
        """Compare the files of each base backup of a chain with its manifest: its tars' hashes are not known in part.

        What pg_combinebackup makes of them is compared later, with the manifest that it writes.
        """
        for folder in folders:
            ignored = check_parts(folder, left_out)
            if self.prepared.request.verify and left_out.skips_volumes:
                self.warnings += verify_files(self.prepared.request, self.prepared.binaries, folder, ignored=ignored)

    def _fetcher(self) -> ObjectFetcher:
        return ObjectFetcher(
            self.prepared.layout,
            self.prepared.stores,
            staging=self.staging,
            health=self._health,
            on_bytes=self.events.bytes_came,
            on_fault=self.events.fault,
        )

    def _source(self, manifest: BaseBackupManifest, skipped: UnwantedFiles | None = None) -> BaseBackupSource:
        planned = next(one for one in self.prepared.plan.chain if one.backup.backup_id == manifest.backup_id)
        return BaseBackupSource(
            manifest,
            self.prepared.layout,
            [store for store in self.prepared.stores if store.name in planned.stores],
            identities=self.prepared.identities,
            staging=self.staging,
            # Of a chain pg_verifybackup sees only what was combined; of one base backup it reads every file.
            hash_tars=len(self.prepared.chain) > 1,
            health=self._health,
            left_out=skipped or self._left_out,
            on_bytes=self.events.bytes_came,
            on_fault=self.events.fault,
        )
