"""Base backups of real clusters in bad nights: nothing that is lost or damaged is called restorable without a word."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import testbed.postgres
from testbed.postgres_install import PostgresInstall, owned_folder
from wal_pipeline_tests.support.backup_night import Night, night, until
from wal_pipeline_tests.support.base_backup_scene import verify_backup

pytestmark = pytest.mark.integration


@pytest.fixture
def scene(postgres_version: PostgresInstall, tmp_path: Path) -> Iterator[Night]:
    """PostgreSQL 18 and 15."""
    with night(postgres_version, tmp_path) as made:
        yield made


@pytest.fixture
def scene18(postgres18: PostgresInstall, tmp_path: Path) -> Iterator[Night]:
    """PostgreSQL 18 alone, for what does not depend on the server."""
    with night(postgres18, tmp_path) as made:
        yield made


def alerts(scene: Night) -> dict[str, str]:
    """Return the open alerts' messages by their kinds."""
    listed = json.loads(scene.run("alerts", "list", "--json").stdout)
    return {one["kind"]: one["message"] for one in listed if one["resolved_at"] is None}


@pytest.mark.left_out
def test_a_base_backup_that_waits_for_the_archiver_loses_no_object_and_is_not_silent(scene: Night) -> None:
    """It says what it waits for; a second one is refused; 25 hours do no harm; it ends whole, or not at all."""
    scene.cluster.bulk_load(15)
    scene.block_archiving()
    first = scene.start("backup")
    try:
        until(lambda: "PostgreSQL waits for its archiver" in scene.said)
        assert len(scene.objects) > 2
        second = scene.run("backup")
        assert second.returncode == 1
        assert f"another base backup of this cluster is running: base backup '{scene.objects[0].parent.name}'" in (
            second.stderr
        )
        assert f"process {first.pid} on host" in second.stderr
        assert "HINT: Wait for it ('wal-pipeline backup --wait 3600')" in second.stderr
        elsewhere = scene.run("backup", WAL_PIPELINE_STATE_DIR=str(scene.folder / "other-state"))
        assert f"process {first.pid} on host" in elsewhere.stderr  # a second host has a catalog of its own
        assert "PostgreSQL waits for its archiver" in alerts(scene)["base_backup_waiting"]
        before = scene.objects
        old = time.time() - 60 * 3600
        for path in before:
            os.utime(path, (old, old))
        assert scene.run("backup").returncode == 1
        scene.run("expire", "--confirm")
        scene.run("verify", "--repair")
        assert scene.objects == before
    finally:
        scene.unblock_archiving()
        assert first.wait(120) == 0, scene.said
    assert "local: restorable" in scene.said
    verified = scene.run("verify", "--deep")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert scene.leases == []
    assert "base_backup_waiting" not in alerts(scene)


def test_a_base_backup_whose_objects_are_gone_is_not_called_restorable(scene18: Night) -> None:
    """Somebody removed a volume while it waited: it ends with an error, and no manifest names what is not there."""
    scene18.cluster.bulk_load(15)
    scene18.block_archiving()
    first = scene18.start("backup")
    try:
        until(lambda: "PostgreSQL waits for its archiver" in scene18.said)
        scene18.objects[0].unlink()
    finally:
        scene18.unblock_archiving()
        assert first.wait(120) == 1
    assert "was stored and is not there any more" in scene18.said
    assert "restorable" not in scene18.said
    assert scene18.objects == []
    assert "was stored and is not there any more" in alerts(scene18)["base_backup_failed"]


def test_a_base_backup_does_not_wait_for_the_archiver_without_end(scene18: Night) -> None:
    """The limit names the setting, nothing stays, and the alert says what to mend."""
    scene18.block_archiving()
    try:
        done = scene18.run("backup", WAL_PIPELINE_BASE_BACKUP_ARCHIVER_TIMEOUT_SECONDS="8")
    finally:
        scene18.unblock_archiving()
    assert done.returncode == 1
    assert "ERROR: given up after" in done.stderr
    assert "PostgreSQL waits for its archiver (last failure '" in done.stderr
    assert "WAL_PIPELINE_BASE_BACKUP_ARCHIVER_TIMEOUT_SECONDS" in done.stderr
    assert (scene18.objects, scene18.leases) == ([], [])
    assert "base_backup_failed" in alerts(scene18)


def test_a_killed_base_backup_does_not_hold_up_the_next_one(scene18: Night) -> None:
    """Its lease is known as that of a dead process, and is removed."""
    scene18.cluster.bulk_load(15)
    process = scene18.start("backup", WAL_PIPELINE_BASE_BACKUP_MAX_RATE_KIB="4096")
    until(lambda: bool(scene18.objects))
    process.kill()
    process.wait(30)
    assert scene18.leases
    done = scene18.run("backup")
    assert (done.returncode, scene18.leases) == (0, []), done.stderr


def test_a_base_backup_without_a_linked_database_is_never_stored(scene: Night) -> None:
    """pg_basebackup skips the link and ends well: the error names the folder, and the alert too."""
    scene.cluster.psql("CREATE DATABASE big")
    oid = scene.cluster.value("SELECT oid FROM pg_database WHERE datname = 'big'")
    scene.cluster.psql("CHECKPOINT")
    scene.cluster.stop()
    move_out(scene.cluster.pgdata / "base" / oid)
    scene.cluster.start()
    checked = scene.run("check")
    assert checked.returncode == 1
    assert f"'base/{oid}'" in checked.stdout
    assert f"'base/{oid}'" in scene.run("setup").stdout
    done = scene.run("backup")
    assert done.returncode == 1
    assert f"ERROR: PostgreSQL left 'base/{oid}' out of the base backup" in done.stderr
    assert "HINT: Nothing of it is kept." in done.stderr
    assert "restorable" not in done.stdout
    assert scene.objects == []
    assert f"'base/{oid}'" in alerts(scene)["base_backup_failed"]


def test_a_linked_configuration_file_is_told_wherever_the_base_backup_is(scene: Night) -> None:
    """The data is whole: the base backup is kept, and backup, status, alerts, list and the restore's plan say it."""
    scene.cluster.stop()
    move_out(scene.cluster.pgdata / "pg_hba.conf")
    scene.cluster.start()
    words = 'skipping special file "./pg_hba.conf"'
    done = scene.run("backup")
    assert done.returncode == 0, done.stderr
    assert f"WARNING: {words}" in done.stderr
    assert words in alerts(scene)["base_backup_warning"]
    assert "1 warning" in scene.run("status").stdout
    assert words in scene.run("list", "--base-backups").stdout
    plan = scene.run("restore", "--pgdata", str(scene.folder / "restored"), "--plan")
    assert f"was taken with a warning: {words}" in plan.stdout
    assert scene.run("catalog", "rebuild").returncode == 0
    assert words in scene.run("list", "--base-backups").stdout


def test_a_page_with_a_wrong_checksum_does_not_end_all_base_backups(scene: Night) -> None:
    """It is kept and can be restored; file and block are named everywhere, and people are told at once."""
    file = damage(scene, 3)
    done = scene.run("backup")
    assert done.returncode == 1
    assert "local: restorable, with damaged pages" in done.stdout
    assert f"is kept and restorable, but holds 1 damaged page: wrong checksum in '{file}' block 3" in done.stderr
    assert f"'{file}' block 3" in alerts(scene)["pages_damaged"]
    assert "DAMAGED PAGES in 1 file;" in scene.run("status").stdout
    assert f"'{file}' block 3" in scene.run("list", "--base-backups").stdout
    listed = json.loads(scene.run("list", "--base-backups", "--json").stdout)
    assert listed[0]["damaged_pages"] == [{"file": file, "blocks": [3], "total": 1}]
    target = owned_folder("restored") / "data"
    plan = scene.run("restore", "--pgdata", str(target), "--plan")
    assert f"DAMAGED PAGES, as the cluster had: wrong checksum in '{file}' block 3" in plan.stdout
    volumes = " ".join(str(path) for path in scene.objects if path.name.startswith("base."))
    folder = scene.folder / "opened"
    folder.mkdir()
    subprocess.run(["bash", "-c", f"cat {volumes} | zstd -dc | tar -x -C {folder}"], check=True)
    assert verify_backup(scene.cluster.install, folder) == "backup successfully verified"
    assert scene.run("verify", "--deep").returncode == 0
    scene.cluster.psql("DROP TABLE t; CHECKPOINT")
    assert scene.run("backup").returncode == 0
    assert "pages_damaged" not in alerts(scene)


def test_damaged_pages_of_a_cluster_with_tablespaces_are_kept_too(scene: Night) -> None:
    """It is staged, without a setting, and pg_basebackup ends before it names its file list."""
    scene.cluster.make_tablespace("fast_disk")
    scene.cluster.psql("CREATE TABLE s TABLESPACE fast_disk AS SELECT generate_series(1, 1000) AS i")
    file = damage(scene, 2)
    done = scene.run("backup")
    assert "local: restorable, with damaged pages" in done.stdout, done.stderr
    assert f"'{file}' block 2" in done.stderr


def test_an_incremental_base_backup_is_not_built_on_damaged_pages(scene18: Night) -> None:
    """The damaged one is left out as a parent, with its reason."""
    scene18.cluster.psql("ALTER SYSTEM SET summarize_wal = on")
    damage(scene18, 3)
    scene18.run("backup")
    done = scene18.run("backup", "--incremental")
    assert done.returncode == 1
    assert "was taken with damaged pages" in done.stderr


def test_a_warning_that_a_role_does_not_want_to_see_is_read_all_the_same(scene: Night) -> None:
    """The role keeps warnings back with client_min_messages: then no word of a lost database would come."""
    scene.cluster.psql("CREATE DATABASE big; CREATE ROLE quiet SUPERUSER LOGIN REPLICATION")
    scene.cluster.psql("ALTER ROLE quiet SET client_min_messages = error")
    oid = scene.cluster.value("SELECT oid FROM pg_database WHERE datname = 'big'")
    scene.cluster.psql("CHECKPOINT")
    scene.cluster.stop()
    move_out(scene.cluster.pgdata / "base" / oid)
    scene.cluster.start()
    conninfo = scene.cluster.conninfo.replace("user=postgres", "user=quiet")
    done = scene.run("backup", WAL_PIPELINE_CONNINFO=conninfo)
    assert done.returncode == 1
    assert f"ERROR: PostgreSQL left 'base/{oid}' out of the base backup" in done.stderr


@pytest.mark.postgres15
@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a folder that PostgreSQL may not read")
def test_a_folder_that_the_server_may_not_read_is_told_with_the_way_out(
    postgres15: PostgresInstall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lost+found of a mount point: check and setup name it before, and the error has a hint."""
    closed = replace(testbed.postgres.postgres_user(), reads_everything=False)
    monkeypatch.setattr(testbed.postgres, "postgres_user", lambda: closed)
    with night(postgres15, tmp_path) as scene:
        _lost_and_found(scene)


def _lost_and_found(scene: Night) -> None:
    (scene.cluster.pgdata / "lost+found").mkdir(mode=0o700)
    for command in ("check", "setup"):
        assert "'lost+found'" in scene.run(command).stdout
    done = scene.run("backup")
    assert done.returncode == 1
    assert 'could not open directory "./lost+found"' in done.stderr
    assert "HINT: PostgreSQL's user must be able to read all that lies in the data directory" in done.stderr


def test_a_store_that_is_not_prepared_is_refused_before_the_cluster_is_read(scene18: Night) -> None:
    """Its four folders are missing: backup, check and setup say so, with the line that makes them."""
    shutil.rmtree(scene18.folder / "local")
    (scene18.folder / "local").mkdir()
    done = scene18.run("backup")
    assert done.returncode == 1
    assert "ERROR: no store took the base backup: local: folder '" in done.stderr
    assert "mkdir -p" in done.stderr
    assert scene18.cluster.value("SELECT count(*) FROM pg_stat_archiver WHERE last_archived_wal LIKE '%.backup'") == "0"
    for command in ("check", "setup"):
        looked = scene18.run(command)
        assert looked.returncode == 1
        assert "mkdir -p" in looked.stdout


def test_setup_and_check_say_where_tablespaces_are_staged(scene18: Night) -> None:
    """Before the first base backup, with the room that it takes."""
    scene18.cluster.make_tablespace("fast_disk")
    for command in ("check", "setup"):
        said = scene18.run(command, "--json").stdout
        assert "1 tablespace: base backups are staged in " in said
        assert f"'{scene18.folder / 'state' / 'base-backup' / 'staging'}', which needs " in said


def test_a_deep_verification_names_every_bad_object(scene18: Night) -> None:
    """Two are damaged and one is gone: a person sees all three at once."""
    scene18.cluster.bulk_load(15)
    assert scene18.run("backup").returncode == 0
    volumes = [path for path in scene18.objects if path.name.startswith("base.")]
    for path in volumes[:2]:
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(bytes(data))
    volumes[2].unlink()
    done = scene18.run("verify", "--deep")
    assert done.returncode == 1
    for path in volumes[:3]:
        assert path.name in done.stdout + done.stderr


def damage(scene: Night, block: int) -> str:
    """Make a table of some pages and change one on disk; return the file's path below the data directory."""
    scene.cluster.psql("CREATE TABLE t AS SELECT generate_series(1, 2000) AS i; CHECKPOINT")
    file = scene.cluster.value("SELECT pg_relation_filepath('t')")
    scene.cluster.stop()
    with (scene.cluster.pgdata / file).open("r+b") as opened:
        opened.seek(block * 8192 + 4000)
        opened.write(b"\0" * 16)
    scene.cluster.start()
    return file


def move_out(path: Path) -> None:
    """Move a file or folder out of the data directory, and leave a symbolic link."""
    target = owned_folder("elsewhere") / path.name
    shutil.move(str(path), str(target))
    path.symlink_to(target)
