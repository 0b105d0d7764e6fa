"""Tests what a restore refuses before it writes, and how it plans with one store left."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from testbed.postgres_install import PostgresInstall
from testbed.s3_pair import S3Pair
from wal_pipeline.archive.recovery.target import RecoveryTarget, TargetKind, TargetOutsideError
from wal_pipeline.commands.restore import checks as restore_checks
from wal_pipeline.commands.restore.contents import find_system_identifier
from wal_pipeline.commands.restore.files.verify import VerifyWith
from wal_pipeline.commands.restore.perform import RestoreCommand, perform_restore
from wal_pipeline.commands.restore.place import extract_base_backup
from wal_pipeline.commands.restore.prepare import PreparedRestore, RestoreRequest, prepare_restore
from wal_pipeline.errors import PostgresError, RecoveryTargetError, RestoreError
from wal_pipeline.settings import load_settings
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wiring.pipeline import Pipeline
from wal_pipeline_tests.support.restore_history import History, run_restore

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def history(postgres18: PostgresInstall, s3_pair: S3Pair) -> Iterator[History]:
    """A lost cluster: a base backup, some segments, one that both stores lack, and more segments."""
    with History.begin(postgres18, s3_pair) as made:
        made.back_up()
        made.mark("before the gap")
        gap = made.cluster.switch_wal()
        made.mark("in the gap")
        gap = made.cluster.switch_wal()
        made.mark("after the gap")
        made.end()
        made.lose()
        for store in Pipeline(load_settings(made.environment)).stores.values():
            for item in list(store.list("")):
                if gap in item.key:
                    store.delete(item.key)
        yield made


def prepare(history: History, pgdata: Path, **request: object) -> PreparedRestore:
    """Plan and check a restore, as the command line does."""
    pipeline = Pipeline(load_settings(history.environment))
    stores = tuple(pipeline.stores.values())
    identifier = find_system_identifier(stores, "", "main", None)
    wanted = RestoreRequest(pgdata, bindir=history.install.bin_folder, **request)  # type: ignore[arg-type]
    return prepare_restore(wanted, stores, pipeline.layout(identifier))


def to_time(at: str) -> RecoveryTarget:
    """Return a target by time."""
    return RecoveryTarget(kind=TargetKind.TIME, at=datetime.fromisoformat(at))


def test_a_moment_before_the_gap_is_planned(history: History, tmp_path: Path) -> None:
    """The plan names the base backup, the WAL and both stores."""
    plan = prepare(history, tmp_path / "new", target=to_time(history.moments["before the gap"])).plan
    assert [one.stores for one in plan.chain] == [("b2", "r2")]
    assert {file.stores for file in plan.wal} == {("b2", "r2")}


@pytest.mark.parametrize("name", ["in the gap", "after the gap"])
def test_a_moment_past_the_gap_is_refused(history: History, tmp_path: Path, name: str) -> None:
    """The error names the nearest moment, and calls nothing lost that was overtaken a moment ago."""
    with pytest.raises(TargetOutsideError) as caught:
        prepare(history, tmp_path / "new", target=to_time(history.moments[name]))
    assert "', which is on its way to the store or lost (try again in a minute)," in caught.value.message
    assert caught.value.before is not None


def test_the_end_stops_at_the_gap_and_says_so(history: History, tmp_path: Path) -> None:
    """Recovery to the end is possible up to the gap; a note says that later WAL is not replayed."""
    notes = prepare(history, tmp_path / "new").notes
    assert any("which later segments have overtaken on its way to the store, or which is lost" in one for one in notes)


def test_a_moment_before_the_first_base_backup_is_refused(history: History, tmp_path: Path) -> None:
    """Such a moment has no base backup to begin with."""
    early = to_time(history.moments["before the gap"]).at
    assert early is not None
    with pytest.raises(TargetOutsideError) as caught:
        prepare(history, tmp_path / "new", target=RecoveryTarget(kind=TargetKind.TIME, at=early - timedelta(days=1)))
    assert caught.value.message.endswith("is before the first moment that can be restored on timeline 1")
    assert caught.value.after is not None


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (RecoveryTarget(timeline=7), "timeline 7 is not in the archive, expected one of: 1"),
        (
            RecoveryTarget(kind=TargetKind.LSN, lsn=Lsn.parse("F/0")),
            "LSN F/0 is past '",
        ),
    ],
)
def test_wrong_targets_are_refused(history: History, tmp_path: Path, target: RecoveryTarget, message: str) -> None:
    """A timeline that does not exist and an LSN past the end are refused."""
    with pytest.raises(RecoveryTargetError) as caught:
        prepare(history, tmp_path / "new", target=target)
    assert caught.value.message.startswith(message)


def test_a_wrong_system_identifier_is_refused(history: History) -> None:
    """The error names the known system identifiers."""
    stores = tuple(Pipeline(load_settings(history.environment)).stores.values())
    with pytest.raises(RestoreError) as caught:
        find_system_identifier(stores, "", "main", 42)
    assert caught.value.message.startswith("no store has system identifier 42 of cluster 'main', expected one of: ")


def test_folders_that_are_not_ours_to_fill_are_refused(history: History, tmp_path: Path) -> None:
    """Refused are a full folder, with --force one without a cluster, and a file."""
    (tmp_path / "precious").touch()
    with pytest.raises(RestoreError) as caught:
        prepare(history, tmp_path)
    assert caught.value.message == f"the data directory '{tmp_path}' is not empty"
    with pytest.raises(RestoreError) as caught:
        prepare(history, tmp_path, force=True)
    assert (
        caught.value.message == f"the data directory '{tmp_path}' is not empty and does not hold a PostgreSQL cluster"
    )
    with pytest.raises(RestoreError):
        prepare(history, tmp_path / "precious")
    assert (tmp_path / "precious").exists()


def test_a_small_disk_is_refused(history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the download the error names the free and the needed bytes."""
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(restore_checks.shutil, "disk_usage", lambda _: real._replace(free=1 << 20))
    with pytest.raises(RestoreError) as caught:
        prepare(history, tmp_path / "new")
    assert caught.value.message.startswith(f"the disk of '{tmp_path / 'new'}' has 1.0 MiB free, expected at least ")


def test_programs_of_another_version_are_refused(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL 15's programs cannot use a data directory of PostgreSQL 18."""
    monkeypatch.setattr("wal_pipeline.postgres.binaries._places", lambda *_: iter([Path("/usr/lib/postgresql/15/bin")]))
    with pytest.raises(PostgresError) as caught:
        prepare(history, tmp_path / "new", verify_with=VerifyWith.POSTGRES)
    assert caught.value.message.startswith("no 'postgres', 'pg_verifybackup' of PostgreSQL 18 found in ")


@pytest.mark.parametrize("verify", [True, False])
def test_a_restore_asks_for_pg_verifybackup_only_where_it_shall_verify(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verify: bool
) -> None:
    """The program is missing where only the server is installed."""
    (tmp_path / "bin").mkdir()
    for path in history.install.bin_folder.iterdir():
        if path.name != "pg_verifybackup":
            (tmp_path / "bin" / path.name).symlink_to(path)
    monkeypatch.setattr("wal_pipeline.postgres.binaries._places", lambda *_: iter([tmp_path / "bin"]))
    with pytest.raises(PostgresError):
        prepare(history, tmp_path / "new", verify_with=VerifyWith.POSTGRES)
    prepared = prepare(history, tmp_path / "new", verify=verify)
    perform_restore(prepared, RestoreCommand(("false",)))
    assert (tmp_path / "new/global/pg_control").exists()


@pytest.mark.parametrize("verify_with", VerifyWith)
def test_force_replaces_a_cluster_and_a_failure_leaves_nothing_that_starts(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verify_with: VerifyWith
) -> None:
    """With --force the old files are gone; where verification fails, pg_control is kept back."""
    pgdata = tmp_path / "old"
    (pgdata / "base").mkdir(parents=True)
    for name in ("PG_VERSION", "base/old"):
        (pgdata / name).write_text("18\n")
    prepared = prepare(
        history, pgdata, force=True, target=to_time(history.moments["before the gap"]), verify_with=verify_with
    )
    assert perform_restore(prepared, RestoreCommand(("false",))).pgdata == pgdata
    assert not (pgdata / "base/old").exists()
    assert (pgdata / "global/pg_control").exists()
    assert (pgdata / "recovery.signal").exists()
    assert pgdata.stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == [pgdata]
    prepared = prepare(history, pgdata, force=True, verify_with=verify_with)
    monkeypatch.setattr("wal_pipeline.commands.restore.files.placing.extract_base_backup", _spoil)
    with pytest.raises(RestoreError) as caught:
        perform_restore(prepared, RestoreCommand(("false",)))
    said = "'pg_verifybackup' ended with 1" if verify_with is VerifyWith.POSTGRES else "'PG_VERSION' has the CRC32C "
    assert said in caught.value.message
    assert not (pgdata / "global/pg_control").exists()
    assert list(tmp_path.iterdir()) == [pgdata]


@pytest.mark.parametrize("force", [True, False])
def test_what_came_after_the_plan_is_kept(history: History, tmp_path: Path, force: bool) -> None:
    """A folder that was empty at the plan is checked again before anything is removed."""
    pgdata = tmp_path / "new"
    prepared = prepare(history, pgdata, force=force)
    pgdata.mkdir()
    (pgdata / "PG_VERSION").write_text("18\n")
    with pytest.raises(RestoreError, match=r"is not empty|is not any more"):
        perform_restore(prepared, RestoreCommand(("false",)))
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "PG_VERSION"]


def _spoil(manifest: Any, source: Any, pgdata: Path, spaces: Any) -> None:
    """Extract, and change one byte of a file on the disk."""
    extract_base_backup(manifest, source, pgdata, spaces)
    with (pgdata / "PG_VERSION").open("r+b") as file:
        file.write(b"9")


def test_one_store_down_is_told_and_the_other_is_planned_from(history: History, tmp_path: Path) -> None:
    """The plan uses the store that answers, and says so; a recovery that could not end is refused."""
    broken = {**history.environment, "R2_ENDPOINT_URL": "https://127.0.0.1:9"}
    pipeline = Pipeline(load_settings(broken))
    stores = tuple(pipeline.stores.values())
    identifier = find_system_identifier(stores, "", "main", None)
    request = RestoreRequest(tmp_path / "new", bindir=history.install.bin_folder)
    prepared = prepare_restore(request, stores, pipeline.layout(identifier))
    assert [one.stores for one in prepared.plan.chain] == [("b2",)]
    assert prepared.notes[0].startswith("r2: ")
    assert prepared.notes[0].endswith(": this store is left out of the plan")
    with pytest.raises(RestoreError) as caught:
        perform_restore(prepared, RestoreCommand(("false",)))
    assert caught.value.message.startswith("r2 did not answer, so nothing proves that there is no later WAL")
    assert "--store b2" in (caught.value.hint or "")
    assert not (tmp_path / "new").exists()
    alone = prepare_restore(request, [pipeline.stores["b2"]], pipeline.layout(identifier))
    assert alone.silent == ()


def test_a_plan_does_not_hide_what_the_restore_refuses(history: History, postgres_folder: Path) -> None:
    """It shows all of it at once, and the restore begins with none of it."""
    broken = replace(history, environment={**history.environment, "R2_ENDPOINT_URL": "https://127.0.0.1:9"})
    (postgres_folder / "new-recovery.log").symlink_to("/etc/hostname")
    words = [f"--pgdata={postgres_folder}/new", f"--to-time={history.moments['before the gap']}", "--start"]
    planned = run_restore(broken, *words, "--plan", "--json")
    assert planned.returncode == 0, planned.stderr
    refused = [one["message"] for one in json.loads(planned.stdout)["will_refuse"]]
    assert [message.split(" ")[:4] for message in refused] == [
        ["r2", "did", "not", "answer,"],
        ["the", "log", f"'{postgres_folder}/new-recovery.log'", "is"],
    ]
    shown = run_restore(broken, *words)
    assert shown.returncode == 1
    assert shown.stdout.count("\n  will refuse     ") == 2
    assert shown.stderr.splitlines()[0] == f"ERROR: {refused[0]}"
    assert not (postgres_folder / "new").exists()


def test_the_command_line_is_checked(history: History) -> None:
    """Two targets, a missing zone and a missing data directory each end with a message and exit code 2 or 1."""
    two = run_restore(history, "--pgdata=/x", "--immediate", "--to-xid=700")
    assert (two.returncode, two.stderr.splitlines()[-1]) == (
        2,
        "Error: Give one recovery target: --to-xid or --immediate.",
    )
    zone = run_restore(history, "--pgdata=/x", "--to-time=2026-11-22 17:45:00")
    assert (zone.returncode, zone.stderr.splitlines()[0]) == (
        1,
        "ERROR: the recovery target '2026-11-22 17:45:00' has no time zone",
    )
