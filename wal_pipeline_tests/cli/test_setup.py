"""``wal-pipeline setup`` as it is typed, on a real server with a folder as its store."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall
from wal_pipeline.cli.group import run
from wal_pipeline.stores.local.store import LocalFolderStore

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def cluster(postgres18: PostgresInstall) -> Iterator[PostgresCluster]:
    """A running cluster with 1 MB segments whose archive_mode is on already, so that no restart is needed."""
    made = PostgresCluster(postgres18, settings={"archive_mode": "on"})
    yield made.initdb(wal_segment_size_mb=1).start()
    made.remove()


@pytest.fixture
def spool(cluster: PostgresCluster, postgres_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings of a pipeline from this cluster to one local store; the spool is not there yet."""
    (tmp_path / "store").mkdir()
    LocalFolderStore("local", tmp_path / "store").prepare()
    monkeypatch.chdir(tmp_path)
    spool = postgres_folder / "spool"
    values = {
        **cluster.pg_environment,
        "PG_WAL_ARCHIVE_DIR": str(spool),
        "WAL_PIPELINE_STORES": "local",
        "WAL_PIPELINE_LOCAL_STORE_FOLDER": str(tmp_path / "store"),
        "WAL_PIPELINE_STATE_DIR": str(tmp_path / "state"),
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return spool


def test_look_only(spool: Path, cluster: PostgresCluster, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --apply nothing is changed; the lines to type are printed whole."""
    assert run(["setup"]) == 1
    printed = capsys.readouterr().out
    assert f"  ALTER SYSTEM SET basic_archive.archive_directory = '{spool}';\n" in printed
    assert "  ALTER SYSTEM SET archive_timeout = '300';\n" in printed
    assert "  sudo install -d -o " in printed
    assert "\n'wal-pipeline setup --apply' does the SQL for you.\n" in printed
    assert not spool.exists()
    assert cluster.value("SHOW archive_library") == ""


def test_apply_then_check(spool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--apply sets it up and proves it: the segment lies in the store. Then 'setup' and 'check' find nothing wrong."""
    assert run(["setup", "--apply", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["ok"], report["spool_made"], report["restart_line"]) == (True, True, None)
    assert "ALTER SYSTEM SET archive_library = 'basic_archive';" in report["applied"]
    proof = report["proof"]
    assert (proof["ok"], list(proof["copies"]), proof["missing"], proof["message"]) == (True, ["local"], [], "")
    assert [path.name for path in (tmp_path / "store").rglob(f"{proof['segment']}.gz")] == [f"{proof['segment']}.gz"]

    assert run(["setup", "--apply"]) == 0
    printed = capsys.readouterr().out
    assert "Changed:" not in printed
    assert "\nProved: segment " in printed
    assert run(["setup", "--json"]) == 0
    assert {finding["status"] for finding in json.loads(capsys.readouterr().out)["findings"]} == {"ok"}

    assert run(["check", "--json"]) == 0
    checked = json.loads(capsys.readouterr().out)
    assert (checked["ok"], {item["ok"] for item in checked["items"]}) == (True, {True})
    assert run(["check"]) == 0
    assert "local: delete" in capsys.readouterr().out


def test_missing_store_settings_change_nothing(
    spool: Path, cluster: PostgresCluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Settings that are missing show before the server is changed."""
    monkeypatch.setenv("WAL_PIPELINE_STORES", "r2")
    cluster.psql("ALTER SYSTEM RESET ALL")
    assert run(["setup", "--apply"]) == 1
    assert capsys.readouterr().err.startswith("ERROR: settings are missing: R2_ACCOUNT_ID, R2_BUCKET_NAME")
    assert not spool.exists()
    assert "archive" not in (cluster.pgdata / "postgresql.auto.conf").read_text()
