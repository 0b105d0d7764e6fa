"""Tests which standby can be asked for, and that no error shows a password."""

from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from wal_pipeline.commands.restore.options import RestoreOptionError, RestoreOptions
from wal_pipeline.commands.restore.prepare import RestoreRequest
from wal_pipeline.commands.restore.standby.request import StandbyOptionError, StandbyRequest, standby_request

HERE = Path("/here")
PGDATA = Path("/srv/pgdata")
SECRET = "s3cr3t-value-that-must-not-be-seen"


def request(**options: object) -> RestoreRequest:
    """Return what the options ask for."""
    return RestoreOptions(PGDATA, **options).request(default_pgdata=None, bindir=None)  # type: ignore[arg-type]


def test_what_was_typed_wins_over_the_setting() -> None:
    """Nothing of the setting is mixed into it: a password is for the server that it was set for."""
    found = standby_request("host=new user=f", f"host=old password={SECRET}", "a_slot", HERE)
    assert conninfo_to_dict(found.conninfo) == {"host": "new", "user": "f"}
    assert found.slot == "a_slot"
    assert standby_request(None, "", None, HERE) == StandbyRequest()


@pytest.mark.parametrize("typed", [f"host=a password={SECRET}", f"postgresql://f:{SECRET}@a/", f"sslpassword={SECRET}"])
def test_a_password_is_not_typed(typed: str) -> None:
    """The list of processes shows it; the error does not, and names the ways that are right."""
    with pytest.raises(StandbyOptionError) as caught:
        standby_request(typed, "", None, HERE)
    assert "--primary-conninfo holds a password" in caught.value.message
    assert "WAL_PIPELINE_PRIMARY_CONNINFO" in (caught.value.hint or "")
    assert SECRET not in str(caught.value)


def test_a_settings_password_is_kept_and_not_shown() -> None:
    """It reaches the standby's primary_conninfo, and no representation and no name for a person."""
    found = standby_request(None, f"host=a port=5433 password={SECRET}", None, HERE)
    assert conninfo_to_dict(found.conninfo)["password"] == SECRET
    assert SECRET not in repr(found) + found.primary
    assert found.primary == "a, port 5433"


@pytest.mark.parametrize(
    "text", [f"host={SECRET} nonsense", f"host=a password='{SECRET}\nport=1'", f"postgresql://f:{SECRET}/x@a/"]
)
def test_a_string_that_cannot_be_read_is_not_shown(text: str) -> None:
    """It may hold a password, torn at the wrong place."""
    with pytest.raises(StandbyOptionError) as caught:
        standby_request(None, text, None, HERE)
    assert caught.value.message == "WAL_PIPELINE_PRIMARY_CONNINFO cannot be read."
    assert SECRET not in str(caught.value)


def test_a_relative_password_file_begins_where_it_was_typed() -> None:
    """The standby's server has another current folder."""
    assert standby_request("host=a passfile=pass", "", None, HERE).passfile == HERE / "pass"
    assert standby_request("host=a", "", None, HERE).passfile is None


@pytest.mark.parametrize("slot", ["Upper", "a-b", "a b", "x" * 64, "a;DROP"])
def test_a_slot_that_postgresql_does_not_take_is_refused(slot: str) -> None:
    """The name goes into a command of the replication protocol."""
    with pytest.raises(StandbyOptionError, match="is no slot's name"):
        standby_request("host=a", "", slot, HERE)


def test_a_slot_needs_its_server() -> None:
    """A slot's name alone says nothing."""
    with pytest.raises(StandbyOptionError, match="'--slot' needs '--primary-conninfo'"):
        standby_request(None, "", "a_slot", HERE)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"to_time": "2026-11-22 17:45:00+00"}, "'--to-time' contradicts '--standby': a standby follows its primary"),
        ({"to_lsn": "0/5000000"}, "'--to-lsn' contradicts '--standby'"),
        ({"to_xid": 700}, "'--to-xid' contradicts '--standby'"),
        ({"to_name": "here"}, "'--to-name' contradicts '--standby'"),
        ({"immediate": True}, "'--immediate' contradicts '--standby'"),
        ({"inclusive": False}, "'--exclusive' contradicts '--standby'"),
        ({"action": "pause"}, "'--action' contradicts '--standby'"),
        ({"timeline": "current"}, "'--timeline current' contradicts '--standby'"),
        ({"archiving": True}, "'--archiving' contradicts '--standby': a standby archives as its configuration says"),
        ({"archiving": False}, "'--no-archiving' contradicts '--standby': a copy is set apart"),
        ({"only_databases": ("shop",)}, "'--only-database' contradicts '--standby'"),
    ],
)
def test_a_standby_has_no_target_and_is_no_copy(options: dict[str, object], words: str) -> None:
    """PostgreSQL would stop at a target, and promote the standby there."""
    with pytest.raises(RestoreOptionError) as caught:
        request(standby=True, **options)
    assert caught.value.message.startswith(words)


@pytest.mark.parametrize("options", [{"primary_conninfo": "host=a"}, {"slot": "a_slot"}])
def test_what_is_a_standbys_needs_the_word(options: dict[str, object]) -> None:
    """Without it, a server would open that was meant to follow."""
    with pytest.raises(RestoreOptionError, match="needs '--standby'"):
        request(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"force": True},
        {"base_backup": "some"},
        {"waldir": Path("/wal")},
        {"work_dir": Path("/work")},
        {"tablespaces": {"1": Path("/x")}},
        {"tablespace_map_all": Path("/x")},
        {"restore_config": True},
        {"only_databases": ("shop",)},
    ],
)
def test_files_that_stay_cannot_be_changed(options: dict[str, object]) -> None:
    """With --wal-only nothing is brought, and so nothing can be put elsewhere."""
    with pytest.raises(RestoreOptionError, match="contradicts '--wal-only': the files that are there stay as they are"):
        request(wal_only=True, **options)


def test_the_options_reach_the_request() -> None:
    """A timeline's number can be followed; a folder takes all tablespaces."""
    found = request(standby=True, primary_conninfo="host=a", slot="s", timeline="3", tablespace_map_all=Path("/spaces"))
    assert found == RestoreRequest(
        PGDATA,
        target=found.target,
        standby=StandbyRequest("host=a", "s"),
        tablespace_root=Path("/spaces"),
    )
    assert found.target.timeline == 3
    assert request(wal_only=True).wal_only
