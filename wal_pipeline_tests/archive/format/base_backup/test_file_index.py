"""The index of a base backup's files: written, read back, and refused where it cannot be trusted."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.archive.format.base_backup.file_index import (
    FilePart,
    IndexedFile,
    index_lines,
    parse_index,
)
from wal_pipeline.errors import BaseBackupError
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline_tests.support.manifests import PARENT_ID, make_local_manifest

MANIFEST = make_local_manifest(own=2, referred=1)
STARTS = {MANIFEST.backup_id: Lsn.parse("0/2000028"), PARENT_ID: Lsn.parse("0/1000028")}
CRC = "e3069283"


def whole(path: str, size: int, volume: int = 0) -> IndexedFile:
    """A file in one volume."""
    return IndexedFile(path, size, 1_764_450_000_000_000_001, 0o600, CRC, (FilePart(volume, 0, size, CRC),))


def cut(path: str, sizes: list[int]) -> IndexedFile:
    """A file in several parts, in all volumes by turns."""
    parts = tuple(FilePart(number % 3, sum(sizes[:number]), size, CRC) for number, size in enumerate(sizes))
    return IndexedFile(path, sum(sizes), 0, 0o640, CRC, parts)


paths = st.text(min_size=1, max_size=30) | st.binary(min_size=1, max_size=9).map(
    lambda raw: raw.decode("utf-8", "surrogateescape")
)


@given(st.dictionaries(paths, st.lists(st.integers(1, 2**40), min_size=1, max_size=4), max_size=5))
def test_what_is_written_is_read_back(drawn: dict[str, list[int]]) -> None:
    """Any files, with any names, and where they lie."""
    files = [cut(path, sizes) for path, sizes in drawn.items()]
    found = parse_index(index_lines(files, STARTS), MANIFEST)
    assert found.files == {file.path: file for file in files}
    assert found.start_lsns == STARTS
    held = found.by_volume()
    assert sum(map(len, held.values())) == sum(map(len, drawn.values()))
    assert all(part.volume == number for number, some in held.items() for _, part in some)


def test_empty_files_and_folders_have_a_part_of_nothing() -> None:
    """They lie in a volume too."""
    folder = IndexedFile("pg_notify", 0, 5, 0o700, "00000000", (FilePart(1, 0, 0, "00000000"),), is_folder=True)
    found = parse_index(index_lines([folder, whole("base/5/1", 0)], STARTS), MANIFEST)
    assert found.files["pg_notify"].is_folder
    assert not found.files["base/5/1"].is_folder


def changed(change: Callable[[list[Any]], object]) -> list[bytes]:
    """The lines of an index of two files, after a change."""
    lines = [json.loads(line) for line in index_lines([whole("a", 8), cut("b", [5, 6])], STARTS)]
    change(lines)
    return [json.dumps(line).encode() for line in lines]


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines.clear(),
        lambda lines: lines.pop(),
        lambda lines: lines.append(lines[1]),
        lambda lines: lines[0].update(version=2),
        lambda lines: lines[0].update(start_lsns={}),
        lambda lines: lines[1].update(path=""),
        lambda lines: lines[1].update(size=-1),
        lambda lines: lines[1].update(size=9),
        lambda lines: lines[1].update(parts=[]),
        lambda lines: lines[1].update(crc32c="xyz"),
        lambda lines: lines[1].update(mode=0o170600),
        lambda lines: lines[2]["parts"][0].__setitem__(0, 3),
        lambda lines: lines[2]["parts"][1].__setitem__(1, 4),
        lambda lines: lines[2]["parts"].reverse(),
        lambda lines: lines[2].pop("parts"),
    ],
)
def test_an_index_that_cannot_be_trusted_is_refused(change: Callable[[list[Any]], object]) -> None:
    """A hole in a file, a file twice, too few lines, and volumes that are not there are refused, and said."""
    with pytest.raises(BaseBackupError, match=f"the file index of base backup '{MANIFEST.backup_id}' cannot be used"):
        parse_index(changed(change), MANIFEST)
