"""status, metrics, report and cost as they are typed."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from wal_pipeline.archive.records import CommitTimes
from wal_pipeline.cli.group import Context, run
from wal_pipeline.cli.metrics import make_server
from wal_pipeline.commands.restore_times import keep_time
from wal_pipeline_tests.support.health_scene import HealthScene, scene_in_settings
from wal_pipeline_tests.support.measured_times import measured_drill

_RUN_EACH = """
import sys
from wal_pipeline.cli.group import run

for command in sys.argv[1:]:
    print("BEGIN", command, flush=True)
    code = run(command.split())
    print("END", command, code, flush=True)
"""


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HealthScene]:
    """The archive that the command line sees, now, and a server that is not there."""
    made = scene_in_settings(tmp_path, monkeypatch)
    yield made
    made.catalog.close()


def test_screen(scene: HealthScene, capsys: pytest.CaptureFixture[str]) -> None:
    """The verdict, the five metrics, a line for each store and the details stand on it."""
    assert run(["status"]) == 0
    out = capsys.readouterr().out
    words = ["archive success rate", "archive lag", "storage", "failed archives", "active alerts", "RPO now", "spool"]
    assert all(word in out for word in [*words, "RTO measured", "base backup", "drill", " OK ", "at most"])
    assert "\nmain can be recovered to " in out
    assert "from r2 and b2, at most the last " in out
    assert len(out.splitlines()) < 30
    assert "cannot be recovered" not in out


def test_how_long_a_restore_takes(scene: HealthScene, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a measure nobody knows; with one from each store it stands there with rates, store and age."""
    assert run(["status"]) == 0
    unknown = "RTO predicted not known: no restore and no drill was measured yet: 'wal-pipeline drill' measures them"
    assert unknown in " ".join(capsys.readouterr().out.split())
    for store in ("r2", "b2"):
        at = scene.now - timedelta(days=3)
        keep_time(scene.catalog, measured_drill(socket.gethostname(), stores=(store,), at=at))
    assert run(["status"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "RTO from r2 about " in out
    assert "download 2.9 s (100.0 MiB/s from r2), " in out
    assert "; by 2 drills on this host, the newest 3 days ago" in out
    assert run(["status", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["stores"]["b2"]["restore_forecast"]
    assert (found["measured"], found["phases"]["download"]["stores"]) == (2, ["b2"])


def test_a_note_stands_with_the_base_backup(scene: HealthScene, capsys: pytest.CaptureFixture[str]) -> None:
    """On the screen and in JSON, and in the list of base backups."""
    [backup] = scene.catalog.base_backups.all()
    noted = replace(backup, note="before the upgrade")
    scene.catalog.base_backups.record(noted, scene.catalog.base_backups.copies())
    assert run(["status"]) == 0
    assert "full, remote, " in (screen := " ".join(capsys.readouterr().out.split()))
    assert "on b2 and r2 (before the upgrade); 1 in all" in screen
    assert run(["status", "--json"]) == 0
    newest = json.loads(capsys.readouterr().out)["newest_base_backup"]
    assert (newest["id"], newest["note"], newest["method"]) == (backup.backup_id, "before the upgrade", "remote")
    assert run(["list", "--base-backups"]) == 0
    assert "\n  note: before the upgrade\n" in capsys.readouterr().out
    assert run(["list", "--base-backups", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["note"] == "before the upgrade"


def test_no_recovery(scene: HealthScene, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a base backup the screen says it, with what to type."""
    for store in ("r2", "b2"):
        identifier = scene.catalog.system_identifiers.known()[0]
        backup_id = scene.catalog.base_backups.all()[0].backup_id
        scene.catalog.base_backups.remove_copy(identifier, backup_id, store)
    assert run(["status"]) == 0
    out = capsys.readouterr().out
    assert "\nmain cannot be recovered: no base backup is recorded on any store\n" in out
    assert "type 'wal-pipeline backup' to take a base backup" in out


def test_wal_of_an_unknown_version_is_not_called_no_recovery(
    scene: HealthScene, capsys: pytest.CaptureFixture[str]
) -> None:
    """A base backup can be restored; only the moments of the commits are not known, and a note says why."""
    records = {copy.name: copy for copy in scene.catalog.files.copies()}
    for file in scene.catalog.files.files():
        unread = replace(
            file, server_major=None, commit_times=CommitTimes.UNKNOWN, first_commit_at=None, last_commit_at=None
        )
        scene.catalog.files.record_found([unread], [records[file.name]])
    assert run(["status"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert re.search(r"main can be recovered to [-0-9]+ [:0-9]+ UTC or later from r2 and b2, at most ", out)
    assert "nothing can be recovered" not in out
    assert "no commit yet" not in out
    assert "is of a version of PostgreSQL that this program does not know, or encrypted" in out


@pytest.mark.parametrize(("trouble", "code"), [("none", 0), ("gap on a store", 1), ("quarantine", 2)])
def test_check(scene: HealthScene, capsys: pytest.CaptureFixture[str], trouble: str, code: int) -> None:
    """One line, and the exit code of a Nagios plugin."""
    if trouble == "gap on a store":
        scene.catalog.files.remove_copy(
            scene.catalog.system_identifiers.known()[0], ["00000001" + "0" * 15 + "5"], "b2"
        )
    if trouble == "quarantine":
        scene.quarantine(3)
    assert run(["status", "--check"]) == code
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith(f"WAL-PIPELINE {['OK', 'WARNING', 'CRITICAL'][code]} - main: ")


def test_check_as_json(
    scene: HealthScene, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One object in the place of the line, with the same exit code; one too where it cannot tell."""
    scene.quarantine(3)
    assert run(["status", "--check", "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert (found["verdict"], found["problems"][0]["kind"]) == ("critical", "quarantine")
    monkeypatch.setenv("WAL_PIPELINE_CATALOG_URL", f"sqlite:///{tmp_path}")
    assert run(["status", "--check", "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "unknown"
    assert "unable to open database file" in found["error"]


def test_settings_of_the_schedules_are_judged(
    scene: HealthScene, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By status and check, which a person types by day; a restore and all others go on without them."""
    monkeypatch.setenv("WAL_PIPELINE_DRILL_CRON", "monthly")
    said = "WAL_PIPELINE_DRILL_CRON is 'monthly', expected five fields"
    for command in ("status", "check"):
        assert run([command]) == 1
        assert capsys.readouterr().err.startswith(f"ERROR: {said}")
    assert run(["status", "--check"]) == 3
    assert said in capsys.readouterr().out
    assert run(["alerts"]) == 0


def test_state_folder_that_cannot_be_used(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever named only that folder is told of its variable."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setenv("WAL_PIPELINE_STATE_DIR", str(tmp_path / "file"))
    assert run(["status"]) == 1
    assert "HINT: WAL_PIPELINE_STATE_DIR must be a folder that this user can write" in capsys.readouterr().err
    monkeypatch.setenv("WAL_PIPELINE_CATALOG_URL", f"sqlite:///{tmp_path}/file/catalog.sqlite")
    assert run(["status"]) == 1
    assert "HINT: Set WAL_PIPELINE_CATALOG_URL to a file" in capsys.readouterr().err


def test_report_that_cannot_be_written(scene: HealthScene, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """It names the file and the option."""
    assert run(["report", "--output", "none/page.html"]) == 1
    assert capsys.readouterr().err == (
        "ERROR: the report cannot be written to 'none/page.html': No such file or directory\n"
        "HINT: Name a file in a folder that this user can write, with --output.\n"
    )


def test_check_that_cannot_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A catalog that cannot be read is UNKNOWN: not well, and not a warning either."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WAL_PIPELINE_CATALOG_URL", f"sqlite:///{tmp_path}/file/catalog.sqlite")
    assert run(["status", "--check"]) == 3
    assert capsys.readouterr().out.startswith("WAL-PIPELINE UNKNOWN - the catalog's folder")


def test_json(scene: HealthScene, capsys: pytest.CaptureFixture[str]) -> None:
    """One JSON object."""
    assert run(["status", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["verdict"], found["can_recover"], found["files"]) == ("ok", True, 10)


def test_cost_example(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The given example: 6 GB stored, $0.09 on R2, $0.03 on B2, $0.12 together. It needs no credentials."""
    monkeypatch.chdir(tmp_path)
    arguments = ["--wal-per-day", "1GB", "--reduction", "0.8", "--retention-days", "30", "--json"]
    assert run(["cost", *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["stored_bytes"] == 6_000_000_000
    assert found["stores"]["r2"]["storage_usd"] == 0.09
    assert found["stores"]["b2"]["storage_usd"] == 0.03
    assert found["storage_usd"] == 0.12
    assert found["stores"]["r2"]["requests_usd"] == round(
        (30 * (2 * 288 + 18) * 4.5 + (30 * 288 + 9258) * 0.36) / 10**6, 6
    )


def test_cost_with_a_price_of_ones_own(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prices are settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WAL_PIPELINE_B2_USD_PER_GB_MONTH", "0.01")
    assert run(["cost", "--wal-per-day", "1GB", "--retention-days", "30", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stores"]["b2"]["storage_usd"] == 0.06


def test_report(scene: HealthScene, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It writes the page and says where."""
    assert run(["report", "--output", "page.html", "--days", "1"]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path}/page.html: ")
    assert "What can be recovered" in (tmp_path / "page.html").read_text()


def test_metrics(scene: HealthScene, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Printed and as a file they are the same."""
    assert run(["metrics"]) == 0
    assert 'wal_pipeline_files{cluster="main"} 10.0\n' in capsys.readouterr().out
    assert run(["metrics", "--textfile", "wal.prom"]) == 0
    assert 'wal_pipeline_files{cluster="main"} 10.0\n' in (tmp_path / "wal.prom").read_text()


def test_metrics_served(scene: HealthScene) -> None:
    """Each request looks again; another path is not found."""
    server = make_server(Context(None), "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        for files in (10, 11):
            with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:  # noqa: S310 - our own server
                assert f'wal_pipeline_files{{cluster="main"}} {files}.0\n' in answer.read().decode()
            scene.archive(11)
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{url}/else", timeout=30)  # noqa: S310
        assert caught.value.code == 404
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@pytest.mark.parametrize("address", ["9188", "127.0.0.1:x", "127.0.0.1:99999"])
def test_bad_address(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is not an address is refused with an example."""
    monkeypatch.chdir(tmp_path)
    assert run(["metrics", "--listen", address]) == 1
    assert capsys.readouterr().err == f"ERROR: '{address}' is not an address\nHINT: Write it as 127.0.0.1:9188.\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_no_command_ends_at_a_sign_that_the_terminal_lacks(scene: HealthScene, encoding: str) -> None:
    """The status has dots and lines; in Latin-1 they are plain ones, and the command says what it found.

    One process runs all commands one after the other, as each start costs a second.
    """
    scene.quarantine(1)
    commands = ["status", "status --check", "metrics", "cost", "list", "check", "alerts list", "gaps"]
    done = subprocess.run(
        [sys.executable, "-P", "-c", _RUN_EACH, *commands],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    said = done.stdout.decode("utf-8" if encoding == "ascii" else encoding)
    assert "Traceback" not in said
    assert "Encode" not in said
    parts = dict(re.findall(r"^BEGIN (.+)\n((?s:.*?))^END \1 \d\n", said, flags=re.MULTILINE))
    assert list(parts) == commands, said
    assert all(parts.values()), said
    assert ("●" in parts["status"]) == (encoding == "utf-8")
    assert "recovery" in parts["status"]
