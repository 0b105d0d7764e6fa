"""Leftovers of unfinished base backups are removed; those of a base backup that may still run are not."""

from datetime import timedelta
from pathlib import Path

import pytest

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.commands.backup.leftovers import RemovedUnfinished, remove_unfinished
from wal_pipeline.commands.backup.remote.staging import staging
from wal_pipeline.errors import BaseBackupError
from wal_pipeline.stores.base import Body
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.stores.local.store import LocalFolderStore
from wal_pipeline_tests.support.base_backup_scene import folder_store, now

LAYOUT = Layout("", "main", 7575757575757575757)
FINISHED = "20261121T010000Z-000000010000000000000002"
CUT = "20261122T010000Z-000000010000000000000009"


@pytest.fixture
def store(tmp_path: Path) -> LocalFolderStore:
    """A store with a finished base backup, one without a manifest, and an upload of the latter."""
    made = folder_store("r2", tmp_path)
    for backup_id, part in ((FINISHED, "base.000000.tar.zst"), (FINISHED, "manifest.json"), (CUT, "base.000000.tar")):
        made.put_if_absent(LAYOUT.base_key(backup_id, part), Body.of(b"x"), {})
    made.begin_upload(LAYOUT.base_key(CUT, "base.000001.tar"), {})
    return made


def test_only_what_has_no_manifest_is_removed(store: LocalFolderStore) -> None:
    """The finished base backup stays; the other's objects and upload go."""
    removed = remove_unfinished(
        ClusterStore(store, LAYOUT), now=now() + timedelta(hours=25), older_than=timedelta(hours=24)
    )
    assert removed == RemovedUnfinished("r2", (CUT,), objects=1, uploads=1)
    assert [item.key for item in store.list("")] == [
        LAYOUT.base_key(FINISHED, "base.000000.tar.zst"),
        LAYOUT.manifest_key(FINISHED),
    ]
    assert list(store.uploads("")) == []


def test_configuration_of_a_killed_base_backup_is_removed_too(store: LocalFolderStore) -> None:
    """Its name is known as ours, also where no manifest names it."""
    store.put_if_absent(LAYOUT.base_key(CUT, "configuration.tar.zst.age"), Body.of(b"x"), {})
    removed = remove_unfinished(ClusterStore(store, LAYOUT), now=now() + timedelta(hours=1), older_than=timedelta(0))
    assert removed.objects == 2
    assert [item.key for item in store.list("")] == [
        LAYOUT.base_key(FINISHED, "base.000000.tar.zst"),
        LAYOUT.manifest_key(FINISHED),
    ]


def test_what_is_young_may_still_be_running(store: LocalFolderStore) -> None:
    """Another machine may be taking that base backup now."""
    removed = remove_unfinished(ClusterStore(store, LAYOUT), now=now(), older_than=timedelta(hours=24))
    assert removed == RemovedUnfinished("r2", (), objects=0, uploads=0)
    assert len(list(store.uploads(""))) == 1


def test_an_upload_beside_a_finished_base_backup_is_aborted_and_no_more(store: LocalFolderStore) -> None:
    """A cut refill of a finished base backup leaves parts that are billed; its objects stay."""
    store.begin_upload(LAYOUT.base_key(FINISHED, "base.000000.tar.zst"), {})
    removed = remove_unfinished(ClusterStore(store, LAYOUT), now=now() + timedelta(hours=1), older_than=timedelta(0))
    assert removed == RemovedUnfinished("r2", (CUT,), objects=1, uploads=2)
    assert store.head(LAYOUT.manifest_key(FINISHED)) is not None


def test_the_staging_folder_is_emptied_before_and_after(tmp_path: Path) -> None:
    """The tars of a killed base backup do not count as ours."""
    (tmp_path / "tars").mkdir()
    (tmp_path / "tars" / "base.tar").write_bytes(b"old")
    with staging(tmp_path, 0) as folder:
        assert not folder.exists()  # pg_basebackup makes it
        folder.mkdir()
        (folder / "base.tar").write_bytes(b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_two_base_backups_do_not_share_a_staging_folder(tmp_path: Path) -> None:
    """The second one is refused and does no harm to the first."""
    with staging(tmp_path, 0) as folder:
        folder.mkdir()
        with pytest.raises(BaseBackupError) as caught, staging(tmp_path, 0):
            pass
        assert folder.exists()
    assert caught.value.message == f"staging folder '{tmp_path}' is in use by another base backup"


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """The message has both numbers and the hint a way out."""
    with (
        pytest.raises(BaseBackupError, match=r"iB free, expected at least 1048576\.0 TiB") as caught,
        staging(tmp_path, 1 << 60),
    ):
        pass
    assert "larger disk" in (caught.value.hint or "")
