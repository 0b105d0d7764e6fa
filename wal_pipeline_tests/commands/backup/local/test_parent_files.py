"""What may be unchanged since the parent is found by size, time and how much of its volume is still right."""

from dataclasses import replace
from pathlib import Path

import pytest

from wal_pipeline.archive.format.base_backup.file_index import FileIndex, FilePart, IndexedFile
from wal_pipeline.archive.records import BackupKind, FileComparison
from wal_pipeline.commands.backup.local.parent_files import ParentFiles, ReferredVolumes
from wal_pipeline.postgres.data_files import DataFile
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline_tests.support.manifests import PARENT_ID, STARTED_AT, make_local_manifest
from wal_pipeline_tests.support.packed_folder import STARTED, PackedFolder
from wal_pipeline_tests.support.stateful_references import ReferenceWorld

SIZE = 64 << 10
STARTED_NS = int(STARTED_AT.timestamp()) * 1_000_000_000
OLD_NS = STARTED_NS - 10**12
MANIFEST = make_local_manifest(own=2)
HOME = MANIFEST.backup_id


def _known(path: str, volume: int = 0, *, size: int = SIZE, modified_ns: int = OLD_NS) -> IndexedFile:
    return IndexedFile(path, size, modified_ns, 0o600, "0" * 8, (FilePart(volume, 0, size, "0" * 8),))


def _parent(*files: IndexedFile, content_bytes: int = SIZE) -> ParentFiles:
    volumes = tuple(replace(one, item=replace(one.item, content_size_bytes=content_bytes)) for one in MANIFEST.volumes)
    manifest = replace(MANIFEST, volumes=volumes)
    return ParentFiles(manifest, FileIndex({one.path: one for one in files}, {HOME: manifest.start_lsn}))


def _now(path: str, *, size: int = SIZE, modified_ns: int = OLD_NS, relation: bool = True) -> DataFile:
    return DataFile(path, Path(path), size, modified_ns, 0o600, relation=relation, database=5)


@pytest.mark.parametrize(
    ("known", "now", "is_candidate"),
    [
        (_known("a"), _now("a"), True),
        (_known("a"), _now("b"), False),
        (_known("a"), _now("a", size=SIZE + 8192), False),
        (_known("a"), _now("a", modified_ns=OLD_NS + 1), False),
        (_known("a"), _now("a", relation=False), False),
        (_known("a", size=SIZE - 8192), _now("a", size=SIZE - 8192), False),
        (_known("a", modified_ns=STARTED_NS - 2 * 10**9), _now("a", modified_ns=STARTED_NS - 2 * 10**9), False),
        (_known("a", modified_ns=STARTED_NS - 3 * 10**9), _now("a", modified_ns=STARTED_NS - 3 * 10**9), True),
    ],
    ids=["same", "another", "larger", "later", "no pages", "small", "just before the start", "well before the start"],
)
def test_size_and_time_make_a_candidate(known: IndexedFile, now: DataFile, is_candidate: bool) -> None:
    """A relation of 64 KiB at least, whose time is well before the parent was begun."""
    assert set(_parent(known).candidates([now])) == ({"a"} if is_candidate else set())


def test_a_volume_of_which_less_than_half_is_right_is_stored_anew() -> None:
    """Of two volumes of two files, one file of the first changed, and both of the second are as they were."""
    parent = _parent(_known("a"), _known("b"), _known("c", 1), _known("d", 1), content_bytes=3 * SIZE)
    now = [_now("a"), _now("b", modified_ns=OLD_NS + 5), _now("c"), _now("d")]
    assert set(parent.candidates(now)) == {"c", "d"}


def test_the_content_decides(tmp_path: Path) -> None:
    """Also where size and time are the same: another checksum, a damaged page, a page that is newer, and none of it."""
    scene = PackedFolder(tmp_path)
    file = scene.file("base/5/16384", bytes(SIZE), relation=True)
    scene.pack([file])
    known = scene.packed.files[file.path]
    parent = _parent(known)
    assert parent.known(known).is_unchanged(file, STARTED, lambda _: None)
    assert not parent.known(replace(known, crc32c="00000001")).is_unchanged(file, STARTED, lambda _: None)
    assert not parent.known(replace(known, modified_ns=1)).is_unchanged(file, STARTED, lambda _: None)
    for page in (bytes(8) + b"\x01" * 8184, b"\x01" * 8192):  # damaged; newer, and so not verified
        other = PackedFolder(tmp_path)
        changed = other.file("base/5/16385", page + bytes(SIZE - 8192), relation=True)
        other.pack([changed])
        stored = other.packed.files[changed.path]
        assert not _parent(stored).known(stored).is_unchanged(changed, STARTED, lambda _: None)
    file.source.unlink()
    assert not parent.known(known).is_unchanged(file, STARTED, lambda _: None)


def test_time_alone_decides_where_a_person_trusts_it(tmp_path: Path) -> None:
    """Other content under the same size and time is not seen, and not a byte is read; another time is."""
    scene = PackedFolder(tmp_path)
    file = scene.file("base/5/16384", bytes(SIZE), relation=True)
    known = IndexedFile(file.path, SIZE, file.modified_ns, 0o600, "00000001", (FilePart(0, 0, SIZE, "00000001"),))
    parent = replace(_parent(known), compare=FileComparison.TIME)
    read_bytes: list[int] = []
    assert parent.known(known).is_unchanged(file, STARTED, read_bytes.append)
    assert not parent.known(replace(known, modified_ns=1)).is_unchanged(file, STARTED, read_bytes.append)
    assert not parent.known(replace(known, size_bytes=1)).is_unchanged(file, STARTED, read_bytes.append)
    file.source.unlink()
    assert not parent.known(known).is_unchanged(file, STARTED, read_bytes.append)
    assert read_bytes == []


def test_base_backups_by_time_alone_come_back(tmp_path: Path) -> None:
    """Over several generations; what changed or was dropped is right."""
    world = ReferenceWorld(tmp_path)
    world.change(range(6))
    world.pass_time(1)
    kinds = []
    for number in range(3):
        made = world.back_up(incremental=True, compare=FileComparison.TIME)
        assert made is not None
        kinds.append((made.kind, len(made.chain)))
        world.change([number], factor=2)
        world.drop(5 - number)
        world.pass_time(1)
    assert kinds == [(BackupKind.FULL, 0), (BackupKind.INCREMENTAL, 1), (BackupKind.INCREMENTAL, 2)]
    assert world.check_restores() == 6
    world.scene.catalog.close()


def test_older_volumes_come_first_and_the_own_ones_move_behind_them() -> None:
    """Files of a parent and of the one before it are referred to where they lie."""
    manifest = make_local_manifest(own=2, referred=1)
    index = FileIndex({}, {HOME: Lsn(9), PARENT_ID: Lsn(5)})
    parent = ParentFiles(manifest, index)
    referred = ReferredVolumes(parent, [_known("a", 1), _known("b", 2)])
    assert [(one.backup_id, one.item.name) for one in referred.volumes] == [
        (PARENT_ID, "files.000000.tar.zst"),
        (HOME, "files.000001.tar.zst"),
    ]
    assert {file.path: file.parts[0].volume for file in referred.files()} == {"a": 1, "b": 0}
    assert referred.moved(_known("own", 0)).parts[0].volume == 2
    assert referred.chain == (PARENT_ID, HOME)
    assert referred.start_lsns == {HOME: Lsn(9), PARENT_ID: Lsn(5)}
    assert ReferredVolumes(parent, []).chain == ()
