"""How objects are downloaded where one of two stores does not give them."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from wal_pipeline.archive.format.base_backup.manifest import BackupTar, BaseBackupManifest, volume_name
from wal_pipeline.archive.records import Codec
from wal_pipeline.commands.restore.download import BaseBackupSource
from wal_pipeline.commands.restore.files import fetch
from wal_pipeline.commands.restore.files.fetch import DownloadFault
from wal_pipeline.errors import RestoreError, StoreUnavailableError
from wal_pipeline.stores.base import Body, Store
from wal_pipeline.stores.local.store import LocalFolderStore
from wal_pipeline_tests.support.archive_scene import folder_store
from wal_pipeline_tests.support.manifests import LAYOUT
from wal_pipeline_tests.support.tars import described, forge, make_tar

VOLUMES = 12


class OwnAnswers(LocalFolderStore):
    """A store that answers each read in a way of its own."""

    asked: list[str]
    answer: Callable[[str], object]

    @contextmanager
    def open(self, key: str, *, start: int = 0) -> Iterator[BinaryIO]:
        """See ``Store``."""
        self.asked.append(key)
        self.answer(key)
        with super().open(key, start=start) as stream:
            yield stream


class Scene:
    """A base backup of many volumes on two stores, of which ``r2`` answers as a test wants."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        tar = make_tar(*((f"f{number}", bytes(9000), 0o600) for number in range(20)))
        size = -(-len(tar) // VOLUMES)
        parts = [tar[begin : begin + size] for begin in range(0, len(tar), size)]
        self.manifest = _cut(forge({"base": tar}), parts, size)
        (folder / "r2").mkdir()
        self.r2 = OwnAnswers("r2", folder / "r2")
        self.r2.prepare()
        self.r2.asked, self.r2.answer = [], lambda _: None
        self.b2 = folder_store("b2", folder / "b2")
        for store in (self.r2, self.b2):
            for item, part in zip(self.manifest.tar("base").objects, parts, strict=True):
                store.put_if_absent(LAYOUT.base_key(self.manifest.backup_id, item.name), Body.of(part), {})
        self.faults: list[DownloadFault] = []

    def extract(self, stores: list[Store] | None = None) -> None:
        """Bring the base backup back."""
        (self.folder / "staging").mkdir()
        options: dict[str, Any] = {"staging": self.folder / "staging", "on_fault": self.faults.append}
        source = BaseBackupSource(self.manifest, LAYOUT, stores or [self.r2, self.b2], **options)
        source.extract(self.manifest.tar("base"), self.folder / "new")
        assert len(list((self.folder / "new").iterdir())) == 20
        assert list((self.folder / "staging").glob("*.b2")) == []


def _cut(manifest: BaseBackupManifest, parts: list[bytes], size: int) -> BaseBackupManifest:
    """Return the manifest with these volumes in place of one."""
    names = (volume_name("base", number, Codec.NONE, encrypted=False) for number in range(len(parts)))
    tar = manifest.tar("base")
    objects = tuple(described(name, part) for name, part in zip(names, parts, strict=True))
    return replace(manifest, volume_size_bytes=size, tars=(BackupTar("base", tar.size_bytes, tar.sha256, objects),))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Both stores have everything."""
    return Scene(tmp_path)


def test_a_store_that_answers_500_is_not_asked_for_every_object(scene: Scene) -> None:
    """What the first objects found is remembered: the other store comes first then."""

    def fail(key: str) -> None:
        time.sleep(0.2)
        raise StoreUnavailableError("r2", f"cannot read object '{key}': the server answered 500")

    scene.r2.answer = fail
    scene.extract()
    assert 0 < len(scene.r2.asked) <= 4  # one for each worker
    assert {fault.store for fault in scene.faults} == {"r2"}


def test_a_store_that_does_not_answer_is_not_waited_for(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tries of one call may take minutes: meanwhile the other store has long delivered all."""
    released = threading.Event()
    monkeypatch.setattr(fetch, "_ANSWER_SECONDS", 0.3)
    scene.r2.answer = lambda _: released.wait(60)
    begun = time.monotonic()
    scene.extract()
    assert time.monotonic() - begun < 20
    assert len(scene.r2.asked) <= 4
    assert scene.faults[0].message.startswith("r2: object '")
    assert scene.faults[0].message.endswith("' was not answered within 0.3 s")
    released.set()


def test_a_slow_answer_counts_where_the_other_store_has_no_good_copy(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was passed over, not given up."""
    monkeypatch.setattr(fetch, "_ANSWER_SECONDS", 0.1)
    scene.r2.answer = lambda _: time.sleep(0.5)
    name = scene.manifest.tar("base").objects[0].name
    path = scene.folder / "b2/objects" / LAYOUT.base_key(scene.manifest.backup_id, name)
    path.write_bytes(bytes(path.stat().st_size))
    scene.extract()
    assert any(fault.store == "b2" and "SHA-256" in fault.message for fault in scene.faults)


def test_one_store_alone_is_waited_for(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no other to ask."""
    monkeypatch.setattr(fetch, "_ANSWER_SECONDS", 0.1)
    scene.r2.answer = lambda _: time.sleep(0.3)
    scene.extract([scene.r2])
    assert scene.faults == []


def test_an_object_that_no_store_gives_is_named(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """With each store's own reason, also of the one that answered late."""
    monkeypatch.setattr(fetch, "_ANSWER_SECONDS", 0.1)

    def fail(key: str) -> None:
        time.sleep(0.4)
        raise StoreUnavailableError("r2", "the server answered 500")

    scene.r2.answer = fail
    for item in scene.manifest.tar("base").objects:
        scene.b2.delete(LAYOUT.base_key(scene.manifest.backup_id, item.name))
    with pytest.raises(RestoreError) as caught:
        scene.extract()
    assert "could not be had from any store:\nb2: " in caught.value.message
    assert caught.value.message.endswith("r2: the server answered 500")
