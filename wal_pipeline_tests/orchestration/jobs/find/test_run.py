"""Tests that a run's configuration of a search means what the command line means, and what is refused."""

from dataclasses import fields

import dagster as dg
import pytest

from wal_pipeline.cli.find import find_command
from wal_pipeline.commands.find.options import FindOptionError, FindOptions
from wal_pipeline.orchestration.jobs.find.config import FindConfig
from wal_pipeline.orchestration.jobs.find.job import build_find_job
from wal_pipeline.orchestration.jobs.find.run import find_options
from wal_pipeline.orchestration.keys import Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.failures import NOTHING_CHANGED


def test_the_configuration_has_every_option_by_its_name_on_the_command_line() -> None:
    """Unset fields mean what they mean there; the number that is listed is that of the terminal."""
    assert set(FindConfig.model_fields) - {"what_they_take"} == {one.name for one in fields(FindOptions)}
    shown = {field.alias or name for name, field in FindConfig.model_fields.items()} - {"what_they_take"}
    typed = {max(one.opts, key=len)[2:].replace("-", "_") for one in find_command.params}
    assert shown == typed - {"json"}
    assert find_options(FindConfig()) == FindOptions(limit=30)


def test_each_field_reaches_the_options() -> None:
    """The same words on the command line give the same options."""
    words = "--from=2026-11-22T17:00Z --to=2026-11-22T18:00Z --database=shop --relation=orders --dropping --limit=5 "
    words += "--min-deletes=7 --min-rows=9 --biggest --timeline=3 --store=b2 --system-identifier=8"
    with find_command.make_context("find", words.split()) as context:
        typed = FindOptions(**{name: value for name, value in context.params.items() if name != "as_json"})
    config = FindConfig(
        from_time="2026-11-22T17:00Z",
        to_time="2026-11-22T18:00Z",
        database="shop",
        relation="orders",
        dropping=True,
        limit=5,
        min_deletes=7,
        min_rows=9,
        biggest_first=True,
        timeline="3",
        store="b2",
        system_identifier=8,
    )
    assert find_options(config) == typed


@pytest.mark.parametrize("limit", [0, 201])
def test_a_list_that_no_page_can_show_is_refused(limit: int) -> None:
    """The event with the result stays small."""
    with pytest.raises(FindOptionError, match=f"limit is {limit}, expected 1 to 200"):
        find_options(FindConfig(limit=limit))


@pytest.mark.usefixtures("scene")
def test_a_mistyped_moment_fails_the_run_in_one_line(
    instance: dg.DagsterInstance, resource: WalPipelineResource
) -> None:
    """The launchpad's names are those of the form, and nothing was changed."""
    keys = Keys("main")
    done = build_find_job(keys).execute_in_process(
        instance=instance,
        resources={"wal_pipeline": resource},
        run_config={"ops": {"find": {"config": {"from": "yesterday"}}}},
        raise_on_error=False,
    )
    [failure] = [event.step_failure_data for event in done.all_events if event.is_step_failure]
    assert failure.error is not None
    assert failure.error.message.startswith("ERROR: --from 'yesterday' is not a time, expected such as")
    assert failure.user_failure_data is not None
    assert NOTHING_CHANGED in failure.user_failure_data.metadata
    assert instance.get_latest_materialization_event(keys.found_transactions) is None
