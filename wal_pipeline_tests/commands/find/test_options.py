"""The options of a search: what they mean, and the values that are refused."""

from datetime import UTC, datetime

import pytest

from wal_pipeline.commands.find.options import FindOptionError, FindOptions, FindRequest

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def test_moments_and_timeline_get_their_meaning() -> None:
    """Without any, all is open; with them, moments have their zone and the timeline is a number."""
    assert FindOptions().checked() == FindRequest(None, None, None)
    given = FindOptions(from_time="2026-11-22 13:00:00+01", to_time="2026-11-22T12:00:00Z", timeline="3").checked()
    assert given == FindRequest(NOON, NOON, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (FindOptions(min_deletes=-1), "--min-deletes is -1, expected 0 or more"),
        (FindOptions(min_rows=-5), "--min-rows is -5, expected 0 or more"),
        (FindOptions(limit=0), "--limit is 0, expected 1 or more"),
        (FindOptions(timeline="current"), "'current' is not a timeline, expected latest or a number"),
        (FindOptions(from_time="noon"), "--from 'noon' is not a time, expected such as '2026-11-22 17:45:00+00'"),
        (FindOptions(to_time="2026-11-22 12:00:00"), "--to '2026-11-22 12:00:00' has no time zone"),
        (
            FindOptions(from_time="2026-11-22 12:00:01Z", to_time="2026-11-22 12:00:00Z"),
            "--from 2026-11-22 12:00:01+00:00 is after --to 2026-11-22 12:00:00+00:00",
        ),
    ],
)
def test_what_cannot_be_is_refused(options: FindOptions, message: str) -> None:
    """Each error names the option, what was found and what is expected."""
    with pytest.raises(FindOptionError) as caught:
        options.checked()
    assert caught.value.message == message


def test_the_stores_to_read() -> None:
    """Any, or one by name; another name is refused."""
    assert FindOptions().store_names(["r2", "b2"], ["r2", "b2"]) == ("r2", "b2")
    assert FindOptions(store="b2").store_names(["r2"], ["r2", "b2"]) == ("b2",)
    with pytest.raises(FindOptionError) as caught:
        FindOptions(store="b3").store_names(["r2"], ["r2", "b2"])
    assert caught.value.message == "'b3' is not a store, expected one of any, r2, b2"
