"""Tests that a run's configuration of a clone means what the command line means, and what is refused."""

from dataclasses import fields

import pytest

from wal_pipeline.cli.clone import clone_command
from wal_pipeline.commands.clone.options import CloneOptions
from wal_pipeline.commands.restore.options import RestoreOptionError
from wal_pipeline.orchestration.jobs.clone.config import CloneAction, CloneConfig
from wal_pipeline.orchestration.jobs.clone.run import action_of, clone_options


def test_the_configuration_has_every_option_by_its_name_on_the_command_line() -> None:
    """What the job does is a field of its own; databases stand there in the plural."""
    names = set(CloneConfig.model_fields) - {"what_they_take", "action"}
    assert names == {one.name for one in fields(CloneOptions)}
    shown = {field.alias or name for name, field in CloneConfig.model_fields.items()} - {"what_they_take", "action"}
    typed = {max(one.opts, key=len)[2:].replace("-", "_") for one in clone_command.params}
    assert shown - {"only_databases"} == typed - {"json", "only_database"}
    assert clone_options(CloneConfig()) == CloneOptions()


def test_each_field_reaches_the_options() -> None:
    """The same words on the command line give the same options."""
    words = "--name=a --to-xid=9 --exclusive --port=5433 --for=30m --read-only --only-database=x --only-database=y "
    words += "--timeline=3 --store=b2 --base-backup=some --system-identifier=8 --owner=o"
    with clone_command.make_context("clone", words.split()) as context:
        typed = CloneOptions(**{name: value for name, value in context.params.items() if name != "as_json"})
    config = CloneConfig(
        name="a",
        to_xid=9,
        inclusive=False,
        port=5433,
        keep_for="30m",
        read_only=True,
        only_databases=["x", "y"],
        timeline="3",
        store="b2",
        base_backup="some",
        system_identifier=8,
        owner="o",
    )
    assert clone_options(config) == typed


def test_a_move_keeps_the_end_that_nobody_changed() -> None:
    """The form begins with two hours, which are for a new clone."""
    assert clone_options(CloneConfig(action="move", name="a")).keep_for is None
    assert clone_options(CloneConfig(action="Move", name="a", keep_for="3h")).keep_for == "3h"


def test_an_unknown_action_or_a_missing_name_is_refused() -> None:
    """Nothing is done by a guess."""
    with pytest.raises(RestoreOptionError) as caught:
        action_of(CloneConfig(action="drop"))
    assert caught.value.message == "'drop' is not an action, expected one of make, move, stop, list."
    for action in ("move", "stop"):
        with pytest.raises(RestoreOptionError, match=f"name is missing: which clone to {action}"):
            action_of(CloneConfig(action=action))
    assert action_of(CloneConfig(action="list")) is CloneAction.LIST
