"""Tests that a run's configuration of a rescue means what the command line means, and what is refused."""

from dataclasses import fields
from pathlib import Path

import dagster as dg
import pytest

from wal_pipeline.cli.rescue import rescue_command
from wal_pipeline.commands.rescue.options import RescueOptions
from wal_pipeline.commands.rescue.wanted import RescueOptionError
from wal_pipeline.orchestration.jobs.rescue.config import RescueConfig
from wal_pipeline.orchestration.jobs.rescue.job import build_rescue_job
from wal_pipeline.orchestration.jobs.rescue.run import rescue_options
from wal_pipeline.orchestration.keys import Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.failures import NOTHING_CHANGED


def test_the_configuration_has_every_option_by_its_name_on_the_command_line() -> None:
    """Those that may be given several times stand there in the plural; --exclusive is inclusive false."""
    assert set(RescueConfig.model_fields) - {"what_they_take"} == {one.name for one in fields(RescueOptions)}
    shown = {field.alias or name for name, field in RescueConfig.model_fields.items()} - {"what_they_take"}
    typed = {max(one.opts, key=len)[2:].replace("-", "_") for one in rescue_command.params}
    assert shown - {"tables", "plan_only"} == typed - {"json", "table", "plan"}


def test_each_field_reaches_the_options() -> None:
    """The same words on the command line give the same options."""
    words = "--table=a.b --table=c --database=shop --before-xid=9 --committed-at=2026-11-22T17:00Z --into=dbname=x "
    words += "--as=back --timeline=3 --store=b2 --base-backup=some --system-identifier=8 --folder=/f --owner=o --role=r"
    with rescue_command.make_context("rescue", words.split()) as context:
        typed = RescueOptions(**{name: value for name, value in context.params.items() if name != "as_json"})
    config = RescueConfig(
        tables=["a.b", "c"],
        database="shop",
        before_xid=9,
        committed_at="2026-11-22T17:00Z",
        into="dbname=x",
        as_schema="back",
        timeline="3",
        store="b2",
        base_backup="some",
        system_identifier=8,
        folder="/f",
        owner="o",
        role="r",
    )
    assert rescue_options(config) == typed


def test_what_the_form_begins_with_is_no_value() -> None:
    """A dump as of a moment leaves the xid and the database of the form as they are."""
    config = RescueConfig(tables=["orders"], to_time="2026-11-22T17:00Z", output="/d/o.dump", plan_only=True)
    assert rescue_options(config) == RescueOptions(
        ("orders",), to_time="2026-11-22T17:00Z", output=Path("/d/o.dump"), plan_only=True
    )
    whole = RescueConfig(whole_database=True, database="shop", to_xid=7, inclusive=False, output="/d/o.dump")
    assert rescue_options(whole) == RescueOptions(
        whole_database=True, database="shop", to_xid=7, inclusive=False, output=Path("/d/o.dump")
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "tables is still '<schema.table>'"),
        ({"tables": ["a"]}, "before_xid is still 0"),
        ({"tables": ["a"], "before_xid": 7}, "into is still 'dbname=<database>'"),
        ({"tables": ["a"], "before_xid": 7, "output": "a.dump"}, "output is 'a.dump', expected a path"),
    ],
)
def test_what_was_not_filled_in_is_named_as_the_form_names_it(config: dict[str, object], message: str) -> None:
    """An empty click does nothing, and says what to write."""
    with pytest.raises(RescueOptionError) as caught:
        rescue_options(RescueConfig(**config))
    assert caught.value.message.startswith(message)
    assert caught.value.hint


@pytest.mark.usefixtures("scene")
def test_a_password_in_the_form_is_refused_and_not_repeated(
    instance: dg.DagsterInstance, resource: WalPipelineResource
) -> None:
    """The stored configuration has it: the error says to change it, and neither log nor result holds it."""
    keys = Keys("main")
    config = {"tables": ["a"], "before_xid": 7, "into": "dbname=shop password=very-secret-word"}
    done = build_rescue_job(keys).execute_in_process(
        instance=instance,
        resources={"wal_pipeline": resource},
        run_config={"ops": {"rescue": {"config": config}}},
        raise_on_error=False,
    )
    [failure] = [event.step_failure_data for event in done.all_events if event.is_step_failure]
    assert failure.error is not None
    assert failure.error.message.startswith("ERROR: --into holds a password, which the list of processes")
    assert "HINT: Change it." in failure.error.message
    assert failure.user_failure_data is not None
    assert NOTHING_CHANGED in failure.user_failure_data.metadata
    said = [str(entry) for entry in instance.all_logs(done.run_id)]
    assert said
    assert not any("very-secret-word" in one for one in said)
    assert instance.get_latest_materialization_event(keys.rescued_tables) is None
