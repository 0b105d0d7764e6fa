"""Tests that a recovery drill restores a real cluster from each store alone, and passes only then."""

import json
import os
import re
import select
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import dagster as dg
import pytest

from testbed.dagster_instance import clean_environment
from testbed.postgres_install import PostgresInstall
from testbed.s3_pair import S3Pair
from testbed.seaweed import SeaweedServer
from wal_pipeline.archive.alerts import AlertKind
from wal_pipeline.cli.group import run as run_command
from wal_pipeline.commands.drill.drill import Drill
from wal_pipeline.commands.drill.records import run_drills
from wal_pipeline.commands.drill.result import DrillOptions, DrillResult
from wal_pipeline.commands.inventory import overtaken
from wal_pipeline.commands.restore.perform import perform_restore
from wal_pipeline.commands.restore_times import read_times
from wal_pipeline.errors import RestoreError
from wal_pipeline.wiring.pipeline import Pipeline
from wal_pipeline_tests.support.restore_history import History, wait_until

pytestmark = pytest.mark.integration
STORES = ("r2", "b2")


class AlwaysMiddle(Random):
    """Draws the item in the middle: of two base backups the older one, and a moment well after it."""

    def choice(self, seq: Any) -> Any:
        """Return the one in the middle, of two the first."""
        return seq[(len(seq) - 1) // 2]


class AlwaysLast(Random):
    """Draws the last item: the newest base backup, and the end of the archive."""

    def choice(self, seq: Any) -> Any:
        """Return the last."""
        return seq[-1]


@dataclass(frozen=True, slots=True)
class DrillScene:
    """An archive with two base backups, commits between and after them, and a rollback at its very end."""

    history: History
    pipeline: Pipeline
    folder: Path

    def open_drill(self, store: str, random: Random | None = None, **options: Any) -> Drill:
        """Return a drill from one store in a scratch folder of this scene."""
        return Drill(
            store=self.pipeline.stores[store],
            layout=self.pipeline.layout(int(self.history.cluster.system_identifier)),
            identities=(),
            options=DrillOptions(self.folder / "drill", bindir=self.history.install.bin_folder, **options),
            clock=lambda: datetime.now(UTC),
            random=random or AlwaysMiddle(),
            host="db1",
            known=read_times(self.pipeline.catalog),
        )

    def drill(self, *stores: str, random: Random | None = None, **options: Any) -> list[DrillResult]:
        """Run drills as the job does, with records and alerts."""
        return list(run_drills(lambda store: self.open_drill(store, random, **options), stores, self.pipeline.catalog))

    def environment(self) -> Mapping[str, str]:
        """Return the settings with which the program itself drills this archive."""
        history = self.history
        return {
            **history.environment,
            "PG_WAL_ARCHIVE_DIR": str(history.folder / "spool"),
            "WAL_PIPELINE_CONNINFO": history.cluster.conninfo,
            "WAL_PIPELINE_STATE_DIR": str(history.folder / "state"),
            "WAL_PIPELINE_DRILL_FOLDER": str(self.folder / "drill"),
            "WAL_PIPELINE_DRILL_AMCHECK": "no",
            "PGBINDIR": str(history.install.bin_folder),
        }

    def failed_alerts(self) -> dict[str, str]:
        """Return the messages of the open alerts for failed drills, by store."""
        alerts = self.pipeline.catalog.alerts.active()
        return {alert.subject: alert.message for alert in alerts if alert.kind is AlertKind.DRILL_FAILED}


def segment_keys(server: SeaweedServer, bucket: str) -> list[str]:
    """Return the keys of all segments in a bucket, in WAL order."""
    return sorted(key for key in server.keys(bucket) if re.search(r"/[0-9A-F]{24}\.zst\Z", key))


@pytest.fixture(scope="module")
def scene(postgres_version: PostgresInstall, s3_pair: S3Pair) -> Iterator[DrillScene]:
    """A live cluster with a tablespace."""
    with History.begin(postgres_version, s3_pair) as history:
        cluster = history.cluster
        cluster.make_tablespace("apart")
        cluster.psql("CREATE TABLE elsewhere TABLESPACE apart AS SELECT generate_series(1, 1000) AS n")
        history.back_up()
        history.mark("between")
        history.end()
        history.back_up()
        history.mark("after")
        segment = cluster.psql(
            "BEGIN;\nINSERT INTO marks VALUES (-1);\nROLLBACK;\n"
            "SELECT pg_walfile_name(pg_current_wal_lsn());\nSELECT pg_switch_wal() \\gset\n"
        )
        wait_until((history.folder / "spool" / segment).exists)
        history.archive()
        yield DrillScene(history, history.pipeline, history.folder)


def test_a_drill_from_each_store_passes(scene: DrillScene) -> None:
    """The last replayed commit is the predicted one, the checks pass, numbers are recorded, the folder is removed."""
    results = scene.drill(*STORES)
    for store, result in zip(STORES, results, strict=True):
        assert (result.store, result.ok, result.error) == (store, True, None)
        assert result.target.startswith("LSN ")
        assert result.predicted_commit_at is not None
        assert result.reached_commit_at == result.predicted_commit_at
        assert {check.name: check.ok for check in result.checks} == {"query": True, "pg_amcheck": True}
        assert result.segments > 0
        assert result.downloaded_bytes > 0
        assert result.rto_seconds is not None
        assert {"choose", "download", "verify", "recovery", "checks"} <= set(result.seconds)
        recorded = scene.pipeline.catalog.drills.last(store)
        assert recorded is not None
        assert (recorded.ok, recorded.target, recorded.seconds["rto"]) == (True, result.target, result.rto_seconds)
        measured = result.measured
        assert measured is not None
        assert (measured.work.stores, measured.host) == ((store,), "db1")
        assert (measured.predicted_seconds is None) == (store == "r2")  # b2's is a guess by r2's
        assert measured.work.fetched_bytes == result.downloaded_bytes
        parts = {"plan", "download", "verify", "finish", "start", "replay", "open"}
        assert {phase.value for phase in measured.seconds} == parts
        assert measured.took_seconds <= result.rto_seconds
    assert not (scene.folder / "drill").exists()
    assert scene.failed_alerts() == {}
    known = read_times(scene.pipeline.catalog)
    assert [one.work.stores for one in known.measured] == [("r2",), ("b2",)]
    [again] = scene.drill("r2")
    assert again.measured is not None
    assert again.measured.predicted_seconds is not None  # by the first drill from this store
    assert len(read_times(scene.pipeline.catalog).measured) == 3


@pytest.mark.newest_version
def test_a_rollback_after_the_last_commit_is_no_failure(scene: DrillScene) -> None:
    """PostgreSQL counts a rollback as a completed transaction; the archive's records count commits."""
    (result,) = scene.drill("b2", random=AlwaysLast())
    assert (result.error, result.target) == (None, "the end of the archive")
    assert result.predicted_commit_at is not None
    assert result.reached_commit_at is not None
    assert result.reached_commit_at > result.predicted_commit_at


@pytest.mark.newest_version
def test_a_cluster_that_goes_on_archiving_is_no_failure(scene: DrillScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """WAL that is archived during the drill is not replayed: the last commit is the predicted one."""

    def restore_slowly(*given: Any, **named: Any) -> Any:
        scene.history.mark("during the drill")
        scene.history.end()
        return perform_restore(*given, **named)

    monkeypatch.setattr("wal_pipeline.commands.drill.drill.perform_restore", restore_slowly)
    [result] = scene.drill("r2", random=AlwaysLast(), amcheck=False)
    assert (result.target, result.ok, result.error) == ("the end of the archive", True, None)


def test_the_restored_server_does_nothing_for_its_original(scene: DrillScene, tmp_path: Path) -> None:
    """The restored server neither replicates, archives nor writes, whatever its configuration says."""
    quiet = (
        "DO $$ BEGIN ASSERT (SELECT count(*) = 0 FROM pg_settings WHERE setting NOT IN ('', '0', 'off', '(disabled)')"
        " AND name IN ('listen_addresses', 'archive_mode', 'archive_command', 'recovery_end_command',"
        " 'archive_cleanup_command', 'max_logical_replication_workers', 'max_worker_processes', 'primary_conninfo',"
        " 'session_preload_libraries', 'shared_preload_libraries'));"
        " ASSERT current_setting('external_pid_file') = 'postmaster.external.pid'; END $$;"
    )
    (tmp_path / "quiet.sql").write_text(quiet)
    [result] = scene.drill("r2", amcheck=False, sql_file=tmp_path / "quiet.sql")
    assert (result.ok, result.error) == (True, None)


def test_the_users_own_checks_decide(scene: DrillScene) -> None:
    """SQL that raises an error fails the drill and opens an alert; the next drill that passes resolves it."""
    checks = scene.folder / "checks.sql"
    checks.write_text(
        "DO $$ BEGIN IF (SELECT count(*) FROM marks) < 1000 THEN RAISE 'too few marks'; END IF; END $$;\n"
    )
    (result,) = scene.drill("r2", amcheck=False, sql_file=checks)
    assert result.error == "check 'sql checks.sql' failed: " + (
        "psql:<stdin>:1: ERROR:  too few marks\nCONTEXT:  PL/pgSQL function inline_code_block line 1 at RAISE"
    )
    assert scene.failed_alerts() == {"r2": f"the drill from r2 failed: {result.error}"}
    checks.write_text("SELECT 1 / count(*) FROM elsewhere;\n")
    (result,) = scene.drill("r2", amcheck=False, sql_file=checks)
    assert {check.name: check.ok for check in result.checks} == {"query": True, "sql checks.sql": True}
    assert scene.failed_alerts() == {}


@pytest.mark.newest_version
def test_a_folder_that_is_in_use_is_left_alone(scene: DrillScene) -> None:
    """A drill never removes the files of another drill or of a person."""
    folder = scene.folder / "drill"
    folder.mkdir()
    (folder / "keep").touch()
    with pytest.raises(RestoreError) as caught:
        scene.drill("r2")
    assert caught.value.message == f"the drill's folder '{folder}' exists"
    assert (folder / "keep").exists()
    (folder / "keep").unlink()
    folder.rmdir()


@contextmanager
def drill_at_work(scene: DrillScene) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """Yield a drill in a process of its own with a busy server, and the server's process as a file descriptor."""
    slow = scene.folder / "slow.sql"
    slow.write_text("SELECT pg_sleep(120);\n")
    environment = {**clean_environment(), **scene.environment(), "WAL_PIPELINE_DRILL_SQL_FILE": str(slow)}
    command = [sys.executable, "-m", "wal_pipeline.cli", "drill", "--store", "r2"]
    pid_file = scene.folder / "drill" / "pgdata" / "postmaster.pid"
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as drill:
        try:
            wait_until(lambda: pid_file.exists() and "ready" in pid_file.read_text())
            server = os.pidfd_open(int(pid_file.read_text().splitlines()[0]))
            yield drill, server
            os.close(server)
        finally:
            drill.kill()


def has_ended(process: int) -> bool:
    """Whether the process of a file descriptor has ended."""
    return bool(select.select([process], [], [], 0)[0])


@pytest.mark.newest_version
def test_a_killed_drill_does_not_hold_up_the_next_one(scene: DrillScene) -> None:
    """The next drill stops the killed drill's server, clears its folder and passes."""
    with drill_at_work(scene) as (drill, server):
        drill.kill()
        drill.wait()
        (result,) = scene.drill("r2", amcheck=False)
        assert result.error is None
        assert has_ended(server), "the server of the killed drill still runs"
    assert not (scene.folder / "drill").exists()


@pytest.mark.newest_version
def test_a_drill_that_is_told_to_end_leaves_nothing(scene: DrillScene) -> None:
    """After a SIGTERM, such as systemd's, a drill stops its server and removes its folder before it ends."""
    with drill_at_work(scene) as (drill, server):
        drill.terminate()
        assert drill.wait(60) == 143
        assert has_ended(server), "the server of the drill still runs"
    assert not (scene.folder / "drill").exists()


@pytest.mark.newest_version
def test_the_job_records_numbers_and_a_check(scene: DrillScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The asset's materialization holds each store's measures, and all its checks pass, also the former warnings."""
    for name, value in scene.environment().items():
        monkeypatch.setenv(name, value)
    from wal_pipeline.definitions import defs  # noqa: PLC0415 - reads the settings
    from wal_pipeline.orchestration.resource import _open  # noqa: PLC0415

    _open.cache_clear()
    with dg.DagsterInstance.ephemeral() as instance:
        run = defs().get_job_def("recovery_drill").execute_in_process(instance=instance)
        (event,) = run.get_asset_materialization_events()
        metadata = event.materialization.metadata
        checks = {one.check_name: one.passed for one in run.get_asset_check_evaluations()}
    _open.cache_clear()
    assert checks == dict.fromkeys(("drill_passed", *(f"last_drill_{store}" for store in STORES)), True)
    assert str(metadata["answer"].value).startswith("the cluster was restored from ")
    table = metadata["stores"]
    assert isinstance(table, dg.TableMetadataValue)
    assert [row.data["result"] for row in table.records] == ["passed"] * len(STORES)
    assert all(int(str(row.data["segments"])) > 0 for row in table.records)
    assert all(float(str(metadata[f"{store}: RTO seconds"].value)) > 0 for store in STORES)


@pytest.mark.newest_version
def test_a_damaged_store_fails_its_own_drill_alone(
    scene: DrillScene, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A drill reads one store only, so damage there shows although the other store has a good copy."""
    history = scene.history
    keys = segment_keys(history.pair.b2, history.buckets.b2)
    client = history.pair.b2.client()
    described = client.head_object(Bucket=history.buckets.b2, Key=keys[-1])
    body = b"not what it was"
    client.put_object(Bucket=history.buckets.b2, Key=keys[-1], Body=body, Metadata=described["Metadata"])
    results = scene.drill(*STORES, random=AlwaysLast(), amcheck=False)
    assert [(result.store, result.ok, result.error) for result in results][:1] == [("r2", True, None)]
    assert not results[1].ok
    assert results[1].error is not None
    assert f"b2: object '{keys[-1]}' has 15 bytes, expected " in results[1].error
    assert scene.failed_alerts() == {"b2": f"the drill from b2 failed: {results[1].error}"}
    assert not (scene.folder / "drill").exists()
    for name, value in scene.environment().items():
        monkeypatch.setenv(name, value)
    assert run_command(["drill", "--store", "r2", "--json", "--seed", "1"]) == 0
    (printed,) = json.loads(capsys.readouterr().out)["drills"]
    assert (printed["store"], printed["ok"], printed["error"]) == ("r2", True, None)


@pytest.mark.newest_version
def test_a_gap_on_one_store_fails_its_drill(scene: DrillScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a segment is missing, the drill fails and names it, although an older base backup could be restored.

    While it may be on its way the drill passes, and says that it proves nothing of what follows.
    """
    history = scene.history
    needed = segment_keys(history.pair.r2, history.buckets.r2)[-2]
    history.pair.r2.client().delete_object(Bucket=history.buckets.r2, Key=needed)
    name = needed.rpartition("/")[2].removesuffix(".zst")
    (result,) = scene.drill("r2", random=AlwaysLast(), amcheck=False)
    assert result.error is None
    assert f"what follows '{name}': r2 did not have it yet, on its way or lost" in result.not_proven
    monkeypatch.setattr(overtaken, "ON_ITS_WAY_FOR", timedelta(0))
    (result,) = scene.drill("r2", random=AlwaysLast(), amcheck=False)
    assert result.error is not None
    assert result.error.splitlines()[0] == (
        f"r2: segment '{name}' is missing: no base backup here leads to the segments after it"
    )
    assert scene.failed_alerts()["r2"] == f"the drill from r2 failed: {result.error}"
