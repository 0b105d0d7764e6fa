"""Lists of relations on real stores: kept with each base backup and by the command, and read for names."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall
from testbed.s3_pair import S3Pair
from wal_pipeline.cli import group
from wal_pipeline.cli.group import run
from wal_pipeline.commands.relations.stored_list import find_lists
from wal_pipeline.errors import StoreUnavailableError
from wal_pipeline.orchestration.jobs.relations import build_relations_job
from wal_pipeline.orchestration.keys import Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.settings import load_settings
from wal_pipeline.stores.cluster_store import cluster_stores
from wal_pipeline.wiring.backup import base_backup_taker
from wal_pipeline.wiring.pipeline import Pipeline
from wal_pipeline.wiring.relations import relation_names
from wal_pipeline_tests.support.restore_history import History

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def history(postgres18: PostgresInstall, s3_pair: S3Pair) -> Iterator[History]:
    """A cluster with pgbench's tables and one base backup on both stores."""
    with History.begin(postgres18, s3_pair) as made:
        made.cluster.psql("CREATE TABLE kept (id int); CREATE TABLE dropped_later (id int)")
        made.archive()
        made.back_up()
        yield made


def layout_of(history: History):  # type: ignore[no-untyped-def]
    return history.pipeline.layout(int(history.cluster.system_identifier))


def of_other_server(history: History, conninfo: str) -> Pipeline:
    """Return the pipeline with another server's address."""
    given = {**history.environment, "WAL_PIPELINE_CONNINFO": conninfo, "WAL_PIPELINE_CODEC": "zstd"}
    return Pipeline(load_settings(given))


def test_each_base_backup_has_a_list_that_is_not_younger(history: History) -> None:
    """On every store, so that a restore from there knows the names of its databases.

    The very first base backup may find the stores empty, and then has a list that is a little younger.
    """
    pipeline, layout = history.pipeline, layout_of(history)
    for place in cluster_stores(pipeline.stores, layout).values():
        [found] = find_lists(place)
        [backup_id] = {layout.backup_id_of(item.key) for item in place.store.list(layout.base_root)}
        assert backup_id is not None and found.moment <= backup_id[:16]


def test_a_server_that_names_no_relations_loses_no_base_backup(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base backup is taken, and says what lacks: here no store takes the list."""
    pipeline = history.pipeline
    for store in pipeline.stores.values():
        put = store.put_if_absent

        def refuse(key, body, metadata, put=put):  # type: ignore[no-untyped-def]
            if "/relations/" in key:
                raise RuntimeError("no list here")
            return put(key, body, metadata)

        monkeypatch.setattr(store, "put_if_absent", refuse)
    outcome = base_backup_taker(pipeline, archive=history.archive).take()
    assert outcome.complete
    assert outcome.notes == ("no list of relations is kept with this base backup: RuntimeError: no list here",)


def test_the_command_keeps_one_now_and_shows_all(
    history: History, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its counts, where it is, and a line in the audit log."""
    monkeypatch.setattr(group, "open_pipeline", lambda _env_file: history.pipeline)
    assert run(["relations", "--keep", "--json"]) == 0
    kept = json.loads(capsys.readouterr().out)
    assert kept["databases"] == 3 and kept["relations"] > 400
    assert (kept["stores"], kept["failures"], kept["unread"]) == (["r2", "b2"], {}, {})
    assert kept["stored_size_bytes"] < kept["size_bytes"] / 3
    assert f'"subject": "{kept["moment"]}"' in history.pipeline.audit.path.read_text()
    assert run(["relations", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [sorted(one["copies"]) for one in shown["lists"]][-1] == ["b2", "r2"]
    assert run(["relations"]) == 0
    assert f"{len(shown['lists'])} lists of relations" in capsys.readouterr().out


def test_names_come_from_the_lists_and_the_server(history: History) -> None:
    """What was dropped since the last list is in the list, what was made since is on the server."""
    node = int(history.cluster.value("SELECT pg_relation_filenode('dropped_later')"))
    history.cluster.psql("DROP TABLE dropped_later; CREATE TABLE made_since (id int)")
    pipeline, layout = history.pipeline, layout_of(history)
    names, notes = relation_names(pipeline, layout, pipeline.stores)
    database = names.database_oid("postgres")
    assert database is not None and notes == ()
    found = names.of(database, node)
    assert found is not None and found.label == "public.dropped_later"
    assert [one.label for one in names.matching("made_since", database="postgres")] == ["public.made_since"]
    alone, _ = relation_names(pipeline, layout, pipeline.stores, ask_server=False)
    assert alone.matching("made_since") == ()
    now, _ = relation_names(pipeline, layout, pipeline.stores, since=pipeline.clock())
    assert now.of(database, node) is not None  # the newest list was in force
    assert alone.nearest("dropped_latr", database="postgres") == ("public.dropped_later",)


def test_another_clusters_server_is_never_asked_for_names(history: History, shared_cluster18: PostgresCluster) -> None:
    """Its tables have the same numbers; the lists of the stores count alone, and a list of it is refused."""
    pipeline = of_other_server(history, shared_cluster18.conninfo)
    names, notes = relation_names(pipeline, layout_of(history), pipeline.stores)
    assert [one.label for one in names.matching("kept")] == ["public.kept"]
    assert notes == (
        f"the names are those of the kept lists alone: the server has system identifier "
        f"{shared_cluster18.system_identifier}, expected {history.cluster.system_identifier}",
    )


def test_a_server_that_is_gone_is_no_fault(history: History, tmp_path: Path) -> None:
    """After the loss of a host the lists are all there is."""
    pipeline = of_other_server(history, f"host={tmp_path} port=1")
    names, notes = relation_names(pipeline, layout_of(history), pipeline.stores)
    assert names.matching("kept")
    assert len(notes) == 1 and notes[0].startswith("the names are those of the kept lists alone: cannot connect to")


def test_the_daily_job_keeps_a_list_and_fails_where_a_store_lacks_it(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its numbers are on the run's page; the store that has the list keeps it."""
    pipeline = history.pipeline
    monkeypatch.setattr(WalPipelineResource, "open", lambda _self: pipeline)
    job, resources = build_relations_job(Keys("main")), {"wal_pipeline": WalPipelineResource()}
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        done = job.execute_in_process(instance=instance, resources=resources)
        [output] = [event for event in done.all_events if event.is_successful_output]
        told = output.step_output_data.metadata
        assert told["databases"] == dg.IntMetadataValue(3)
        assert str(told["result"].value).endswith(" relations of 3 databases kept on r2, b2")

        def refuse(*_: object, **__: object) -> None:
            raise StoreUnavailableError("b2", "no answer")

        monkeypatch.setattr(pipeline.stores["b2"], "put_if_absent", refuse)
        time.sleep(1)  # lists are named by the second
        failed = job.execute_in_process(instance=instance, resources=resources, raise_on_error=False)
        assert not failed.success
        [failure] = [event for event in failed.all_events if event.is_step_failure]
        assert "b2: the list of relations is not kept: b2: no answer" in str(failure.step_failure_data)
    place, other = (cluster_stores(pipeline.stores, layout_of(history))[name] for name in ("r2", "b2"))
    assert len(find_lists(place)) == len(find_lists(other)) + 1
