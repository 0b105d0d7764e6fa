"""Builds the world of the test of references: base backups by files, which share volumes, on two folder stores."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from wal_pipeline.archive.format.base_backup.manifest import BaseBackupManifest
from wal_pipeline.archive.records import BackupMethod, Codec, FileComparison
from wal_pipeline.archive.recovery.coverage import Coverage
from wal_pipeline.archive.retention.rules import RetentionRule, restorable_ids
from wal_pipeline.codec.stream_encoder import StreamEncoder
from wal_pipeline.commands.archive_get.wal_source import StoreHealth
from wal_pipeline.commands.backup.kind import ParentWish, choose_kind
from wal_pipeline.commands.backup.local.method import ChosenMethod
from wal_pipeline.commands.backup.options import BackupOptions
from wal_pipeline.commands.backup.parent import parent_folder
from wal_pipeline.commands.backup.part_uploader import UploadLimits
from wal_pipeline.commands.backup.restorable import BaseBackupRecorder, StoreOutcome
from wal_pipeline.commands.backup.session import BackupPhase, BackupProgress
from wal_pipeline.commands.backup.take import take_base_backup
from wal_pipeline.commands.rebuild_catalog import rebuild
from wal_pipeline.commands.refill.base_backups import refill_base_backup
from wal_pipeline.commands.restore.contents import gather
from wal_pipeline.commands.restore.files.fetch import ObjectFetcher
from wal_pipeline.commands.restore.files.local import LocalFiles
from wal_pipeline.commands.restore.files.on_disk import FilePlaces
from wal_pipeline.commands.restore.files.small_objects import read_file_index
from wal_pipeline.commands.restore.untar import HELD_BACK, PG_CONTROL
from wal_pipeline.errors import RecoveryTargetError, RestoreError, WalPipelineError
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline_tests.support.folder_server import FolderServer
from wal_pipeline_tests.support.stateful_store import STORES, KilledError, TroubledStore
from wal_pipeline_tests.support.upkeep_scene import CLUSTER, LAYOUT, UpkeepScene

PAGES = 8  # of the smallest relation that may be referred to: 64 KiB
_VOLUME_BYTES = 3 * PAGES * 8192
_LOCAL = ChosenMethod(BackupMethod.LOCAL)
_NEVER = timedelta(days=36500)  # the stores date objects by the real clock
_LIMITS = UploadLimits(tries=1, retry_seconds=0.01)
_MADE_BY_US = ("backup_label", "backup_manifest")


@dataclass
class ReferenceWorld:
    """The cluster, the stores with their upkeep, and what each base backup must bring back.

    ``identities`` open what ``encoder`` encrypts. ``made``: the manifests and the files of all base backups that were
    ever complete, by id.
    """

    folder: Path
    encoder: StreamEncoder = field(default_factory=lambda: StreamEncoder(Codec.LZ4))
    identities: tuple[Any, ...] = ()
    made: dict[str, tuple[BaseBackupManifest, dict[str, bytes]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.inner = {name: TroubledStore(name, self.folder / name) for name in STORES}
        self.scene = UpkeepScene(
            self.folder, list(self.inner.values()), rule=RetentionRule(timedelta(days=1), minimum_backups=1)
        )
        self.server = FolderServer(self.folder / "pgdata", self.scene.clock)
        self._versions = 0

    # The cluster

    def change(self, numbers: Sequence[int], factor: int = 1, *, hides: bool = False) -> None:
        """Rewrite relations, ``factor`` times the smallest size. ``hides``: size and time stay what they were."""
        for number in numbers:
            path = self.server.pgdata / "base" / "5" / str(16384 + number)
            before = path.stat() if path.exists() else None
            self._versions += 1
            pages = before.st_size // 8192 if hides and before is not None else PAGES * factor
            self.server.write_relation(16384 + number, pages, f"{number}:{self._versions};".encode())
            if hides and before is not None:
                os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))

    def drop(self, number: int) -> None:
        """Drop a relation."""
        (self.server.pgdata / "base" / "5" / str(16384 + number)).unlink(missing_ok=True)

    def pass_time(self, hours: int) -> None:
        """Let time pass, in which one segment is archived."""
        self.scene.archive(self.server.segment, self.scene.now)
        self.server.segment += 1
        self.scene.now += timedelta(hours=hours)

    # Base backups

    def back_up(
        self,
        *,
        incremental: bool,
        down: str | None = None,
        cut: bool = False,
        upkeep_days: int = 0,
        forgets: bool = False,
        compare: FileComparison = FileComparison.CONTENT,
    ) -> BaseBackupManifest | None:
        """Take a base backup, incremental where it can be, and return its manifest.

        ``cut``: its process dies when all volumes are handed over. ``upkeep_days`` pass while it runs, at the end of
        which retention is applied by another process. ``forgets``: what others left is removed first.
        """
        places = [ClusterStore(store, LAYOUT) for name, store in self.scene.stores.items() if name != down]
        files = self.server.files()
        before = set(self.made)

        def on_progress(progress: BackupProgress) -> None:
            if progress.phase is BackupPhase.VERIFYING and upkeep_days:
                self.expire(upkeep_days)
            if progress.phase is BackupPhase.VERIFYING and cut:
                raise KilledError

        manifest = None
        with suppress(KilledError), parent_folder(self._scratch()) as folder:
            wish = ParentWish(or_full=True, max_chain=4)
            parent = None
            if incremental:
                parent = choose_kind(places, wish, lambda _: None, identities=self.identities, folder=folder).parent
            manifest = take_base_backup(
                self.server,
                None,
                [place.store for place in places],
                LAYOUT,
                encoder=self.encoder,
                options=BackupOptions(
                    self._scratch(),
                    pgdata=self.server.pgdata,
                    volume_size_bytes=_VOLUME_BYTES,
                    limits=_LIMITS,
                    compare=compare,
                    unfinished_after=timedelta(0) if forgets else _NEVER,
                ),
                parent=parent,
                method=_LOCAL,
                identities=self.identities,
                clock=self.scene.clock,
                on_progress=on_progress,
            ).manifest
        assert before == set(self.made)
        if manifest is not None:
            self.made[manifest.backup_id] = (manifest, files)
        self.pass_time(1)  # the segment in which it began and ended
        if manifest is not None:
            self._settle(manifest, [place.name for place in places])
        return manifest

    def _scratch(self) -> Path:
        folder = self.folder / "scratch"
        folder.mkdir(exist_ok=True)
        return folder

    def _settle(self, manifest: BaseBackupManifest, stored_on: Sequence[str]) -> None:
        recorder = BaseBackupRecorder(
            self.scene.stores, self.scene.catalog, self.scene.clock, wal_timeout_seconds=0.0, archive=None
        )
        recorder.settle(manifest, LAYOUT, [StoreOutcome(name, name in stored_on) for name in STORES])

    # The upkeep

    def expire(self, days: int, *, down: str | None = None, after_deletes: int = 0) -> None:
        """Let days pass and apply retention, whatever a person would have to confirm.

        The store ``down`` answers nothing after so many deletes. Nothing that is referred to may go.
        """
        for _ in range(days):
            self.pass_time(24)
        before = {name: self.keys(name) for name in STORES}
        with self._down(down, after_deletes):
            self.scene.expirer().expire(trust_clock=True)
        for name in STORES:
            self._check_referred(name, before[name])

    @contextmanager
    def _down(self, down: str | None, after_deletes: int) -> Iterator[None]:
        if down is None:
            yield
            return
        deletes = 0

        def count(call: str, _key: str) -> None:
            nonlocal deletes
            deletes += call == "delete"
            self.inner[name].down = deletes >= after_deletes

        name = down
        self.inner[name].down = after_deletes == 0
        self.scene.stores[name].before = count
        try:
            yield
        finally:
            self.scene.stores[name].before = lambda _call, _key: None
            self.inner[name].down = False

    def repair(self) -> None:
        """Read everything back, and heal what another store has."""
        before = {name: self.keys(name) for name in STORES}
        self.scene.verify(share=1.0, repair=True)
        for name in STORES:
            self._check_referred(name, before[name])

    def refill(self, store: str, number: int) -> None:
        """Refill one base backup on a store, in any order; its chain may be missing there."""
        source = next(name for name in STORES if name != store)
        there = sorted(self.ids_on(source))
        if there:
            places = [ClusterStore(self.scene.stores[name], LAYOUT) for name in (source, store)]
            with suppress(WalPipelineError):
                refill_base_backup(there[number % len(there)], *places, limits=_LIMITS, clock=self.scene.clock)

    def lose_object(self, store: str, number: int) -> None:
        """Remove any object of a base backup, as an accident would."""
        keys = sorted(key for key in self.keys(store) if LAYOUT.backup_id_of(key) is not None)
        if keys:
            self.inner[store].inner.delete(keys[number % len(keys)])

    def lose_base_backups(self, store: str) -> None:
        """Remove all base backups of a store: somebody emptied the folder."""
        for key in self.keys(store):
            if LAYOUT.backup_id_of(key) is not None:
                self.inner[store].inner.delete(key)

    def lose_catalog(self, *, and_rebuild: bool) -> None:
        """Remove the catalog, and perhaps rebuild it from the stores."""
        self.scene.catalog.close()
        for path in self.folder.glob("catalog.sqlite*"):
            path.unlink()
        self.scene = UpkeepScene(self.folder, list(self.inner.values()), self.scene.now, self.scene.rule)
        self.server.clock = self.scene.clock
        if and_rebuild:
            rebuild(list(self.scene.stores.values()), self.scene.catalog, "", CLUSTER, workers=1)

    # Contents

    def keys(self, store: str) -> set[str]:
        """Return the keys of all objects of a store."""
        return {item.key for item in self.inner[store].inner.list("")}

    def ids_on(self, store: str) -> set[str]:
        """Return the base backups of which a store has an object."""
        return {one for key in self.keys(store) if (one := LAYOUT.backup_id_of(key)) is not None}

    def counted(self, store: str) -> list[str]:
        """Return the base backups that can be restored from a store alone, by what a restore reads there."""
        try:
            contents = gather([self.scene.stores[store]], LAYOUT, None).contents
        except (RestoreError, RecoveryTargetError):  # there is nothing
            return []
        return sorted(restorable_ids(Coverage.of(contents, [store])))

    def restored(self, store: str, backup_id: str) -> dict[str, bytes]:
        """Restore the files of a base backup from one store."""
        manifest, place = self.made[backup_id][0], ClusterStore(self.scene.stores[store], LAYOUT)
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            pgdata, staging = Path(folder, "pgdata"), Path(folder, "staging")
            staging.mkdir()
            faults: list[object] = []
            fetcher = ObjectFetcher(
                LAYOUT, [place.store], staging=staging, health=StoreHealth(), on_fault=faults.append
            )
            index = read_file_index(manifest, [place], self.identities)
            LocalFiles(manifest, index, FilePlaces(pgdata), 1).place(fetcher, self.identities)
            assert not faults
            found = {
                path.relative_to(pgdata).as_posix(): path.read_bytes() for path in pgdata.rglob("*") if path.is_file()
            }
        return {
            PG_CONTROL if name == HELD_BACK else name: data for name, data in found.items() if name not in _MADE_BY_US
        }

    # Invariants

    def check(self) -> None:
        """Check that each base backup that counts has all that it names. Raises: AssertionError."""
        for store in STORES:
            there = self.keys(store)
            for backup_id in self.counted(store):
                absent = named_keys(self.made[backup_id][0]) - there
                assert not absent, f"{store}: '{backup_id}' counts as restorable and lacks {sorted(absent)}"

    def check_restores(self) -> int:
        """Restore each base backup that counts, from each store; return how many. Raises: AssertionError."""
        count = 0
        for store in STORES:
            for backup_id in self.counted(store):
                assert self.restored(store, backup_id) == self.made[backup_id][1], f"{store}: '{backup_id}'"
                count += 1
        return count

    def _check_referred(self, store: str, before: set[str]) -> None:
        """Check that of a base backup of which something is left, nothing went that lies with another one."""
        gone = before - self.keys(store)
        for backup_id in self.ids_on(store) & self.made.keys():
            manifest = self.made[backup_id][0]
            lost = {LAYOUT.base_key(one.backup_id, one.item.name) for one in manifest.referred} & gone
            assert not lost, f"{store}: '{backup_id}' is there and refers to {sorted(lost)}, which went"
            whole = LAYOUT.manifest_key(backup_id) in self.keys(store)
            lost = named_keys(manifest) & gone if whole else set()
            assert not lost, f"{store}: '{backup_id}' has its manifest and lost {sorted(lost)}"


def named_keys(manifest: BaseBackupManifest) -> set[str]:
    """Return the keys of all objects that a restore of a base backup needs."""
    own = {LAYOUT.base_key(manifest.backup_id, item.name) for item in manifest.objects}
    referred = {LAYOUT.base_key(one.backup_id, one.item.name) for one in manifest.referred}
    return own | referred | {LAYOUT.manifest_key(manifest.backup_id)}
