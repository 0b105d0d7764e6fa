"""The parts of the index of a base backup that is being taken are written and read strictly."""

import json

import pytest

from wal_pipeline.archive.format.base_backup.file_index import FilePart, IndexedFile
from wal_pipeline.archive.format.base_backup.manifest import BackupObject, is_backup_object
from wal_pipeline.archive.format.base_backup.unfinished import (
    UnfinishedIndex,
    index_part_lines,
    index_part_name,
    is_index_part,
    parse_index_part,
)
from wal_pipeline.archive.records import Codec
from wal_pipeline.errors import BaseBackupError
from wal_pipeline.wal.lsn import Lsn

START = Lsn.parse("0/5000028")
VOLUME = BackupObject("files.000003.tar.zst", 10, "ab" * 32, 20)
FILE = IndexedFile("base/5/1", 8, 7, 0o600, "0000000a", (FilePart(3, 0, 8, "0000000a"),))


def test_what_is_written_is_read() -> None:
    """Two parts tell of all together, and must begin at the same place."""
    first = parse_index_part(index_part_lines(START, {3: VOLUME}, [FILE]))
    assert first == UnfinishedIndex(START, {3: VOLUME}, {"base/5/1": FILE})
    first.add(parse_index_part(index_part_lines(START, {4: VOLUME}, [])))
    assert set(first.volumes) == {3, 4}
    with pytest.raises(BaseBackupError, match="a part of the index begins at 0/9, expected 0/5000028"):
        first.add(UnfinishedIndex(Lsn(9)))


def test_its_names_are_ours_and_no_others() -> None:
    """A leftover is removed with the base backup that it is of."""
    for codec in Codec:
        for encrypted in (False, True):
            name = index_part_name(12, codec, encrypted=encrypted)
            assert is_index_part(name)
            assert is_backup_object(name) == (codec is not Codec.NONE or name == "file_index.part.000012" or encrypted)
    assert not is_index_part("file_index.zst")
    assert not is_index_part("file_index.part.12.zst")


@pytest.mark.parametrize(
    "change",
    [{"format": "other"}, {"version": 3}, {"volumes": [[1, "x", 1, "zz", 1]]}, {"volumes": [[-1, "x", 1, "ab", 1]]}],
)
def test_what_is_not_understood_is_refused(change: dict[str, object]) -> None:
    """Nothing of such a part is believed."""
    header = json.loads(next(index_part_lines(START, {3: VOLUME}, [])))
    with pytest.raises(BaseBackupError, match="a part of the index cannot be used"):
        parse_index_part([json.dumps({**header, **change}).encode()])
    with pytest.raises(BaseBackupError):
        parse_index_part([])
