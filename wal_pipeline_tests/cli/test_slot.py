"""``wal-pipeline slot`` as it is typed."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall
from wal_pipeline.cli.group import run

pytestmark = pytest.mark.integration


@pytest.fixture
def cluster(postgres18: PostgresInstall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresCluster]:
    """A running server, which the settings name."""
    running = PostgresCluster(postgres18).initdb(wal_segment_size_mb=1).start()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WAL_PIPELINE_CONNINFO", running.conninfo)
    monkeypatch.setenv("WAL_PIPELINE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("WAL_PIPELINE_CLUSTER", "Our.Shop")
    yield running
    running.remove()


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """Run the command, and return what it printed."""
    assert run(["slot", *arguments]) == code
    found = capsys.readouterr()
    return (found.out + found.err).strip()


def test_a_slot_is_made_checked_and_dropped(cluster: PostgresCluster, capsys: pytest.CaptureFixture[str]) -> None:
    """Its name follows from the cluster's; the audit log has both changes."""
    gone = said(capsys, "check", code=1)
    assert "the server has no slot 'wal_pipeline_our_shop'" in gone
    assert "HINT: Type 'wal-pipeline slot make'." in gone
    made = said(capsys, "make")
    assert made.startswith("slot 'wal_pipeline_our_shop' is reserved, not in use: it holds back ")
    assert made.endswith("nothing limits how much it may hold back (max_slot_wal_keep_size)")
    values = json.loads(said(capsys, "check", "--json"))
    assert (values["slot"], values["active"], values["wal_status"]) == ("wal_pipeline_our_shop", False, "reserved")
    assert "has a slot 'wal_pipeline_our_shop' already" in said(capsys, "make", code=1)
    assert said(capsys, "drop") == "slot 'wal_pipeline_our_shop' is dropped"
    assert cluster.value("SELECT count(*) FROM pg_replication_slots") == "0"


def test_a_slot_that_somebody_else_made_is_not_dropped(
    cluster: PostgresCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """A standby's may have the name that the settings say."""
    cluster.psql("SELECT pg_create_physical_replication_slot('wal_pipeline_our_shop', true) \\gset")
    refused = said(capsys, "drop", code=1)
    assert "was not made by 'wal-pipeline slot make' on this host" in refused
    assert cluster.value("SELECT count(*) FROM pg_replication_slots") == "1"
    assert said(capsys, "check").startswith("slot 'wal_pipeline_our_shop' is reserved")
