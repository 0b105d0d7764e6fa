"""Tests that names which are no text become text."""

import os

import pytest

from wal_pipeline.text import shown_name


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
