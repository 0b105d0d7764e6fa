"""A clone's name, time and port are refused where they cannot be, before anything else is done."""

from datetime import timedelta

import pytest

from wal_pipeline.commands.clone.options import CloneOptions, free_clone_name, parse_keep_for, require_clone_name
from wal_pipeline.commands.restore.options import RestoreOptionError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2h", timedelta(hours=2)),
        ("30m", timedelta(minutes=30)),
        ("1d12h", timedelta(days=1, hours=12)),
        ("1h 30m", timedelta(hours=1, minutes=30)),
        ("0.5h", timedelta(minutes=30)),
        ("30d", timedelta(days=30)),
        (timedelta(seconds=5), timedelta(seconds=5)),
    ],
)
def test_a_length_of_time(text: str | timedelta, expected: timedelta) -> None:
    """Numbers with their units."""
    assert parse_keep_for(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0h", "--for '0h' is over at once, expected such as 30m, 2h or 1d12h."),
        ("-2h", "--for '-2h' is not a length of time, expected such as 30m, 2h or 1d12h."),
        ("", "--for '' is not a length of time, expected such as 30m, 2h or 1d12h."),
        ("2", "--for '2' is not a length of time, expected such as 30m, 2h or 1d12h."),
        ("2h x", "--for '2h x' is not a length of time, expected such as 30m, 2h or 1d12h."),
        ("31d", "--for '31d' is longer than 30 days, the longest for a clone."),
        ("9" * 40 + "d", f"--for '{'9' * 40}d' is longer than 30 days, the longest for a clone."),
    ],
)
def test_what_is_no_time_to_keep_a_clone(text: str, message: str) -> None:
    """Nothing, a time that is over, one without unit, and one that would fill a disk for ever."""
    with pytest.raises(RestoreOptionError) as caught:
        parse_keep_for(text)
    assert caught.value.message == message


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "-x", "Üb", "A", "a" * 31, "x\n", "1.new"])
def test_what_cannot_be_a_name(name: str) -> None:
    """It becomes a folder's name, and must mean one below the folder for clones."""
    with pytest.raises(RestoreOptionError, match="cannot be a clone's name"):
        require_clone_name(name)


def test_a_free_name() -> None:
    """The first number that is not taken."""
    assert free_clone_name(["clone-1", "shop", "clone-3"]) == "clone-2"
    assert require_clone_name(free_clone_name([])) == "clone-1"


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_what_is_no_port(port: int) -> None:
    """As TCP knows them."""
    with pytest.raises(RestoreOptionError, match="is not a port, expected 1 to 65535"):
        CloneOptions(port=port).require_port()
