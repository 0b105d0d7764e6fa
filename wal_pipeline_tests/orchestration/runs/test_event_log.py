"""Tests that every storage holds the same materializations as if Dagster had written them one by one."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from testbed.dagster_instance import PROJECT
from testbed.ports import LOOPBACK
from testbed.postgres import SUPERUSER, PostgresCluster
from wal_pipeline.orchestration.runs.event_log import materialization_entry, store_entries

KEYS = {store: dg.AssetKey(["main", "wal_segment", store]) for store in ("r2", "b2")}
NAMES = ["000000010000000000000001", "000000010000000000000002", "000000010000000000000003"]


def materializations() -> list[dg.AssetMaterialization]:
    return [
        dg.AssetMaterialization(
            key,
            partition=name,
            description=f"{name} verified on {store}",
            metadata={"size_bytes": dg.MetadataValue.int(16), "sha256": dg.MetadataValue.text("ab" * 32)},
        )
        for name in NAMES
        for store, key in KEYS.items()
    ]


@dg.job(executor_def=dg.in_process_executor)
def one_by_one() -> None:
    @dg.op(name="record", out=dg.Out(dg.Nothing))
    def record() -> Iterator[Any]:
        yield from materializations()
        yield dg.Output(None)

    record()


@dg.job(executor_def=dg.in_process_executor)
def at_once() -> None:
    @dg.op(name="record", out=dg.Out(dg.Nothing))
    def record(context: dg.OpExecutionContext) -> None:
        step = context.get_step_execution_context()
        entries = [materialization_entry(step, one) for one in materializations()]
        store_entries(context.instance.event_log_storage, entries)

    record()


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.integration)])
def kept_in(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """An instance with each of the storages, from the files that this project gives out."""
    if request.param == "memory":
        with dg.DagsterInstance.ephemeral() as made:
            yield made
        return
    file = PROJECT / "dagster.yaml"
    if request.param == "postgres":
        cluster: PostgresCluster = request.getfixturevalue("shared_cluster18")
        database = f"events_{tmp_path.name}"
        cluster.psql(f'CREATE DATABASE "{database}"')
        where = {"HOST": LOOPBACK, "PORT": str(cluster.port), "DB": database, "USERNAME": SUPERUSER, "PASSWORD": "-"}
        for name, value in where.items():
            monkeypatch.setenv(f"DAGSTER_PG_{name}", value)
        file = PROJECT / "deploy" / "dagster.postgres.yaml"
    shutil.copy(file, tmp_path / "dagster.yaml")
    with dg.DagsterInstance.from_config(str(tmp_path)) as made:
        yield made


def run(instance: dg.DagsterInstance, job: dg.JobDefinition) -> str:
    done = job.execute_in_process(instance=instance)
    assert done.success
    return done.run_id


def in_the_run(instance: dg.DagsterInstance, run_id: str) -> list[Any]:
    """The materializations on the run's page, without times, ids and the job's name."""
    entries = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    return [
        (entry.level, entry.step_key, entry.user_message, plain(entry.get_dagster_event(), run_id)) for entry in entries
    ]


def plain(event: Any, run_id: str) -> Any:
    tags = {name: value for name, value in event.logging_tags.items() if value not in (run_id, event.job_name)}
    return event._replace(job_name="", logging_tags=tags)


def by_asset(instance: dg.DagsterInstance, run_id: str) -> dict[str, list[Any]]:
    """The partitions and metadata on the assets' pages, the newest first."""
    found: dict[str, list[Any]] = {}
    for store, key in KEYS.items():
        records = instance.fetch_materializations(key, limit=100).records
        mine = [record for record in records if record.run_id == run_id]
        found[store] = [record.asset_materialization for record in mine]
    return found


def test_what_is_written_at_once_is_what_is_written_one_by_one(kept_in: dg.DagsterInstance) -> None:
    """The run's page and the assets' pages are equal in every field, in order for each asset."""
    yielded, stored = run(kept_in, one_by_one), run(kept_in, at_once)
    assert sorted(map(repr, in_the_run(kept_in, stored))) == sorted(map(repr, in_the_run(kept_in, yielded)))
    assert by_asset(kept_in, stored) == by_asset(kept_in, yielded)
    assert [one.partition for one in by_asset(kept_in, stored)["r2"]] == NAMES[::-1]


def test_the_asset_knows_its_newest_materialization(kept_in: dg.DagsterInstance) -> None:
    """An asset that is new to Dagster and a known one both show their newest materialization."""
    for _ in range(2):
        run_id = run(kept_in, at_once)
        for key in KEYS.values():
            newest = kept_in.get_latest_materialization_event(key)
            [record] = kept_in.get_asset_records([key])
            assert newest is not None
            assert newest.asset_materialization is not None
            assert (newest.asset_materialization.partition, newest.run_id) == (NAMES[-1], run_id)
            assert record.asset_entry.last_run_id == run_id
            assert record.asset_entry.last_materialization_storage_id == max(
                one.storage_id for one in kept_in.fetch_materializations(key, limit=100).records
            )
            assert kept_in.get_materialized_partitions(key) == set(NAMES)


def test_an_entry_names_its_process() -> None:
    """An entry has its process id, like the other entries of its run."""
    found: list[dg.EventLogEntry] = []

    @dg.op
    def look(context: dg.OpExecutionContext) -> None:
        found.append(materialization_entry(context.get_step_execution_context(), materializations()[0]))

    @dg.job
    def looking() -> None:
        look()

    assert looking.execute_in_process().success
    assert found[0].get_dagster_event().pid == os.getpid()
