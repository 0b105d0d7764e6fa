"""The options of a restore: one list for the command line and the job, and what they ask for."""

from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

from wal_pipeline.archive.recovery.target import RecoveryTarget, TargetKind
from wal_pipeline.cli.restore import restore_command
from wal_pipeline.commands.restore.options import RestoreOptionError, RestoreOptions
from wal_pipeline.commands.restore.prepare import RestoreRequest
from wal_pipeline.orchestration.jobs.restore.config import RestoreConfig
from wal_pipeline.orchestration.jobs.restore.run import options_of
from wal_pipeline.postgres.recovery import TargetAction

PGDATA = Path("/srv/pgdata")
ONLY_ON_THE_COMMAND_LINE = {
    "as_json": "how the command prints",
    "prefetch_dir": "a folder of the machine where a person is logged in",
    "config_file": "a file of the machine where a person is logged in",
}
OTHER_DEFAULTS_IN_THE_JOB = {
    "plan_only": "a job that is started without a word writes nothing",
    "pgdata": "the code location's own PGDATA is the cluster that archives: it must be named",
}


def defaults() -> dict[str, Any]:
    """Return the default of each option."""
    return {
        one.name: one.default_factory() if one.default_factory is not MISSING else one.default
        for one in fields(RestoreOptions)
    }


def test_the_command_line_has_every_option_with_its_default() -> None:
    """No option can be forgotten, misspelt, or mean another thing when it is not given."""
    with restore_command.make_context("restore", []) as context:
        given = dict(context.params)
    assert given.pop("as_json") is False
    assert given == defaults()


def test_the_jobs_configuration_has_every_option_but_those_listed() -> None:
    """A field that is unset means what it means on the command line; another default is listed with its reason."""
    names = set(RestoreConfig.model_fields) - {"what_they_take"}  # says what the first fields take; nothing reads it
    expected = {name: value for name, value in defaults().items() if name not in ONLY_ON_THE_COMMAND_LINE}
    assert names == set(expected)
    given = options_of(RestoreConfig(pgdata=str(PGDATA)))
    assert {name for name in names if getattr(given, name) != expected[name]} == set(OTHER_DEFAULTS_IN_THE_JOB)


def test_a_runs_configuration_and_a_command_line_ask_for_the_same() -> None:
    """Each option reaches the request from both."""
    arguments = "--pgdata=/srv/pgdata --to-lsn=0/5000000 --exclusive --timeline=3 --store=b2 --action=pause --force "
    arguments += "--base-backup=some --system-identifier=7 --tablespace-map=16384=/new --owner=postgres "
    arguments += "--no-archiving --no-verify --start --set=port=5433 --waldir=/wal --work-dir=/work --restore-config "
    arguments += "--only-database=shop --only-database=crm --standby --primary-conninfo=host=a --slot=s --wal-only "
    arguments += "--tablespace-map-all=/spaces"
    with restore_command.make_context("restore", arguments.split()) as context:
        typed = RestoreOptions(**{name: value for name, value in context.params.items() if name != "as_json"})
    config = RestoreConfig(
        pgdata="/srv/pgdata",
        plan_only=False,
        to_lsn="0/5000000",
        inclusive=False,
        timeline="3",
        store="b2",
        action="pause",
        force=True,
        base_backup="some",
        system_identifier=7,
        tablespaces={"16384": "/new"},
        owner="postgres",
        archiving=False,
        verify=False,
        start=True,
        server_settings={"port": "5433"},
        waldir="/wal",
        work_dir="/work",
        restore_config=True,
        only_databases=["shop", "crm"],
        standby=True,
        primary_conninfo="host=a",
        slot="s",
        wal_only=True,
        tablespace_map_all="/spaces",
    )
    assert options_of(config) == typed


def test_options_become_a_request() -> None:
    """Texts are read; the data directory and the programs' folder come from the settings where they are not given."""
    options = RestoreOptions(to_xid=700, inclusive=False, action="shutdown", tablespaces={"16384": Path("/new")})
    assert options.request(default_pgdata=PGDATA, bindir=Path("/usr/bin")) == RestoreRequest(
        PGDATA,
        target=RecoveryTarget(kind=TargetKind.XID, xid=700, inclusive=False),
        action=TargetAction.SHUTDOWN,
        tablespaces={"16384": Path("/new")},
        bindir=Path("/usr/bin"),
    )
    assert RestoreOptions(Path("/other")).request(default_pgdata=PGDATA, bindir=None).pgdata == Path("/other")


def test_an_undecided_restore_stays_undecided() -> None:
    """Neither the command line nor a run's configuration decides by leaving it out."""
    assert RestoreOptions().request(default_pgdata=PGDATA, bindir=None).archiving is None
    with restore_command.make_context("restore", ["--archiving"]) as context:
        assert context.params["archiving"] is True


def test_a_copy_that_shall_archive_is_refused() -> None:
    """The two options contradict each other."""
    options = RestoreOptions(archiving=False, server_settings={"archive_mode": "always"})
    with pytest.raises(RestoreOptionError) as caught:
        options.request(default_pgdata=PGDATA, bindir=None)
    assert str(caught.value) == "'archive_mode=always' contradicts '--no-archiving': a copy does not archive."


def test_a_restore_without_a_data_directory_is_refused() -> None:
    """Neither the option nor the setting is there."""
    with pytest.raises(RestoreOptionError) as caught:
        RestoreOptions().request(default_pgdata=None, bindir=None)
    assert str(caught.value) == "Missing option '--pgdata': the data directory to restore into."


def test_an_unknown_action_is_refused() -> None:
    """A job's configuration is free text."""
    with pytest.raises(RestoreOptionError) as caught:
        RestoreOptions(PGDATA, action="open").request(default_pgdata=None, bindir=None)
    assert str(caught.value) == "'open' is not an action, expected one of pause, promote, shutdown."


def test_the_stores_to_read() -> None:
    """All that are configured, or one that is known, also where it is not configured."""
    known = ("r2", "b2", "local")
    assert RestoreOptions().store_names(("r2", "b2"), known) == ("r2", "b2")
    assert RestoreOptions(store="local").store_names(("r2",), known) == ("local",)
    with pytest.raises(RestoreOptionError) as caught:
        RestoreOptions(store="R2").store_names(("r2",), known)
    assert str(caught.value) == "'R2' is not a store, expected one of any, r2, b2, local."
