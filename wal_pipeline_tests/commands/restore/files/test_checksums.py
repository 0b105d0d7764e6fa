"""The CRC-32C of a file comes from those of its parts."""

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.commands.restore.files.checksums import join_crc32c


@given(st.lists(st.binary(max_size=200), max_size=6))
def test_joined_parts_are_the_whole(parts: list[bytes]) -> None:
    """Whatever their sizes, none too."""
    joined = 0
    for part in parts:
        joined = join_crc32c(joined, google_crc32c.value(part), len(part))
    assert joined == google_crc32c.value(b"".join(parts))


@pytest.mark.parametrize("second_bytes", [1, 8192, (64 << 20) + 1])
def test_large_parts(second_bytes: int) -> None:
    """A part of a table has millions of bytes."""
    first, second = b"first", bytes(second_bytes)
    joined = join_crc32c(google_crc32c.value(first), google_crc32c.value(second), second_bytes)
    assert joined == google_crc32c.value(first + second)
