"""Reading an object from a disk that fails: an error of the store, so that the next store is asked."""

import os
from pathlib import Path

import pytest

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.commands.archive_get.wal_source import WalSource
from wal_pipeline.errors import StoreUnavailableError
from wal_pipeline.stores.local.store import LocalFolderStore
from wal_pipeline.wal.names import require_file_name
from wal_pipeline_tests.support.archive_scene import ArchiveScene, layout
from wal_pipeline_tests.support.segments import name_of, spool_segments

FAILING = "/proc/self/mem"  # nothing is mapped at its start: the kernel answers a read there with EIO


class FailingObjects:
    """The objects of a store whose disk fails when they are read."""

    def __init__(self, inner: object) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def open(self, _key: str) -> int:
        return os.open(FAILING, os.O_RDONLY)


def failing(folder: Path, name: str) -> LocalFolderStore:
    store = LocalFolderStore(name, folder)
    store._objects = FailingObjects(store._objects)  # type: ignore[assignment]
    return store


def test_a_read_that_the_disk_refuses_is_the_stores_error(tmp_path: Path) -> None:
    """The message names the store, the object and the kernel's reason; no OSError leaves the store."""
    scene = ArchiveScene(tmp_path)
    spool_segments(scene.spool_folder, [1])
    scene.run()
    key = next(iter(scene.stores["r2"].list(""))).key
    store = failing(scene.folder / "r2", "r2")
    with pytest.raises(StoreUnavailableError) as raised, store.open(key) as stream:
        stream.read(10)
    assert raised.value.message.startswith(f"r2: cannot read object '{key}' in ")
    assert raised.value.message.endswith("Input/output error")


def test_a_failing_disk_does_not_stop_a_restore(tmp_path: Path) -> None:
    """The file comes from the other store, and a note says why it was not the first one."""
    scene = ArchiveScene(tmp_path)
    spool_segments(scene.spool_folder, [1])
    scene.run()
    keys: Layout = layout()
    stores = (failing(scene.folder / "r2", "r2"), LocalFolderStore("b2", scene.folder / "b2"))
    fetched = WalSource(keys, stores).fetch(require_file_name(name_of(1)))
    assert fetched is not None
    assert fetched.store == "b2"
    assert any("Input/output error" in str(note) for note in fetched.notes)
