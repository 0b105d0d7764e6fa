"""The guard that ends a recovery at a planned segment."""

import subprocess

import pytest

from wal_pipeline.postgres.recovery import bounded_command
from wal_pipeline.wal.names import segment_name

LAST = "0000000300000001000000FE"
DELIVERED, ABSENT = 7, 1


def answer(shell: str, name: str, last: str = LAST) -> int:
    """Run the line as PostgreSQL does, with its placeholders replaced, before a command that exits with DELIVERED."""
    line = bounded_command(f"exit {DELIVERED}", last).replace("%f", name).replace("%%", "%")
    return subprocess.run([shell, "-c", line], check=False, stderr=subprocess.DEVNULL).returncode


@pytest.mark.parametrize("shell", ["dash", "bash"])
@pytest.mark.parametrize(
    ("name", "code"),
    [
        (LAST, DELIVERED),
        ("0000000300000001000000FD", DELIVERED),
        ("0000000300000000000000FF", DELIVERED),
        ("0000000300000001000000FF", ABSENT),
        ("000000030000000200000000", ABSENT),
        ("0000000300000010000000FE", ABSENT),
        ("0000000100000001000000FF", ABSENT),  # the parent's: past the switch
        ("0000000100000001000000FE", DELIVERED),
        ("00000004.history", DELIVERED),
    ],
)
def test_segments_after_the_last_are_absent(shell: str, name: str, code: int) -> None:
    """On every timeline; history files pass."""
    assert answer(shell, name) == code


@pytest.mark.parametrize("number", [0, 8, 9, 255, 0x08_00, 0xFFFFFFFF_00 + 7])
def test_numbers_are_compared_as_hexadecimal(number: int) -> None:
    """Neither leading zeros nor the largest log number confuse the shell."""
    last, after = (segment_name(1, one, 1 << 24).name for one in (number, number + 1))
    assert [answer("sh", name, last) for name in (last, after)] == [DELIVERED, ABSENT]
