"""Base backups of volumes that open alone: restored whole, in part, and over what is there, without a server."""

import errno
import os
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyrage
import pytest

from wal_pipeline.archive.format.base_backup.file_index import FileIndex
from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.stream_encoder import StreamEncoder
from wal_pipeline.commands.restore.files.fetch import ObjectFetcher
from wal_pipeline.commands.restore.files.local import LocalFiles, encoding_of
from wal_pipeline.commands.restore.files.on_disk import FilePlaces
from wal_pipeline.commands.restore.files.small_objects import read_file_index
from wal_pipeline.commands.restore.untar import HELD_BACK, PG_CONTROL
from wal_pipeline.errors import RestoreError
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline_tests.support.archive_scene import folder_store
from wal_pipeline_tests.support.local_base_backup import MIB, FolderBackup, MadeBackup
from wal_pipeline_tests.support.manifests import LAYOUT

LARGE = "base/5/16384"
SMALL = "base/5/2619"
OTHER = "base/6/16385"


class Scene:
    """A folder that looks like a data directory, base backups of it on a store, and a place to restore to."""

    def __init__(self, folder: Path) -> None:
        self.place = ClusterStore(folder_store("r2", folder / "store"), LAYOUT)
        self.source = folder / "source"
        self.pgdata = folder / "pgdata"
        self.staging = folder / "staging"
        self.staging.mkdir()
        self.identities: list[Any] = []
        self.came_bytes = 0
        for name, data in {
            LARGE: os.urandom(3 * MIB + 5000),
            SMALL: os.urandom(70_000),
            OTHER: os.urandom(MIB // 2),
            "base/5/1259_fsm": b"",
            "base/5/PG_VERSION": b"18\n",
            "base/6/PG_VERSION": b"18\n",
            PG_CONTROL: bytes(range(256)) * 32,
            "backup_label": b"label",
            "PG_VERSION": b"18\n",
            "postgresql.conf": b"port = 1\n",
        }.items():
            path = self.source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            path.chmod(0o600)
        for name in ("pg_wal", "pg_twophase"):
            (self.source / name).mkdir(mode=0o700)

    def take(self, **options: Any) -> MadeBackup:
        """Take a base backup."""
        return FolderBackup(self.place, self.source, **options).make()

    def files(self, made: MadeBackup, index: FileIndex | None = None, *, left_out: Collection[int] = ()) -> LocalFiles:
        """Return the files on their way; the index comes from the store."""
        read = index or read_file_index(made.manifest, [self.place], self.identities)
        return LocalFiles(made.manifest, read, FilePlaces(self.pgdata), 2, left_out)

    def place_files(self, files: LocalFiles) -> int:
        """Put what is needed in place, and return the bytes that came."""
        self.came_bytes = 0
        fetcher = ObjectFetcher(LAYOUT, [self.place.store], staging=self.staging, on_bytes=self._came)
        files.place(fetcher, self.identities)
        assert list(self.staging.iterdir()) == []
        return self.came_bytes

    def _came(self, count: int) -> None:
        self.came_bytes += count

    def restored(self) -> dict[str, bytes]:
        """The restored files."""
        return contents(self.pgdata)


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder but PostgreSQL's list, which the source lacks."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found.pop("backup_manifest", None)
    return {name if name != HELD_BACK else PG_CONTROL: data for name, data in found.items()}


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """No base backup yet."""
    return Scene(tmp_path)


@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize("encrypted", [False, True])
def test_each_encoding(scene: Scene, codec: Codec, encrypted: bool) -> None:
    """All files, empty ones and folders come back; nothing can be started yet."""
    identity = pyrage.x25519.Identity.generate()
    scene.identities = [identity]
    made = scene.take(encoder=StreamEncoder(codec, recipients=[str(identity.to_public())] if encrypted else []))
    files = scene.files(made)
    assert scene.place_files(files) == files.download_bytes
    assert scene.restored() == contents(scene.source)
    assert not (scene.pgdata / PG_CONTROL).exists()
    assert {path.name for path in scene.pgdata.iterdir() if path.is_dir()} >= {"pg_wal", "pg_twophase"}
    modes = {path.stat().st_mode & 0o777 for path in scene.pgdata.rglob("*")}
    assert modes == {0o600, 0o700}
    assert set(files.proven) == {*contents(scene.source), "backup_manifest"} - {"base/5/1259_fsm"}


def test_volumes_of_an_earlier_base_backup(scene: Scene) -> None:
    """They may be encoded in another way, and hold files that have changed or gone since."""
    identity = pyrage.x25519.Identity.generate()
    scene.identities = [identity]
    parent = scene.take(encoder=StreamEncoder(Codec.GZIP, recipients=[str(identity.to_public())]))
    (scene.source / SMALL).write_bytes(b"changed")
    (scene.source / OTHER).unlink()
    started_at = parent.manifest.finished_at.replace(hour=22)
    made = scene.take(parent=parent, started_at=started_at)
    assert {encoding_of(one.item.name) for one in made.manifest.volumes} == {(Codec.GZIP, True), (Codec.ZSTD, False)}
    scene.place_files(scene.files(made))
    assert scene.restored() == contents(scene.source)


def test_only_what_differs_is_fetched(scene: Scene) -> None:
    """Of a large file one part, in place; and all that is no relation's."""
    made = scene.take()
    scene.place_files(scene.files(made))
    with (scene.pgdata / LARGE).open("r+b") as stream:
        stream.seek(MIB + 17)
        stream.write(b"damage")
    (scene.pgdata / "base/6/99").write_bytes(b"surplus")
    (scene.pgdata / "postgresql.conf").write_bytes(b"port = 2\n")
    inode = (scene.pgdata / LARGE).stat().st_ino
    files = scene.files(made)
    files.keep()
    kept = 2 * MIB + 5000 + 70_000 + MIB // 2
    assert files.compared.kept_bytes == kept
    wanted = {one.member for some in files.compared.wanted.values() for one in some if one.part.size_bytes}
    assert {name for name in wanted if name.startswith("base/")} == {
        "base/5/16384.wal-pipeline-part.000000001048576",
        "base/5/PG_VERSION",
        "base/6/PG_VERSION",
    }
    assert scene.place_files(files) == files.download_bytes < made.manifest.stored_size_bytes
    assert scene.restored() == contents(scene.source)
    assert (scene.pgdata / LARGE).stat().st_ino == inode


def cut(path: Path) -> None:
    """Leave the beginning, which ends within the second part."""
    os.truncate(path, MIB + 100)


def lengthen(path: Path) -> None:
    """Add what an older state of the table had."""
    with path.open("ab") as stream:
        stream.write(b"x" * 9000)


def leave_a_hole(path: Path) -> None:
    """Leave the last part, as a killed restore does that wrote it first."""
    data = path.read_bytes()[3 * MIB :]
    path.unlink()
    with path.open("wb") as stream:
        stream.seek(3 * MIB)
        stream.write(data)


@pytest.mark.parametrize(
    ("damage", "kept_parts"), [(cut, 1), (lengthen, 4), (leave_a_hole, 1), (Path.unlink, 0), (Path.touch, 4)]
)
def test_parts_that_are_right_stay(scene: Scene, damage: Callable[[Path], object], kept_parts: int) -> None:
    """Whatever became of the file's length."""
    made = scene.take()
    scene.place_files(scene.files(made))
    damage(scene.pgdata / LARGE)
    files = scene.files(made)
    files.keep()
    wanted = [one for some in files.compared.wanted.values() for one in some if one.file.path == LARGE]
    assert 4 - len(wanted) == kept_parts
    scene.place_files(files)
    assert scene.restored() == contents(scene.source)


def test_a_part_that_cannot_be_read_is_needed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As of a disk with a bad sector, which is written anew; the parts around it stay."""
    made = scene.take()
    scene.place_files(scene.files(made))
    inode, pread = (scene.pgdata / LARGE).stat().st_ino, os.pread

    def failing(descriptor: int, count: int, offset: int) -> bytes:
        if os.fstat(descriptor).st_ino == inode and MIB < offset + count <= 2 * MIB:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pread(descriptor, count, offset)

    files = scene.files(made)
    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", failing)
        files.keep()
    wanted = [one for some in files.compared.wanted.values() for one in some if one.file.path == LARGE]
    assert [one.part.offset_bytes for one in wanted] == [MIB]
    assert f"a part of '{scene.pgdata / LARGE}' cannot be read, and is written anew: Input/output error" in caplog.text
    scene.place_files(files)
    assert scene.restored() == contents(scene.source)


def test_a_file_that_cannot_be_opened_is_needed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is removed and written anew: another user may own it."""
    made = scene.take()
    scene.place_files(scene.files(made))
    real_open = os.open

    def failing(path: str, flags: int, *more: int) -> int:
        if path == str(scene.pgdata / LARGE):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real_open(path, flags, *more)

    files = scene.files(made)
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", failing)
        files.keep()
    assert not (scene.pgdata / LARGE).exists()
    scene.place_files(files)
    assert scene.restored() == contents(scene.source)


def test_files_that_prove_nothing_are_written_anew(scene: Scene) -> None:
    """An old pg_control has the CRC-32C of the base backup's: it ends with its own."""
    made = scene.take()
    scene.place_files(scene.files(made))
    (scene.pgdata / HELD_BACK).write_bytes(b"old" * 100)
    files = scene.files(made)
    files.keep()
    assert not (scene.pgdata / HELD_BACK).exists()
    scene.place_files(files)
    assert scene.restored() == contents(scene.source)


def test_databases_that_are_left_out(scene: Scene) -> None:
    """Their volumes are not fetched, and their files do not stay."""
    made = scene.take()
    scene.place_files(scene.files(made))
    files = scene.files(made, left_out=[5])
    assert files.download_bytes < made.manifest.stored_size_bytes // 2
    files.keep()
    scene.place_files(files)
    assert scene.restored() == {
        name: data for name, data in contents(scene.source).items() if not name.startswith("base/5/")
    }


def test_an_index_that_contradicts_its_volumes(scene: Scene) -> None:
    """Both were stored as they are: no store has better ones, and nothing is started."""
    made = scene.take()
    index = read_file_index(made.manifest, [scene.place], [])
    part = replace(index.files[SMALL].parts[0], crc32c="00000000")
    wrong = {**index.files, SMALL: replace(index.files[SMALL], parts=(part,))}
    with pytest.raises(RestoreError, match="has the CRC-32C "):
        scene.place_files(scene.files(made, replace(index, files=wrong)))
    assert not (scene.pgdata / PG_CONTROL).exists()


@pytest.mark.parametrize("name", [SMALL, LARGE])
def test_a_file_whose_parts_are_right_and_whose_checksum_is_not(scene: Scene, name: str) -> None:
    """The checksum of a file comes from those of its parts, which were read back, and is compared with the index's."""
    made = scene.take()
    index = read_file_index(made.manifest, [scene.place], [])
    wrong = {**index.files, name: replace(index.files[name], crc32c="00000000")}
    with pytest.raises(RestoreError) as caught:
        scene.place_files(scene.files(made, replace(index, files=wrong)))
    assert caught.value.message == (f"the file index contradicts itself: '{name}' and its parts have other checksums")


def test_an_index_without_pg_control(scene: Scene) -> None:
    """Such a cluster could never start."""
    made = scene.take()
    index = read_file_index(made.manifest, [scene.place], [])
    files = {name: file for name, file in index.files.items() if name != PG_CONTROL}
    with pytest.raises(RestoreError, match="has no file 'global/pg_control'"):
        scene.files(made, replace(index, files=files))


@pytest.mark.parametrize("name", ["../outside", "/outside", "base/../../outside"])
def test_an_index_with_a_name_outside(scene: Scene, name: str) -> None:
    """Nothing is written there."""
    made = scene.take()
    index = read_file_index(made.manifest, [scene.place], [])
    files = {**index.files, name: replace(index.files[SMALL], path=name)}
    with pytest.raises(RestoreError, match="expected one below the data directory"):
        scene.place_files(scene.files(made, replace(index, files=files)))
    assert not list(scene.pgdata.parent.glob("outside"))


def test_an_index_that_no_store_has(scene: Scene) -> None:
    """It is named, with each store's reason."""
    made = scene.take()
    item = made.manifest.file_index
    assert item is not None
    [path] = (path for path in scene.staging.parent.rglob(item.name) if path.is_file())
    path.unlink()
    with pytest.raises(RestoreError) as caught:
        read_file_index(made.manifest, [scene.place], [])
    assert caught.value.message.startswith(
        f"the file index of base backup '{made.manifest.backup_id}' cannot be read: r2: "
    )
    with pytest.raises(RestoreError, match="is missing"):
        read_file_index(replace(made.manifest, file_index=None), [scene.place], [])
