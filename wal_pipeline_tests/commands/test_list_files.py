"""Moments as a person types them, and listed files."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.archive.records import CopyStatus
from wal_pipeline.catalog.catalog import open_catalog
from wal_pipeline.catalog.files import CopyFilter
from wal_pipeline.commands.list_files import list_files, parse_moment
from wal_pipeline.errors import SettingsError
from wal_pipeline_tests.support.catalog_records import NOON, copy_of, segment


@pytest.mark.parametrize(
    ("text", "ago"),
    [("90s", timedelta(seconds=90)), ("30m", timedelta(minutes=30)), (" 2h", timedelta(hours=2)), ("1w", timedelta(7))],
)
def test_how_long_ago(text: str, ago: timedelta) -> None:
    """A number and a unit are counted back from now."""
    assert parse_moment(text, NOON) == NOON - ago


def test_moment_without_zone_is_utc() -> None:
    """A day alone is its midnight in UTC."""
    assert parse_moment("2026-11-22", NOON) == datetime(2026, 11, 22, tzinfo=UTC)


@given(
    st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1)),  # noqa: DTZ001 - hypothesis wants naive bounds
    st.integers(-14, 14),
)
def test_iso_moments_are_read_back(moment: datetime, hours: int) -> None:
    """Any ISO moment with a zone is the same moment in UTC."""
    aware = moment.replace(tzinfo=timezone(timedelta(hours=hours)))
    read = parse_moment(aware.isoformat(), NOON)
    assert (read, read.tzinfo) == (aware, UTC)


@pytest.mark.parametrize("text", ["", "yesterday", "-2h", "2x", "999999w"])
def test_other_words_are_refused(text: str) -> None:
    """The error shows what can be written."""
    with pytest.raises(SettingsError) as caught:
        parse_moment(text, NOON)
    assert caught.value.message == f"'{text}' is not a moment"
    assert caught.value.hint == "Write 2026-11-22T17:45:00Z, 2026-11-22, or how long ago: 30m, 2h, 7d."


def test_files_are_listed_with_all_their_copies(tmp_path: Path) -> None:
    """A file that is meant because of its failed copy shows its good copy too."""
    catalog = open_catalog(f"sqlite:///{tmp_path}/catalog.sqlite", "main")
    for number in (1, 2):
        catalog.files.record_verified(segment(number), [copy_of(segment(number), "r2")])
    catalog.files.record_failed(segment(2), copy_of(segment(2), "b2", CopyStatus.FAILED))
    [listed] = list_files(catalog, CopyFilter(status=CopyStatus.FAILED))
    assert listed.file == segment(2)
    assert {store: copy.status for store, copy in listed.copies.items()} == {
        "r2": CopyStatus.VERIFIED,
        "b2": CopyStatus.FAILED,
    }
    catalog.close()
