"""Tests that setup, archiving, base backup, restore and drill hold in each environment of the selection."""

import json
import shlex

import pytest

from wal_pipeline_tests.matrix.host import Host

pytestmark = [pytest.mark.integration, pytest.mark.matrix]

_NOW = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')"
_DIGEST = "SELECT md5(string_agg(name || kept::text || since::text, ';' ORDER BY name)) FROM \"Straße\""


def beside_the_living(server: Host, moment: str) -> list[str]:
    """Undo the accident beside the living server, by what ``find`` says; return what a rescue and a clone hold."""
    *_, summary = server.answers("find", "--from", moment, "--min-deletes", "100")
    scratch, cluster, xid = server.folder / "desk/scratch", server.cluster, summary["suspect_xid"]
    server.must(*shlex.split(summary["rescue"])[1:], "--as", "back", "--folder", str(scratch))
    assert not scratch.exists()
    rescued = cluster.value(_DIGEST.replace("FROM ", "FROM back."))
    (made,) = server.answers("clone", "--to-xid", str(xid), "--exclusive", "--name", "look")
    cloned = cluster.psql(_DIGEST, database=f"host={made['socket']} port={made['port']} dbname=postgres")
    server.must("clone", "stop", "look")
    cluster.psql("DROP SCHEMA back CASCADE")
    return [rescued, cloned]


def test_no_environment_loses_a_commit(server: Host) -> None:
    """All that was committed before the chosen moment is there after the loss, and the server goes on archiving."""
    cluster = server.cluster
    assert "PostgreSQL must be restarted" in server.run("setup", "--apply").stdout
    cluster.restart()
    server.must("setup", "--apply")
    cluster.psql('CREATE TABLE "Straße" (name text, kept date, since interval)')
    cluster.psql(
        "INSERT INTO \"Straße\" SELECT 'Köln ' || i, '2026-11-28', '1 day 02:03:04' FROM generate_series(1, 100) AS i"
    )
    server.must("backup")
    cluster.psql(
        "INSERT INTO \"Straße\" SELECT 'Zürich ' || i, '2026-03-01', '-3 days' FROM generate_series(1, 100) AS i"
    )
    kept, moment = cluster.value(_DIGEST), cluster.value(_NOW)
    cluster.psql("DELETE FROM \"Straße\" WHERE kept < '2026-06-01'")
    server.finish_segment()
    server.must("archive")
    assert not [path for path in (server.folder / "spool").iterdir() if not path.name.startswith(".")]
    assert beside_the_living(server, f"{moment}+00") == [kept, kept]

    server.lose()
    server.must("restore", f"--to-time={moment}+00", "--start", "--archiving")
    assert cluster.value(_DIGEST) == kept
    assert cluster.value("SHOW data_directory") == str(server.pgdata)
    assert cluster.value("SHOW datestyle") == server.environment.date_style
    server.restart()
    assert cluster.value(_DIGEST) == kept
    server.finish_segment()
    server.must("archive")
    server.must("drill", "--seed=1")
    status = json.loads(server.run("status", "--json").stdout)
    assert (status["can_recover"], status["problems"], status["gaps"]) == (True, [], [])
