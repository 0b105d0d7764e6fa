"""Files that are put in place whole or not at all."""

from pathlib import Path

import pytest

from wal_pipeline.host.durable_file import write_durably


@pytest.mark.parametrize("size_bytes", [0, 1, 256 * 1024, 3 * 256 * 1024 + 17])
def test_a_file_is_whole_whatever_its_size(tmp_path: Path, size_bytes: int) -> None:
    """It is written in blocks; nothing is left out or repeated, and nothing else is left behind."""
    data = bytes(number * 7 % 251 for number in range(size_bytes))
    write_durably(data, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == data
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
