"""What is compared with base backups that were cut, and in which order."""

from pathlib import Path

from wal_pipeline.archive.format.base_backup.file_index import FilePart, IndexedFile
from wal_pipeline.archive.format.base_backup.manifest import BackupObject
from wal_pipeline.archive.format.base_backup.unfinished import BegunFile
from wal_pipeline.commands.backup.local.resume.find import UnfinishedBackup
from wal_pipeline.commands.backup.local.resume.units import BundleUnit, LargeUnit, resume_units
from wal_pipeline.postgres.data_files import DataFile
from wal_pipeline.wal.lsn import Lsn

VOLUMES = {number: BackupObject(f"files.{number:06d}.tar", 10, "ab" * 32, 20) for number in range(9)}


def _file(path: str, *, size_bytes: int = 8192, modified_ns: int = 7, relation: bool = True) -> DataFile:
    return DataFile(path, Path(path), size_bytes, modified_ns, 0o600, is_folder=False, relation=relation, database=5)


def _small(path: str, volume: int) -> IndexedFile:
    return IndexedFile(path, 8192, 7, 0o600, "0000000a", (FilePart(volume, 0, 8192, "0000000a"),))


def _unfinished(backup_id: str, files: list[IndexedFile], large: dict[str, dict[int, int]]) -> UnfinishedBackup:
    """``large``: by path, the volumes by their parts' places."""
    begun = {
        path: BegunFile(
            path, 1 << 30, 7, 0o600, tuple(FilePart(n, place, 8192, "0000000b") for place, n in some.items())
        )
        for path, some in large.items()
    }
    return UnfinishedBackup(backup_id, Lsn(len(backup_id)), VOLUMES, {file.path: file for file in files}, begun)


def _bundle(one: UnfinishedBackup, volume: int, *files: DataFile) -> BundleUnit:
    return BundleUnit(one.backup_id, VOLUMES[volume], files, tuple(one.files[file.path] for file in files))


NEW = _unfinished("newer", [_small("a", 0), _small("b", 0), _small("c", 1)], {"l": {0: 2, 8192: 3}})
OLD = _unfinished("old", [_small("b", 4), _small("d", 4), _small("l", 4)], {"l": {8192: 5, 24576: 6}, "m": {0: 7}})


def test_the_newest_that_knows_a_file_tells_of_it() -> None:
    """Bundles of the oldest come first; the parts of large files come from all."""
    files = [_file(path) for path in ("a", "b", "c", "d", "e", "l", "m")]
    old_step, new_step = resume_units([NEW, OLD], files)
    assert old_step == [_bundle(OLD, 4, files[3])]
    large, other, *bundles = new_step
    assert bundles == [_bundle(NEW, 0, files[0], files[1]), _bundle(NEW, 1, files[2])]
    assert isinstance(large, LargeUnit)
    assert isinstance(other, LargeUnit)
    assert [(one.backup_id, one.part.offset_bytes, one.item.name) for one in large.parts] == [
        ("newer", 0, "files.000002.tar"),
        ("newer", 8192, "files.000003.tar"),
        ("old", 24576, "files.000006.tar"),
    ]
    assert [one.start_lsn for one in large.parts] == [Lsn(5), Lsn(5), Lsn(3)]
    assert other.files == (files[6],)


def test_what_has_another_size_or_time_or_is_no_relation_is_left_out() -> None:
    """Of a large file the parts may still be right."""
    files = [
        _file("a", size_bytes=16384),
        _file("b", modified_ns=8),
        _file("c", relation=False),
        _file("l", size_bytes=9, modified_ns=9),
    ]
    [[unit]] = resume_units([NEW], files)
    assert unit.files == (files[3],)
    assert resume_units([], files) == []
