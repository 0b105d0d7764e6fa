"""What the screens say of a real server: new, idle, ahead of its archive, silent, and after a gap."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from testbed.postgres_install import PostgresInstall
from wal_pipeline_tests.support.backup_night import Night, night, until

pytestmark = [pytest.mark.integration, pytest.mark.story]


@pytest.fixture(scope="module")
def idle(postgres_version: PostgresInstall, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    """A server that commits nothing by itself."""
    with night(postgres_version, tmp_path_factory.mktemp("idle"), autovacuum="off") as made:
        yield made


def status(scene: Night, *words: str, **settings: str) -> dict[str, Any]:
    done = scene.run("status", "--json", *words, **settings)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def switch(scene: Night) -> str:
    """Finish a segment, wait until it is in the spool, and return its name."""
    scene.cluster.psql("SELECT pg_logical_emit_message(false, 'test', 'no commit')")
    name = scene.cluster.switch_wal()
    until((scene.spool / name).exists)
    return name


def archive(scene: Night) -> None:
    switch(scene)
    done = scene.run("archive")
    assert done.returncode == 0, done.stderr


def back_up(scene: Night) -> str:
    """Take a base backup, and return when it ended, to the second."""
    done = scene.run("backup")
    assert done.returncode == 0, done.stderr
    return str(status(scene)["windows"][-1]["reaches_at_least"])[:19].replace("T", " ")


def log_standby_snapshot(scene: Night) -> None:
    """Write WAL without a commit, as a server does by itself every 15 seconds and with each checkpoint."""
    scene.cluster.psql("SELECT pg_switch_wal()")
    scene.cluster.psql("CHECKPOINT")


def test_after_the_first_base_backup_something_can_be_recovered(idle: Night) -> None:
    """Headline, line, bar and figures agree: up to the end of the base backup, and nothing was committed since."""
    before = idle.run("status")
    assert "this host has no records of cluster 'main', and this command asks no store" in before.stdout
    at = back_up(idle)
    shown = idle.run("status").stdout
    answer = f"main can be recovered to {at} UTC from local, nothing committed since"
    lines = shown.splitlines()
    assert (" OK " in lines[0], lines[1]) == (True, answer)
    for line in (line for line in lines if line.startswith(("any store", "local"))):
        assert line.rstrip().endswith(f"{at}, RPO 0 s")
        assert "◆" in line
    assert re.search(r"^RPO now +0 s", shown, re.MULTILINE)
    checked = idle.run("status", "--check")
    assert checked.returncode == 0
    assert checked.stdout.startswith(f"WAL-PIPELINE OK - main: {answer.removeprefix('main ')} | ")
    assert " rpo=0s " in checked.stdout
    metrics = idle.run("metrics").stdout
    assert 'wal_pipeline_recovery_point_seconds{cluster="main"} 0.0' in metrics
    assert 'wal_pipeline_recovery_point_is_bound{cluster="main"} 0.0' in metrics


def test_an_idle_server_loses_nothing_however_old_its_last_commit_is(idle: Night) -> None:
    """It writes snapshots and checkpoints, which hold no commit; a fresh base backup lies inside the window."""
    idle.cluster.psql("CREATE TABLE idle_a (x int)")
    archive(idle)
    log_standby_snapshot(idle)
    found = status(idle)
    assert (found["rpo_seconds"], found["rpo_is_at_most"]) == (0.0, False)
    assert found["reaches_at"] > found["latest_commit_at"]
    assert found["unarchived_bytes"] > 0
    back_up(idle)
    found = status(idle)
    [window] = found["windows"]
    assert window["latest_commit_at"] < window["reaches_at_least"] <= found["reaches_at"]
    assert found["rpo_seconds"] == 0.0


def test_an_idle_server_of_another_host_is_believed(idle: Night, tmp_path: Path) -> None:
    """Its WAL is not on this host: its checkpoint tells that no transaction ran since."""
    found = status(idle, PGDATA=str(tmp_path), PG_WAL_ARCHIVE_DIR=str(tmp_path), PGBINDIR=str(tmp_path))
    assert (found["rpo_seconds"], found["rpo_is_at_most"]) == (0.0, False)


def test_the_age_of_the_oldest_commit_that_is_not_archived_is_the_rpo(idle: Night) -> None:
    """Not that of the last one that is, nor that of the newest one."""
    idle.cluster.psql("CREATE TABLE ahead (x int)")
    oldest_at = idle.cluster.value("SELECT clock_timestamp() AT TIME ZONE 'UTC'")
    idle.cluster.psql("INSERT INTO ahead VALUES (1)")
    idle.cluster.psql("INSERT INTO ahead VALUES (2)")
    found = status(idle)
    assert not found["rpo_is_at_most"]
    assert found["reaches_at"][:19].replace("T", " ") <= oldest_at[:19]
    assert 0 < found["rpo_seconds"] <= found["last_commit_age_seconds"] + 3600
    assert "can be recovered to " in found["answer"] and "are not there yet" in found["answer"]
    switch(idle)
    assert status(idle, PGDATA="/nowhere")["reaches_at"] == found["reaches_at"]  # the same from the spool
    archive(idle)
    assert status(idle)["rpo_seconds"] == 0.0


def test_a_server_that_was_not_asked_or_is_down_is_at_most(idle: Night) -> None:
    """The screens say so, and nothing is called zero."""
    found = status(idle, "--no-server")
    assert (found["rpo_is_at_most"], found["rpo_unknown"]) == (True, "PostgreSQL was not asked")
    idle.cluster.stop()
    try:
        line = idle.run("status", "--check").stdout
    finally:
        idle.cluster.start()
    assert "at most the last " in line
    assert "(PostgreSQL did not answer)" in line
    assert " rpo_at_most=" in line


def test_a_moment_between_the_last_commit_and_a_base_backup_can_be_planned(idle: Night, tmp_path: Path) -> None:
    """It lies inside the window: nothing was committed then, and the plan ends with the archive."""
    archive(idle)
    with psycopg.connect(idle.cluster.conninfo, autocommit=True) as connection:
        [(between,)] = connection.execute("SELECT clock_timestamp()").fetchall()
    back_up(idle)
    done = idle.run("restore", "--pgdata", str(tmp_path / "new"), "--to-time", between.isoformat(), "--plan")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No commit lies between the last one that is archived and the target" in done.stdout + done.stderr


def test_a_base_backup_after_a_gap_begins_a_window_that_is_whole(idle: Night) -> None:
    """An open gap is red; after the base backup it is past, and everything since can be recovered."""
    idle.cluster.psql("CREATE TABLE gap (x int)")
    lost = switch(idle)
    (idle.spool / lost).unlink()
    idle.cluster.psql("INSERT INTO gap VALUES (1)")
    archive(idle)
    assert len(status(idle)["gaps"]) == 1
    at = back_up(idle)
    found = status(idle)
    assert (found["gaps"], len(found["past_gaps"]), found["past_gaps"][0]["first_missing"]) == ([], 1, lost)
    assert found["answer"] == f"main can be recovered to {at} UTC from local, nothing committed since"
    assert (found["rpo_seconds"], found["verdict"]) == (0.0, "ok")
    assert "gaps: 1 past" in idle.run("status").stdout
