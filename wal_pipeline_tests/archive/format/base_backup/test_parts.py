"""The names of a large file's parts: they sort, and lead back to the file."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.archive.format.base_backup.parts import LARGEST_OFFSET, part_name, split_part_name


@given(path=st.text(min_size=1), offsets=st.lists(st.integers(0, LARGEST_OFFSET), min_size=1))
def test_names_lead_back_and_sort_by_the_place(path: str, offsets: list[int]) -> None:
    """Whatever the file is called, ``cat`` of the sorted names joins it."""
    names = sorted(part_name(path, offset) for offset in offsets)
    assert [split_part_name(name) for name in names] == [(path, offset) for offset in sorted(offsets)]


@pytest.mark.parametrize("name", ["base/5/16384", "base/5/16384.1", "x.wal-pipeline-part.1", ".wal-pipeline-part."])
def test_a_whole_file_is_no_part(name: str) -> None:
    """Only the whole mark with fifteen digits counts."""
    assert split_part_name(name) is None


@pytest.mark.parametrize("offset", [-1, LARGEST_OFFSET + 1])
def test_a_place_that_no_name_can_say_is_refused(offset: int) -> None:
    """It would sort wrongly."""
    with pytest.raises(ValueError, match="no part of a file begins at"):
        part_name("base/5/16384", offset)
