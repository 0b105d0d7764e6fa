"""Tests what Dagster's UI shows of two clusters in one workspace, by the GraphQL answers that it draws."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from wal_pipeline_tests.support.dagster_fleet import REPOSITORY, FleetUi, open_ui

pytestmark = pytest.mark.integration
CLUSTERS = ("orders", "billing")
_SCAFFOLD = """
query Scaffold($selector: PipelineSelector!) {
  runConfigSchemaOrError(selector: $selector) {
    ... on RunConfigSchema {
      rootDefaultYaml
      allConfigTypes { ... on CompositeConfigType { fields { name description } } }
    }
  }
}"""
_AUTOMATION = """
query Automation($selector: RepositorySelector!) {
  repositoryOrError(repositorySelector: $selector) {
    ... on Repository {
      jobs { name description }
      sensors { name description }
      schedules { name description cronSchedule }
    }
  }
}"""


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetUi]:
    """Two clusters with a local store each, one code location for each, and no daemon."""
    folder = tmp_path_factory.mktemp("ui")
    with open_ui(folder / "dagster", {cluster: settings_of(folder, cluster) for cluster in CLUSTERS}) as opened:
        yield opened


def settings_of(folder: Path, cluster: str) -> dict[str, str]:
    """Return the settings of a cluster whose folders are empty."""
    folders = {name: folder / cluster / name for name in ("spool", "store", "state")}
    for one in folders.values():
        one.mkdir(parents=True)
    return {
        "WAL_PIPELINE_CLUSTER": cluster,
        "WAL_PIPELINE_STORES": "local",
        "WAL_PIPELINE_SHIP_INTERVAL_SECONDS": "off",
        "WAL_PIPELINE_LOCAL_STORE_FOLDER": str(folders["store"]),
        "WAL_PIPELINE_STATE_DIR": str(folders["state"]),
        "PG_WAL_ARCHIVE_DIR": str(folders["spool"]),
    }


def selector(location: str, job: str) -> dict[str, str]:
    """Return a job as GraphQL names it."""
    return {"repositoryLocationName": location, "repositoryName": REPOSITORY, "pipelineName": job}


def events(run: Any, kind: str) -> list[Any]:
    """Return the events of a kind."""
    return [one for one in run["eventConnection"]["events"] if one["__typename"] == kind]


def texts(entries: Any) -> dict[str, str]:
    """Return the metadata rows that are texts."""
    return {one["label"]: one["text"] for one in entries if "text" in one}


def test_the_launchpad_of_a_restore_begins_with_what_an_emergency_needs(ui: FleetUi) -> None:
    """The scaffold has the four fields, in the order that Dagster gives them, and says what they take."""
    schema = ui.ask(_SCAFFOLD, selector=selector("orders", "restore_cluster"))["runConfigSchemaOrError"]
    assert schema["rootDefaultYaml"].splitlines() == [
        "ops:",
        "  restore:",
        "    config:",
        "      pgdata: <folder>",
        "      plan_only: true",
        "      store: any",
        "      to_time: latest",
        "      what_they_take:",
        "      - pgdata is the new data directory, on the database's host",
        "      - plan_only true shows the plan and writes nothing, false restores",
        "      - store is any, r2 or b2",
        "      - to_time is latest, or a moment such as 2026-11-29 14:05:00+00",
        "      - archiving (false for a copy, true to replace the original) may be asked for",
        "      - every other field is in the panel beside this text",
    ]
    [fields] = [
        one["fields"]
        for one in schema["allConfigTypes"]
        if any(field["name"] == "pgdata" for field in one.get("fields", ()))
    ]
    assert [field["name"] for field in fields if not field["description"]] == []


def test_a_restore_launched_as_it_is_scaffolded_fails_with_one_line(ui: FleetUi) -> None:
    """The line names the field and the way out, and no class; the metadata says that nothing was changed."""
    schema = ui.ask(_SCAFFOLD, selector=selector("orders", "restore_cluster"))["runConfigSchemaOrError"]
    run = ui.ended(ui.launch("orders", "restore_cluster", yaml.safe_load(schema["rootDefaultYaml"])))
    assert run["status"] == "FAILURE"
    [failure] = events(run, "ExecutionStepFailureEvent")
    assert failure["error"]["message"] == (
        "ERROR: pgdata is still '<folder>', expected the data directory to restore into. HINT: Write a folder on the "
        "database's host, such as /var/lib/postgresql/18/restored.\n"
    )
    assert texts(failure["failureMetadata"]["metadataEntries"]) == {
        "nothing_was_changed": "do what the error says, and start the run again"
    }


def test_archiving_is_paused_and_resumed_without_a_terminal(ui: FleetUi) -> None:
    """The result of each run says what holds now; a length that is none is refused in one line."""
    config = {"length": "2h", "reason": "the disk is changed"}
    run = ui.ended(ui.launch("orders", "pause_archiving", {"ops": {"pause_for_a_while": {"config": config}}}))
    [output] = events(run, "ExecutionStepOutputEvent")
    result = texts(output["metadataEntries"])["result"]
    assert result.startswith("archiving is paused until ")
    assert result.endswith(" (the disk is changed)")
    run = ui.ended(ui.launch("orders", "resume_archiving"))
    [output] = events(run, "ExecutionStepOutputEvent")
    assert texts(output["metadataEntries"]) == {"result": "archiving goes on"}
    config = {"length": "two hours"}
    run = ui.ended(ui.launch("orders", "pause_archiving", {"ops": {"pause_for_a_while": {"config": config}}}))
    [refused] = events(run, "ExecutionStepFailureEvent")
    assert refused["error"]["message"] == ("ERROR: 'two hours' is not a length of time. HINT: Write 30m, 2h or 1d.\n")


def test_each_run_names_its_cluster_and_nothing_that_is_not_there(ui: FleetUi) -> None:
    """The jobs of both clusters have one name: the list of runs tells them apart by the tag that it shows."""
    for cluster in CLUSTERS:
        run = ui.ended(ui.launch(cluster, "archive_wal", {"ops": {"archive_spool": {"config": {"linger_seconds": 0}}}}))
        shown = {tag["key"]: tag["value"] for tag in run["tags"] if not tag["key"].startswith("dagster/")}
        assert shown == {"wal_pipeline/cluster": cluster}


def automation(ui: FleetUi, cluster: str) -> Any:
    """Return the jobs, sensors and schedules of a cluster's code location."""
    repository = {"repositoryLocationName": cluster, "repositoryName": REPOSITORY}
    return ui.ask(_AUTOMATION, selector=repository)["repositoryOrError"]


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_no_job_sensor_or_schedule_hides_whose_it_is(ui: FleetUi, cluster: str) -> None:
    """Each description begins with the cluster."""
    found = automation(ui, cluster)
    ours = [one for kind in found.values() for one in kind if not one["name"].startswith("__")]
    assert len(ours) > 20
    assert [one["name"] for one in ours if not one["description"].startswith(f"Cluster '{cluster}': ")] == []


def test_the_schedules_of_two_clusters_do_not_begin_in_one_minute(ui: FleetUi) -> None:
    """Each cluster has minutes of its own, by which all of its schedules move."""
    crons = {
        cluster: {one["name"]: one["cronSchedule"] for one in automation(ui, cluster)["schedules"]}
        for cluster in CLUSTERS
    }
    assert crons["orders"]["base_backup_schedule"] == "43 2 * * 0"
    assert crons["billing"]["base_backup_schedule"] == "34 2 * * 0"
    assert not set(crons["orders"].values()) & set(crons["billing"].values())


def test_the_backfill_dialog_opens_without_a_warning(ui: FleetUi) -> None:
    """The UI warns where the default launcher starts a backfill's runs and no queue holds them back."""
    found = ui.ask("{ instance { runQueuingSupported runLauncher { name } } }")["instance"]
    assert found == {"runQueuingSupported": True, "runLauncher": {"name": "DefaultRunLauncher"}}


def test_only_a_backfills_run_waits_in_the_queue(ui: FleetUi) -> None:
    """No daemon runs here: a run of a backfill waits for it, and those of the other tests did not."""
    run_id = ui.launch("billing", "resume_archiving", **{"dagster/backfill": "abcd"})
    run = ui.workspace.instance.get_run_by_id(run_id)
    assert run is not None
    assert run.status.value == "QUEUED"
