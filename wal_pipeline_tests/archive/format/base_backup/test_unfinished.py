"""The parts of the index of a base backup that is being taken are written and read strictly."""

import json

import pytest

from wal_pipeline.archive.format.base_backup.file_index import FilePart, IndexedFile
from wal_pipeline.archive.format.base_backup.manifest import BackupObject, is_backup_object
from wal_pipeline.archive.format.base_backup.unfinished import (
    BegunFile,
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


def test_a_file_that_is_begun_is_told_of_bit_by_bit() -> None:
    """Later parts are added to the earlier ones, over a hole too, until the whole file takes their place."""
    parts = tuple(FilePart(number, number * 8, 8, "0000000a") for number in range(4))
    early, late = (BegunFile("base/5/1", 32, 7, 0o600, some) for some in (parts[:2], parts[3:]))
    found = parse_index_part(index_part_lines(START, {}, [FILE], [early]))
    assert (found.begun, found.files) == ({"base/5/1": early}, {"base/5/1": FILE})
    found = parse_index_part(index_part_lines(START, {}, [], [early]))
    found.add(parse_index_part(index_part_lines(START, {}, [], [late])))
    assert found.begun == {"base/5/1": BegunFile("base/5/1", 32, 7, 0o600, (*parts[:2], parts[3]))}
    found.add(parse_index_part(index_part_lines(START, {}, [FILE])))
    assert (found.begun, found.files) == ({}, {"base/5/1": FILE})


@pytest.mark.parametrize(
    "later",
    [BegunFile("base/5/1", 33, 7, 0o600, ()), BegunFile("base/5/1", 32, 8, 0o600, (FilePart(1, 8, 8, "0000000a"),))],
)
def test_parts_of_different_states_of_a_file_are_refused(later: BegunFile) -> None:
    """One reading has one size and one time."""
    begun = UnfinishedIndex(START, begun={"base/5/1": BegunFile("base/5/1", 32, 7, 0o600, ())})
    with pytest.raises(BaseBackupError, match="the parts of 'base/5/1' are of different states of it"):
        begun.add(UnfinishedIndex(START, begun={"base/5/1": later}))


@pytest.mark.parametrize("places", [[(0, 8), (4, 8)], [(8, 8), (0, 8)], [(0, 40)], [(-8, 8)]])
def test_parts_that_do_not_lie_in_their_file_are_refused(places: list[tuple[int, int]]) -> None:
    """Nor are those that overlap."""
    parts = tuple(FilePart(1, offset, size, "0000000a") for offset, size in places)
    with pytest.raises(BaseBackupError, match="a part of the index cannot be used"):
        parse_index_part(index_part_lines(START, {}, [], [BegunFile("base/5/1", 32, 7, 0o600, parts)]))


def test_parts_that_overlap_those_that_came_before_are_refused() -> None:
    """A file is read from its beginning to its end."""
    first, second = (BegunFile("base/5/1", 32, 7, 0o600, (FilePart(1, place, 8, "0000000a"),)) for place in (8, 12))
    with pytest.raises(BaseBackupError, match="the parts of 'base/5/1' overlap"):
        first.with_more(second)


def test_version_1_is_read() -> None:
    """A base backup that an earlier program began is gone on with."""
    [header, *files] = index_part_lines(START, {3: VOLUME}, [FILE])
    older = json.dumps({**json.loads(header), "version": 1}).encode()
    assert parse_index_part([older, *files]) == UnfinishedIndex(START, {3: VOLUME}, {"base/5/1": FILE})


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
