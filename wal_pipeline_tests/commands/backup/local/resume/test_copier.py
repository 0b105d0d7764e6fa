"""A base backup that was cut is gone on with: what is unchanged is copied on the stores, nothing else is believed."""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall
from wal_pipeline.archive.format.base_backup.manifest import BaseBackupManifest
from wal_pipeline.archive.format.base_backup.unfinished import is_index_part
from wal_pipeline.archive.records import BackupMethod
from wal_pipeline.commands.backup.local.method import ChosenMethod
from wal_pipeline.commands.backup.session import BackupPhase, BackupProgress
from wal_pipeline.stores.base import PutOutcome
from wal_pipeline.stores.local.store import LocalFolderStore
from wal_pipeline_tests.support.base_backup_scene import MIB, Scene, archiving_cluster, verify_backup
from wal_pipeline_tests.support.opened_volumes import open_volumes, read_index

pytestmark = pytest.mark.integration


class CopyingStore(LocalFolderStore):
    """A folder that notes what it copies."""

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(name, folder)
        self.copied: list[str] = []
        self.copies: set[str] = set()

    def copy(self, source_key: str, key: str, metadata: Mapping[str, str]) -> PutOutcome:
        self.copied.append(source_key)
        self.copies.add(key)
        return super().copy(source_key, key, metadata)


class CutError(Exception):
    """The process ends here."""


@pytest.fixture(scope="module")
def cluster(postgres18: PostgresInstall) -> Iterator[PostgresCluster]:
    """A running cluster with some 80 MB."""
    with archiving_cluster(postgres18) as made:
        made.pgbench_init(scale=3)
        made.psql("ALTER SYSTEM SET autovacuum = off; SELECT pg_reload_conf(); VACUUM FREEZE; CHECKPOINT")
        yield made


@pytest.fixture
def scene(cluster: PostgresCluster, tmp_path: Path) -> Scene:
    """The cluster and two folders that note what they copy."""
    stores = []
    for name in ("r2", "b2"):
        (tmp_path / name).mkdir()
        stores.append(CopyingStore(name, tmp_path / name))
        stores[-1].prepare()
    return Scene(cluster, stores, tmp_path / "scratch")


def _take(scene: Scene, *, cut: bool = False) -> BaseBackupManifest:
    def tell(progress: BackupProgress) -> None:
        if cut and progress.phase is BackupPhase.VERIFYING:
            raise CutError

    return scene.take(
        method=ChosenMethod(BackupMethod.LOCAL),
        pgdata=scene.cluster.pgdata,
        workers=2,
        volume_size_bytes=MIB,
        on_progress=tell,
    ).manifest


def _cut(scene: Scene) -> str:
    """Take a base backup that is cut before its manifest, and return its id."""
    with pytest.raises(CutError):
        _take(scene, cut=True)
    [backup_id] = {key.split("/")[-2] for key in scene.keys(scene.stores[0])}
    return backup_id


def _require_right(scene: Scene, manifest: BaseBackupManifest, folder: Path) -> None:
    """It is a whole base backup on both stores, from volumes of its own, and nothing else is left there."""
    assert manifest.referred == ()
    for store in scene.stores:
        names = [key.rpartition("/")[2] for key in scene.keys(store)]
        assert {key.split("/")[-2] for key in scene.keys(store)} == {manifest.backup_id}
        assert sorted(names) == sorted(["manifest.json", *(item.name for item in manifest.objects)])
        opened = open_volumes(scene.place(store), manifest, folder / f"{store.name}-opened")
        index = read_index(scene.place(store), manifest)
        for path in [one for one in opened.rglob("*") if one.is_file()]:
            if str(path.relative_to(opened)) not in index.files:
                path.unlink()
        assert verify_backup(scene.cluster.install, opened) == "backup successfully verified"


def test_what_is_unchanged_is_copied_and_the_rest_is_stored(scene: Scene, tmp_path: Path) -> None:
    """A table that changed meanwhile is read anew; most volumes are copied; the older objects are gone at the end."""
    before = _cut(scene)
    assert any(is_index_part(key.rpartition("/")[2]) for key in scene.keys(scene.stores[1]))
    scene.cluster.psql("UPDATE pgbench_branches SET bbalance = bbalance + 1; CHECKPOINT")
    manifest = _take(scene)
    assert manifest.backup_id > before
    for store in scene.stores:
        assert isinstance(store, CopyingStore)
        assert len(store.copied) > len(manifest.volumes) * 0.6
        assert {key.split("/")[-2] for key in store.copied} == {before}
    _require_right(scene, manifest, tmp_path)


def test_a_large_table_in_which_a_row_changed(scene: Scene, tmp_path: Path) -> None:
    """Size or time of its file are others now; its parts are copied but for those that hold the row's versions."""
    _cut(scene)
    scene.cluster.psql("UPDATE pgbench_accounts SET abalance = 79 WHERE aid = 150000; CHECKPOINT")
    manifest = _take(scene)
    path = scene.cluster.value("SELECT pg_relation_filepath('pgbench_accounts')")
    for store in scene.stores:
        assert isinstance(store, CopyingStore)
        parts = read_index(scene.place(store), manifest).files[path].parts
        names = [manifest.volumes[part.volume].item.name for part in parts]
        anew = [name for name in names if scene.layout.base_key(manifest.backup_id, name) not in store.copies]
        assert len(names) > 30
        assert 1 <= len(anew) <= 2
    _require_right(scene, manifest, tmp_path)


def test_a_killed_process_is_gone_on_with(scene: Scene, tmp_path: Path) -> None:
    """SIGKILL after some volumes: the next base backup copies them, and the killed one's objects and lease go."""
    words = [sys.executable, "-m", "wal_pipeline_tests.support.local_backup_process", scene.cluster.conninfo]
    words += [str(scene.cluster.pgdata), scene.cluster.system_identifier, str(tmp_path), "24000"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    try:
        while sum(is_index_part(key.rpartition("/")[2]) for key in scene.keys(scene.stores[1])) < 2:
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait(30)
    manifest = _take(scene)
    for store in scene.stores:
        assert isinstance(store, CopyingStore)
        assert len(store.copied) >= 4
    _require_right(scene, manifest, tmp_path)


def test_a_volume_that_a_store_damaged_is_stored_anew(scene: Scene, tmp_path: Path) -> None:
    """Another store's copy is good; each store must prove its own, and no store is dropped for it."""
    before = _cut(scene)
    damaged = next((tmp_path / "b2" / "objects").rglob("files.000003.tar.zst"))
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    manifest = _take(scene)
    for store in scene.stores:
        assert isinstance(store, CopyingStore)
        assert store.copied
        assert scene.layout.base_key(before, "files.000003.tar.zst") not in store.copied
    _require_right(scene, manifest, tmp_path)


def test_a_volume_that_one_store_lacks_is_stored_anew(scene: Scene, tmp_path: Path) -> None:
    """What only some stores have is not copied."""
    before = _cut(scene)
    scene.stores[1].delete(scene.layout.base_key(before, "files.000004.tar.zst"))
    manifest = _take(scene)
    store = scene.stores[0]
    assert isinstance(store, CopyingStore)
    assert store.copied
    assert scene.layout.base_key(before, "files.000004.tar.zst") not in store.copied
    _require_right(scene, manifest, tmp_path)


def test_an_index_that_cannot_be_read_is_not_believed(scene: Scene, tmp_path: Path) -> None:
    """The base backup is taken as if there was none before; the older objects wait until they are too old."""
    before = _cut(scene)
    for path in tmp_path.rglob("file_index.part.*.zst"):
        path.write_bytes(path.read_bytes()[:-9])
    manifest = _take(scene)
    for store in scene.stores:
        assert isinstance(store, CopyingStore)
        assert store.copied == []
        assert {key.split("/")[-2] for key in scene.keys(store)} == {before, manifest.backup_id}
