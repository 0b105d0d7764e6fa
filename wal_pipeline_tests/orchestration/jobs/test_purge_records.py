"""Old runs go from Dagster until none is left that may go, or a limit ends it; what the UI needs stays."""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.utils import make_new_run_id
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from wal_pipeline.orchestration.jobs.purge_records import purge_runs
from wal_pipeline_tests.support.segments import name_of
from wal_pipeline_tests.support.upkeep_pipeline import KEYS

WAL = KEYS.wal_partitions_name
EVERYTHING = datetime.now(UTC) + timedelta(days=1)


def add_run(instance: dg.DagsterInstance, cluster: str = "main", partition: str | None = None) -> str:
    """Record a finished run, with one materialization where a partition is given."""
    run = dg.DagsterRun(
        job_name="archive_wal",
        run_id=make_new_run_id(),
        status=dg.DagsterRunStatus.SUCCESS,
        tags={"wal_pipeline/cluster": cluster},
    )
    instance.add_run(run)
    if partition is not None:
        data = dg.AssetMaterialization(KEYS.wal_segment("r2"), partition=partition)
        materialized(instance, run, data)
    return run.run_id


def materialized(instance: dg.DagsterInstance, run: dg.DagsterRun, data: dg.AssetMaterialization) -> None:
    """Record a materialization of a run as its step would."""
    from dagster._core.events import DagsterEvent, StepMaterializationData  # noqa: PLC0415

    instance.handle_new_event(
        dg.EventLogEntry(
            error_info=None,
            level=10,
            user_message="",
            run_id=run.run_id,
            timestamp=datetime.now(UTC).timestamp(),
            step_key="archive_spool",
            job_name=run.job_name,
            dagster_event=DagsterEvent(
                "ASSET_MATERIALIZATION",
                run.job_name,
                step_key="archive_spool",
                event_specific_data=StepMaterializationData(data),
            ),
        )
    )


def test_a_purge_does_not_end_after_its_first_page(instance: dg.DagsterInstance) -> None:
    """More runs than a page holds are due, and all of them go in one call: the cursor is never a run that is gone."""
    for _ in range(450):
        add_run(instance, partition=name_of(1))
    assert purge_runs(instance, KEYS, EVERYTHING, at_most=1000) == 450
    assert instance.get_runs_count() == 0


def test_the_setting_means_what_it_says(instance: dg.DagsterInstance) -> None:
    """Three nights of at most 300 each."""
    for _ in range(700):
        add_run(instance)
    assert [purge_runs(instance, KEYS, EVERYTHING, at_most=300) for _ in range(4)] == [300, 300, 100, 0]


def test_runs_behind_many_needed_ones_are_reached(instance: dg.DagsterInstance) -> None:
    """With a recovery window longer than Dagster's retention the oldest runs are needed for long."""
    instance.add_dynamic_partitions(WAL, [name_of(2)])
    needed = [add_run(instance, partition=name_of(2)) for _ in range(420)]
    for _ in range(5):
        add_run(instance, partition=name_of(1))
    assert purge_runs(instance, KEYS, EVERYTHING, at_most=5) == 5
    assert {run.run_id for run in instance.get_runs()} == set(needed)


def test_needed_runs_cost_no_query_each(instance: dg.DagsterInstance) -> None:
    """A year of needed runs is looked at each night: a few queries for a page of them."""
    instance.add_dynamic_partitions(WAL, [name_of(2)])
    for _ in range(600):
        add_run(instance, partition=name_of(2))
    queries = count()
    storage = instance.event_log_storage
    assert isinstance(storage, SqlEventLogStorage)
    engine = storage._engine  # type: ignore[attr-defined]
    event.listen(engine, "before_cursor_execute", lambda *_: next(queries))
    assert purge_runs(instance, KEYS, EVERYTHING, at_most=9) == 0
    assert next(queries) <= 20


def test_a_run_that_somebody_else_removed_does_not_end_the_purge(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clusters that share an instance purge at the same hour: the run after which a page begins may be gone."""
    others = []
    for number in range(500):
        if number % 100 == 99:
            others.append(add_run(instance, cluster="other"))
        else:
            add_run(instance)
    ask = instance.get_runs

    def get_runs(*args: object, cursor: str | None = None, **rest: object) -> object:
        if cursor is not None and cursor in others:
            others.remove(cursor)
            instance.delete_run(cursor)
        return ask(*args, cursor=cursor, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(instance, "get_runs", get_runs)
    assert purge_runs(instance, KEYS, EVERYTHING, at_most=1000) == 495


def test_a_purge_ends_when_its_time_is_over(instance: dg.DagsterInstance) -> None:
    """A slow database must not keep the expiry for hours."""
    for _ in range(20):
        add_run(instance)
    ticking = count()
    removed = purge_runs(
        instance, KEYS, EVERYTHING, at_most=1000, max_seconds=10.0, monotonic=lambda: float(next(ticking))
    )
    assert removed == 9


def test_the_files_of_a_removed_run_do_not_stay(tmp_path: Path) -> None:
    """Dagster leaves the output of a run's steps, and the run's SQLite file: they grew for ever."""

    @dg.op
    def say() -> None:
        sys.stdout.write("said")

    @dg.job
    def saying() -> None:
        say()

    (tmp_path / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        done = saying.execute_in_process(instance=instance, tags={"wal_pipeline/cluster": "main"})
        assert list(tmp_path.rglob(f"*{done.run_id}*"))
        assert purge_runs(instance, KEYS, EVERYTHING, at_most=9) == 1
        assert not list(tmp_path.rglob(f"*{done.run_id}*"))


@pytest.fixture(scope="module")
def shared_instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@settings(max_examples=15, deadline=None)
@given(kinds=st.lists(st.sampled_from(["gone", "needed", "other", "idle"]), max_size=40), page=st.integers(1, 7))
def test_whatever_the_order_all_that_is_due_goes_and_nothing_else(
    shared_instance: dg.DagsterInstance, kinds: list[str], page: int
) -> None:
    """Any mix of runs, any size of a page."""
    for run in shared_instance.get_runs():
        shared_instance.delete_run(run.run_id)
    shared_instance.add_dynamic_partitions(WAL, [name_of(2)])
    made = {
        "gone": lambda: add_run(shared_instance, partition=name_of(1)),
        "needed": lambda: add_run(shared_instance, partition=name_of(2)),
        "other": lambda: add_run(shared_instance, cluster="other"),
        "idle": lambda: add_run(shared_instance),
    }
    runs = [(kind, made[kind]()) for kind in kinds]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wal_pipeline.orchestration.jobs.purge_records._PAGE", page)
        purge_runs(shared_instance, KEYS, EVERYTHING, at_most=1000)
    left = {run.run_id for run in shared_instance.get_runs()}
    assert left == {run_id for kind, run_id in runs if kind in ("needed", "other")}
