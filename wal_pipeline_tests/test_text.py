"""Names, counts, sizes, lengths of time and moments as text."""

import os
from datetime import UTC, datetime, timedelta, timezone

import pytest

from wal_pipeline.text import (
    billed_size,
    coarse_length,
    coarse_size,
    counted,
    length,
    moment_json,
    moment_text,
    moment_utc,
    shown_name,
    size,
)

AT = datetime(2026, 11, 22, 17, 45, 0, 500_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"000000010000000000000003", "000000010000000000000003"),
        ("café".encode(), "café"),
        (b"caf\xe9", "caf\\xe9"),
        (b"a\nb\x1b[2J", "a\\nb\\x1b[2J"),
    ],
)
def test_shown_name(raw: bytes, shown: str) -> None:
    """Printable characters stay, and every other byte is spelled out."""
    assert shown_name(os.fsdecode(raw)) == shown


def test_counted() -> None:
    """Only one thing has a noun in the singular."""
    assert [counted(number, "gap") for number in (0, 1, 2)] == ["0 gaps", "1 gap", "2 gaps"]


@pytest.mark.parametrize(
    ("size_bytes", "shown", "coarse", "billed"),
    [
        (0, "0 B", "0 MiB", "0.00 GB"),
        (1023, "1023 B", "0 MiB", "0.00 GB"),
        (1536, "1.5 KiB", "0 MiB", "0.00 GB"),
        (2**20, "1.0 MiB", "1 MiB", "0.00 GB"),
        (2**30 - 1, "1024.0 MiB", "1024 MiB", "1.07 GB"),
        (5 * 2**29, "2.5 GiB", "2.5 GiB", "2.68 GB"),
        (3 * 2**40, "3.0 TiB", "3072.0 GiB", "3298.53 GB"),
    ],
)
def test_sizes(size_bytes: int, shown: str, coarse: str, billed: str) -> None:
    """A screen shows powers of two to the tenth, an alert whole MiB or GiB, a bill powers of ten."""
    assert (size(size_bytes), coarse_size(size_bytes), billed_size(size_bytes)) == (shown, coarse, billed)


@pytest.mark.parametrize(
    ("seconds", "shown", "coarse"),
    [
        (2.46, "2.5 s", "2 s"),
        (119.4, "119 s", "119 s"),
        (179, "3 min", "2 min"),
        (7199, "120 min", "119 min"),
        (9000, "2 h", "2 h"),
        (10_799, "3 h", "2 h"),
        (172_800, "2 days", "2 days"),
        (259_199, "3 days", "2 days"),
    ],
)
def test_lengths(seconds: float, shown: str, coarse: str) -> None:
    """A screen rounds; an alert counts whole units."""
    assert (length(seconds), length(timedelta(seconds=seconds))) == (shown, shown)
    assert coarse_length(timedelta(seconds=seconds)) == coarse


def test_sizes_and_lengths() -> None:
    """They read as people say them."""
    assert [size(n) for n in (0, 1023, 1024, 5 * 2**30)] == ["0 B", "1023 B", "1.0 KiB", "5.0 GiB"]
    lengths = [length(n) for n in (0.25, 45, 300, 7200, 3 * 86400)] + [length(None)]
    assert lengths == ["0.2 s", "45 s", "5 min", "2 h", "3 days", "-"]


def test_moments() -> None:
    """People read seconds, JSON holds the whole moment with its zone."""
    assert (moment_text(AT), moment_utc(AT)) == ("2026-11-22 17:45:00", "2026-11-22 17:45:00Z")
    east = AT.astimezone(timezone(timedelta(hours=1)))
    assert moment_json(east) == "2026-11-22T18:45:00.500000+01:00"


def test_what_is_not_known() -> None:
    """A length and a moment that are not known are a dash, and null in JSON."""
    assert (length(None), moment_text(None), moment_json(None)) == ("-", "-", None)
