"""Tests the accident desk in Dagster: a search names the rescue, which brings the rows; a clone stands and ends."""

import json
import os
import re
import select
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
import yaml

from testbed.postgres_install import PostgresInstall
from wal_pipeline.commands.clone.folder import CloneFolder
from wal_pipeline.commands.clone.keeper_lock import is_kept
from wal_pipeline.orchestration.jobs.clone.job import build_clone_job
from wal_pipeline.orchestration.jobs.find.job import build_find_job
from wal_pipeline.orchestration.jobs.rescue.job import build_rescue_job
from wal_pipeline.orchestration.keys import Keys
from wal_pipeline.orchestration.resource import WalPipelineResource, _open
from wal_pipeline.orchestration.runs.failures import NOTHING_CHANGED
from wal_pipeline_tests.support.beside_scene import Beside, beside

pytestmark = pytest.mark.integration
KEYS = Keys("main")
ROWS = 700
SECONDS = 120


@pytest.fixture(scope="module")
def scene(postgres18: PostgresInstall) -> Iterator[Beside]:
    """A living cluster that lost all rows of a table after its base backup."""
    with beside(postgres18) as made, pytest.MonkeyPatch.context() as patch:
        made.settings["WAL_PIPELINE_CLONE_FOLDER"] = str(made.folder / "clones")
        for name, value in made.settings.items():
            patch.setenv(name, value)
        made.cluster.psql("CREATE DATABASE shop")
        made.cluster.psql(
            f"CREATE TABLE public.orders AS SELECT i AS n FROM generate_series(1, {ROWS}) i",  # noqa: S608 - a number
            database="shop",
        )
        made.back_up()
        made.cluster.psql("DELETE FROM public.orders", database="shop")
        made.cluster.psql("INSERT INTO public.orders VALUES (0)", database="shop")
        made.archive()
        _open.cache_clear()
        yield made
        _open.cache_clear()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """An instance in memory."""
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def run(instance: dg.DagsterInstance, job: dg.JobDefinition, config: dict[str, Any]) -> dg.ExecuteInProcessResult:
    """Run a job in this process."""
    return job.execute_in_process(
        instance=instance,
        resources={"wal_pipeline": WalPipelineResource()},
        run_config={"ops": config},
        raise_on_error=False,
    )


def shown(done: dg.ExecuteInProcessResult) -> dict[str, Any]:
    """Return the metadata of the only materialization of a run; of a table its rows."""
    assert done.success, [str(event.step_failure_data) for event in done.all_events if event.is_step_failure]
    [event] = [one for one in done.all_events if one.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION]
    metadata = event.materialization.metadata
    tables = {name: value for name, value in metadata.items() if isinstance(value, dg.TableMetadataValue)}
    values = {name: value.value for name, value in metadata.items()}
    return values | {name: [record.data for record in table.records] for name, table in tables.items()}


def audited(scene: Beside, action: str) -> list[dict[str, Any]]:
    """Return the lines of the audit log about an action."""
    lines = map(json.loads, (scene.folder / "state" / "audit.jsonl").read_text().splitlines())
    return [line for line in lines if line["action"] == action]


def failure_of(done: dg.ExecuteInProcessResult) -> tuple[str, bool]:
    """Return the line that a failed run begins with, and whether it says that nothing was changed."""
    [failure] = [event.step_failure_data for event in done.all_events if event.is_step_failure]
    assert failure.error is not None
    told = failure.user_failure_data
    return failure.error.message, told is not None and NOTHING_CHANGED in told.metadata


@pytest.fixture(scope="module")
def rescue_config(scene: Beside) -> dict[str, Any]:
    """The configuration of the rescue, as the page of the search shows it after a click that filled in nothing."""
    with dg.DagsterInstance.ephemeral() as instance:
        found = shown(run(instance, build_find_job(KEYS), {}))
        assert f"of all it deleted and updated most rows: {ROWS}" in found["answer"]
        block = re.search(r"```yaml\n(.*)```", found["to bring the table back"], re.DOTALL)
    assert block is not None
    config: dict[str, Any] = yaml.safe_load(block[1])["ops"]
    return config


def test_the_configuration_that_a_search_shows_brings_every_row_back(
    scene: Beside, rescue_config: dict[str, Any], instance: dg.DagsterInstance
) -> None:
    """It is launched as it stands there. The living table keeps its rows, the scratch folder is gone."""
    done = run(instance, build_rescue_job(KEYS), rescue_config)
    found = shown(done)
    assert found["answer"].startswith(
        f"{ROWS} rows of 1 table of database 'shop' are back, as counted on both sides, after "
    )
    assert found["rows"] == ROWS
    assert [row["table"] for row in found["tables"]] == ["public.orders"]
    assert {"download", "recovery", "dump", "load"} <= {row["step"] for row in found["took"]}
    into = str(found["tables"][0]["now in"])
    assert scene.cluster.psql(f"SELECT count(*) FROM {into}", database="shop") == str(ROWS)  # noqa: S608 - a name
    assert scene.cluster.psql("SELECT count(*) FROM public.orders", database="shop") == "1"
    assert not (scene.folder / "wal-pipeline-rescue-main").exists()
    assert audited(scene, "rescue")[-1]["by"] == f"run {done.run_id}"
    assert instance.get_latest_materialization_event(KEYS.rescued_tables) is not None


def test_a_plan_is_the_runs_result_and_brings_nothing(
    scene: Beside, rescue_config: dict[str, Any], instance: dg.DagsterInstance
) -> None:
    """The asset is not materialized, and the audit log has no line more."""
    before = audited(scene, "rescue")
    config = {"rescue": {"config": {**rescue_config["rescue"]["config"], "as": "planned", "plan_only": True}}}
    done = run(instance, build_rescue_job(KEYS), config)
    assert done.success
    [output] = [event for event in done.all_events if event.is_successful_output]
    found = {name: value.value for name, value in output.step_output_data.metadata.items()}
    assert list(found)[:3] == ["result", "as_of", "last_commit"]
    assert found["result"] == "only planned, nothing was written: start the job with plan_only false to rescue"
    assert instance.get_latest_materialization_event(KEYS.rescued_tables) is None
    assert audited(scene, "rescue") == before


def test_a_table_that_never_was_fails_the_run_in_one_line(
    scene: Beside, rescue_config: dict[str, Any], instance: dg.DagsterInstance
) -> None:
    """The nearest names are in the line; nothing stays of the scratch cluster."""
    config = {"rescue": {"config": {**rescue_config["rescue"]["config"], "as": "other", "tables": ["public.order"]}}}
    message, _ = failure_of(run(instance, build_rescue_job(KEYS), config))
    assert message.startswith("ERROR: ")
    assert "public.orders" in message
    assert "\n" not in message.rstrip("\n")
    assert not (scene.folder / "wal-pipeline-rescue-main").exists()


def test_a_rescue_that_is_told_to_end_leaves_nothing(
    scene: Beside, rescue_config: dict[str, Any], instance: dg.DagsterInstance
) -> None:
    """'Terminate' in the UI sends the run's process a signal: the scratch server is stopped, its folder removed."""
    pid_file = scene.folder / "wal-pipeline-rescue-main" / "pgdata" / "postmaster.pid"
    servers: list[int] = []
    config = {"rescue": {"config": {**rescue_config["rescue"]["config"], "as": "ended"}}}

    def end_it() -> None:
        deadline = time.monotonic() + SECONDS
        while not servers and time.monotonic() < deadline:
            servers.extend(_process_of(pid_file))
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=end_it)
    thread.start()
    try:
        run(instance, build_rescue_job(KEYS), config)
    except BaseException as error:  # noqa: BLE001 - the interruption, which is no Exception
        assert "Interrupt" in type(error).__name__
    thread.join()
    assert servers, "no server was started"
    assert select.select([servers[0]], [], [], 0)[0], "the scratch server still runs"
    os.close(servers[0])
    assert not pid_file.parent.parent.exists()
    [status] = [one.status for one in instance.get_runs()]
    assert status is not dg.DagsterRunStatus.SUCCESS
    assert audited(scene, "rescue")[-1]["result"] == "failed"


def _process_of(pid_file: Path) -> list[int]:
    """Return a descriptor of the server's process, which can be asked whether it has ended."""
    try:
        return [os.pidfd_open(int(pid_file.read_text().splitlines()[0]))]
    except (OSError, IndexError, ValueError):
        return []


def test_a_clone_stands_after_its_run_and_another_run_ends_it(scene: Beside, instance: dg.DagsterInstance) -> None:
    """Its line to connect works, its keeper waits beside it, and the asset lists it until it is stopped."""
    job = build_clone_job(KEYS)
    done = run(instance, job, {"clone": {"config": {"name": "look", "for": "30m", "only_databases": ["shop"]}}})
    made = shown(done)
    assert made["answer"].startswith("clone 'look' is made and read-write, as of the end of the archive; it ends")
    words = made["connect"].split()
    with psycopg.connect(host=words[2], port=words[4], user=words[6], dbname="shop") as session:
        row = session.execute("SELECT count(*) FROM public.orders").fetchone()
        assert row == (1,)
    assert is_kept(CloneFolder(scene.folder / "clones", "look"))
    assert audited(scene, "clone")[-1]["by"] == f"run {done.run_id}"
    message, unchanged = failure_of(run(instance, job, {"clone": {"config": {"name": "look"}}}))
    assert "'look'" in message
    assert unchanged
    listed = shown(run(instance, job, {"clone": {"config": {"action": "list"}}}))
    assert listed["answer"] == "1 clone beside the cluster"
    assert [row["name"] for row in listed["clones"]] == ["look"]
    stopped = run(instance, job, {"clone": {"config": {"action": "stop", "name": "look"}}})
    assert shown(stopped) == {"answer": "clone 'look' is ended and removed", "clones that stand": 0}
    assert audited(scene, "clone")[-1]["by"] == f"run {stopped.run_id}"
    assert not list((scene.folder / "clones").glob("look*"))
