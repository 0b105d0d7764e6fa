"""Tests where an archiving run says its time went."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from wal_pipeline.commands.archive_push.events import SpoolEmptied
from wal_pipeline.orchestration.jobs.step_times import StepTimes
from wal_pipeline_tests.support.archive_scene import fail
from wal_pipeline_tests.support.upkeep_pipeline import archive, spool
from wal_pipeline_tests.support.upkeep_scene import UpkeepScene


def rows(metadata: Any) -> dict[str, dict[str, object]]:
    """Return the table's rows by their step."""
    value = metadata["where_the_time_went"]
    assert isinstance(value, dg.TableMetadataValue)
    return {str(row.data["step"]): dict(row.data) for row in value.records}


@pytest.fixture
def scene(tmp_path: Path) -> UpkeepScene:
    made = UpkeepScene(tmp_path)
    made.run_for(2)
    return made


STEPS = [
    "read and checksum",
    "compress",
    "store and read back on b2",
    "store and read back on r2",
    "record in the catalog",
    "record in Dagster",
]


def test_the_runs_output_names_each_step(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """A file is read and compressed once, and stored and recorded for each store."""
    spool(scene, 3, 4, 5)
    done = archive(scene, instance)
    assert done.success
    [output] = [event for event in done.all_events if event.is_successful_output]
    found = rows(output.step_output_data.metadata)
    found.pop("wait for files", None)
    assert list(found) == [*STEPS, "the whole run (steps overlap)"]
    counted = {step: row["times"] for step, row in found.items() if step != "record in Dagster"}
    assert counted == {
        "read and checksum": 3,
        "compress": 3,
        "store and read back on b2": 3,
        "store and read back on r2": 3,
        "record in the catalog": 6,
        "the whole run (steps overlap)": 1,
    }


def test_a_run_that_failed_says_it_too(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """The steps of the store that took the files are there, and none of the other one."""
    spool(scene, 3)
    scene.stores["b2"].before = fail("b2")
    done = archive(scene, instance)
    [failure] = [event for event in done.all_events if event.is_step_failure]
    data = failure.step_failure_data.user_failure_data
    assert data is not None
    assert [step for step in rows(data.metadata) if step.startswith("store")] == ["store and read back on r2"]


def test_waiting_ends_with_the_table() -> None:
    """A run that is interrupted while it waits has waited until then."""
    now = [0.0]
    times = StepTimes(lambda: now[0])
    now[0] = 5.0
    times.note(SpoolEmptied())
    now[0] = 605.0
    assert [(row.data["step"], row.data["time"]) for row in times.table().records] == [
        ("wait for files", "10 min"),
        ("the whole run (steps overlap)", "10 min"),
    ]
