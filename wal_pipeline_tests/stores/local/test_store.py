"""The local folder as a store."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wal_pipeline.errors import (
    BucketMissingError,
    DamagedCopyError,
    ObjectMissingError,
    StoreError,
    StoreUnavailableError,
)
from wal_pipeline.stores.base import Body, Store
from wal_pipeline.stores.local.store import LocalFolderStore
from wal_pipeline_tests.support.store_contract import StoreContract, body, keys


@pytest.fixture
def store(tmp_path: Path) -> LocalFolderStore:
    """A prepared folder."""
    made = LocalFolderStore("disk", tmp_path)
    made.prepare()
    return made


class TestLocalFolderStore(StoreContract):
    """The contract over a local folder."""

    @pytest.fixture
    def bucketless_store(self, tmp_path: Path) -> Store:
        """A folder that is there and was never prepared, as the mount point of a disk that is not mounted."""
        folder = tmp_path / "mount-point"
        folder.mkdir()
        return LocalFolderStore("disk", folder)


def test_the_object_is_a_plain_file_under_its_key(store: LocalFolderStore, tmp_path: Path) -> None:
    """Standard tools find and open it; its metadata lies apart as JSON."""
    store.put_if_absent("a/b.gz", body(b"bytes"), {"k": "v"})
    assert (tmp_path / "objects/a/b.gz").read_bytes() == b"bytes"
    sidecar = json.loads((tmp_path / "metadata/a/b.gz.json").read_text())
    assert sidecar == {"etag": body(b"bytes").md5.hex(), "metadata": {"k": "v"}}


def test_a_wrong_sha256_is_refused(store: LocalFolderStore) -> None:
    """The folder checks both digests itself."""
    with pytest.raises(DamagedCopyError) as raised:
        store.put_if_absent("a", replace(body(), sha256="0" * 64), {})
    assert raised.value.message == (f"disk: object 'a' has SHA-256 '{body().sha256}', expected '{'0' * 64}'")
    assert store.head("a") is None


def test_nothing_temporary_is_left(store: LocalFolderStore, tmp_path: Path) -> None:
    """Neither after a put, nor after one that found the object there, nor after one that was refused."""
    for sent in (body(), body(b"other"), replace(body(), md5=b"\0" * 16)):
        try:
            store.put_if_absent("a", sent, {})
        except DamagedCopyError:
            continue
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_put_cut_between_metadata_and_object_can_be_repeated(store: LocalFolderStore, tmp_path: Path) -> None:
    """Metadata without an object is what a crash leaves: no object is seen, and the next put takes its place."""
    store.put_if_absent("a", body(), {"put": "first"})
    (tmp_path / "objects/a").unlink()
    assert store.head("a") is None
    store.put_if_absent("a", body(), {"put": "second"})
    found = store.head("a")
    assert found is not None
    assert found.metadata == {"put": "second"}


class MovingFolder(LocalFolderStore):
    """Acts between the two steps of a look: once the object's status or name is known, before more of it is read."""

    between: Callable[[], object] | None = None

    def _act(self) -> None:
        if self.between is not None:
            act, self.between = self.between, None
            act()

    def _sidecar(self, key: str) -> dict[str, Any]:
        self._act()
        return super()._sidecar(key)

    def _upload_files(self) -> Iterator[Path]:
        for path in super()._upload_files():
            self._act()
            yield path


@pytest.fixture
def moving(tmp_path: Path) -> MovingFolder:
    """A prepared folder that changes while it is looked at."""
    made = MovingFolder("disk", tmp_path)
    made.prepare()
    return made


def test_an_object_that_is_deleted_while_it_is_looked_at_is_absent(moving: MovingFolder) -> None:
    """Its metadata go after it: they are not lost."""
    moving.put_if_absent("a/b", body(), {"k": "v"})
    moving.between = lambda: moving.delete("a/b")
    assert moving.head("a/b") is None
    assert moving.between is None
    moving.put_if_absent("a/b", body(), {"k": "v"})
    moving.between = lambda: moving.delete("a/b")
    with pytest.raises(ObjectMissingError), moving.open_described("a/b"):
        pass


def test_an_object_that_is_put_again_while_it_is_looked_at_is_the_new_one(moving: MovingFolder, tmp_path: Path) -> None:
    """The first one was deleted, its metadata were gone, and then both are there again."""
    moving.put_if_absent("a", body(b"old"), {"put": "first"})
    old = moving._folder / "metadata" / "a.json"

    def replace_object() -> None:
        moving.delete("a")
        other = LocalFolderStore("disk", tmp_path)
        other.put_if_absent("a", body(b"newer"), {"put": "second"})
        kept = old.read_bytes()
        old.unlink()  # the reader sees the moment before the new metadata came
        moving.between = lambda: old.write_bytes(kept)

    moving.between = replace_object
    found = moving.head("a")
    assert found is not None
    assert (found.size_bytes, found.metadata) == (5, {"put": "second"})


def test_an_upload_that_ends_while_uploads_are_listed_is_passed_over(moving: MovingFolder) -> None:
    """It is neither an outage nor an upload."""
    upload = moving.begin_upload("a", {})
    moving.between = lambda: moving.abort_upload(upload)
    assert list(moving.uploads("")) == []
    assert moving.between is None


def test_lost_metadata_is_damage_and_not_absence(store: LocalFolderStore, tmp_path: Path) -> None:
    """An object that somebody copied in by hand is reported."""
    (tmp_path / "objects/a").write_bytes(b"x")
    with pytest.raises(DamagedCopyError) as raised:
        store.head("a")
    assert raised.value.message == "disk: object 'a' has lost its metadata"


@pytest.mark.parametrize("link", ["objects/link", "objects/folder/link"])
def test_symbolic_links_are_neither_followed_nor_taken_for_absence(
    store: LocalFolderStore, tmp_path: Path, link: str
) -> None:
    """A link to a file or to a folder is an error for every read and write."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_bytes(b"secret")
    (tmp_path / link).parent.mkdir(exist_ok=True)
    (tmp_path / link).symlink_to(outside)
    key = link.removeprefix("objects/")
    for call in (
        lambda: store.head(f"{key}/x"),
        lambda: store.head(key),
        lambda: store.open(f"{key}/x").__enter__(),
        lambda: store.put_if_absent(f"{key}/y", body(), {}),
        lambda: store.delete(f"{key}/x"),
        lambda: list(store.list("")),
    ):
        with pytest.raises(StoreError):
            call()
    assert [path.name for path in outside.iterdir()] == ["x"]


def test_a_key_below_another_key_is_refused(store: LocalFolderStore) -> None:
    """A folder cannot hold both, and says so."""
    store.put_if_absent("a/b", body(), {})
    for key in ("a/b/c", "a"):
        with pytest.raises(StoreError) as raised:
            store.put_if_absent(key, body(), {})
        assert raised.value.hint == "The key does not fit into this folder's tree of files."
    assert keys(store, "") == ["a/b"]


def test_a_full_disk_is_unavailable_and_leaves_nothing(store: LocalFolderStore, tmp_path: Path) -> None:
    """A file size limit stands for the full disk: the kernel refuses the write in the middle."""
    script = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from wal_pipeline.stores.local.store import LocalFolderStore; from wal_pipeline.stores.base import Body\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: LocalFolderStore('disk', Path(sys.argv[1])).put_if_absent('a', Body.of(bytes(200_000)), {})\n"
        "except Exception as error: print(type(error).__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == f"{StoreUnavailableError.__name__}\n"
    assert store.head("a") is None
    assert list((tmp_path / "temporary").iterdir()) == []


def test_processes_that_put_at_once_agree(store: LocalFolderStore, tmp_path: Path) -> None:
    """Of four processes one creates the object."""
    script = (
        "import os, sys; from pathlib import Path\n"
        "from wal_pipeline.stores.local.store import LocalFolderStore; from wal_pipeline.stores.base import Body\n"
        "sys.stdin.read()\n"
        "print(LocalFolderStore('disk', Path(sys.argv[1])).put_if_absent('a', Body.of(b'%d' % os.getpid()), {}))"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    outcomes = [racer.communicate(timeout=60)[0].strip() for racer in racers]
    assert sorted(outcomes) == ["created", "exists", "exists", "exists"]
    winner = racers[outcomes.index("created")].pid
    with store.open("a") as stream:
        assert stream.read() == str(winner).encode()


def test_the_folder_and_the_contract_need_no_boto3() -> None:
    """Starting boto3 takes most of a second; a store that does not use it does not pay."""
    script = (
        "import sys, wal_pipeline.stores.base, wal_pipeline.stores.local.store, wal_pipeline.stores.s3.profiles\n"
        "print([name for name in ('boto3', 'botocore') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


def test_upload_ids_never_leave_the_folder(store: LocalFolderStore, tmp_path: Path) -> None:
    """An upload id is not a path."""
    upload = replace(store.begin_upload("a", {}), upload_id=os.pardir)
    with pytest.raises(StoreError) as raised:
        store.abort_upload(upload)
    assert raised.value.message == "disk: the upload of object 'a' is not known any more"
    assert (tmp_path / "objects").is_dir()
    assert Body.of(b"").size_bytes == 0


def test_the_hint_makes_a_new_store(tmp_path: Path) -> None:
    """The line that it prints, typed as it is, makes a folder a store."""
    store = LocalFolderStore("disk", tmp_path / "a new disk")
    with pytest.raises(BucketMissingError) as raised:
        store.check_access()
    begin, line = str(raised.value.hint).split(": ")
    assert begin == "Mount the disk. Only where this is a new store, make it"
    subprocess.run(["sh", "-c", line], check=True)
    store.check_access()
    store.put_if_absent("a", body(), {})
    assert [item.key for item in store.list("")] == ["a"]
