"""Tests that a restored server beside its original touches nothing of it, and goes to its target all the same."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.postgres_install import PostgresInstall, owned_folder
from wal_pipeline_tests.support.beside_scene import Beside, beside

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def tied(postgres_version: PostgresInstall) -> Iterator[Beside]:
    """An original whose configuration names its own folders, publisher, standbys, library and pid file."""
    shared = owned_folder("shared")
    config = (
        f"hba_file = '{shared}/pg_hba.conf'\n"
        f"external_pid_file = '{shared}/main.pid'\n"
        f"log_directory = '{shared}/log'\nlogging_collector = on\n"
        "shared_preload_libraries = 'pg_prewarm'\n"
        "synchronous_standby_names = 'nobody'\nsynchronous_commit = local\n"
        "cluster_name = 'main'\nrecovery_end_command = 'false'\nrecovery_min_apply_delay = '1h'\n"
        "log_error_verbosity = verbose\nlog_destination = 'csvlog'\nlog_min_messages = error\n"
    )
    (shared / "pg_hba.conf").write_text("host all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n")
    (shared / "pg_hba.conf").chmod(0o644)
    with beside(postgres_version, config=config) as scene:
        scene.write_config(f"data_directory = '{scene.cluster.pgdata}'\n")
        conninfo = "host=127.0.0.1 port=1 dbname=none"
        scene.cluster.psql(f"CREATE SUBSCRIPTION sub CONNECTION '{conninfo}' PUBLICATION pub WITH (connect = false);\n")
        scene.back_up()
        scene.cluster.psql("INSERT INTO t VALUES ('archived')")
        scene.archive()
        yield scene


def shared_folder(scene: Beside) -> Path:
    """Return the folder that the original's configuration names."""
    return Path(scene.cluster.value("SHOW external_pid_file")).parent


def test_a_copy_touches_nothing_of_its_original(tied: Beside) -> None:
    """It serves its own folder, archives nothing, has no worker, waits for no standby, and leaves other files alone."""
    pid_file = shared_folder(tied) / "main.pid"
    before, spool = pid_file.read_text(), sorted((tied.folder / "spool").iterdir())
    with tied.started("copy", "--no-archiving") as copy:
        assert copy.done.returncode == 0, copy.done.stdout + copy.done.stderr
        assert "  archiving       off: a copy beside its original\n" in copy.done.stdout
        assert "  set apart             data directory, " in copy.done.stdout
        for _ in range(2):
            assert copy.value("SELECT string_agg(n, ',') FROM t") == "archived"
            assert copy.show("data_directory") == str(copy.pgdata)
            assert copy.show("archive_mode") == "off"
            assert copy.show("hba_file") == str(copy.pgdata / "pg_hba.conf")
            assert copy.show("synchronous_standby_names") == ""
            assert copy.show("external_pid_file") == "postmaster.external.pid"
            assert copy.show("log_directory") == "log"
            assert copy.show("cluster_name") == "copy"
            assert copy.show("shared_preload_libraries") == "pg_prewarm"
            workers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ 'autoprewarm|logical replication'"
            assert copy.value(workers) == "0"
            copy.value("INSERT INTO t VALUES ('copy')")
            copy.value("DELETE FROM t WHERE n = 'copy'")
            copy.value("SELECT pg_switch_wal()")
            copy.restart()
    assert pid_file.read_text() == before
    assert tied.cluster.psql("SELECT string_agg(n, ',') FROM t") == "archived"
    assert sorted((tied.folder / "spool").iterdir()) == spool


def test_a_copy_that_pauses_starts_no_worker_either(tied: Beside) -> None:
    """A hot standby must be able to start workers: then only libraries without any are loaded."""
    with tied.started("paused", "--no-archiving", "--action=pause", "--immediate") as copy:
        assert copy.done.returncode == 0, copy.done.stdout + copy.done.stderr
        assert "Recovery is paused at the target" in copy.done.stdout
        assert copy.show("shared_preload_libraries") == ""
        assert copy.show("data_directory") == str(copy.pgdata)


def test_what_may_be_a_copy_is_not_restored_before_it_is_said(tied: Beside) -> None:
    """Both ways out are named, the plan tells the same, and nothing is written."""
    done = tied.restore("undecided", "--start")
    assert done.returncode == 1
    pgdata = tied.folder / "undecided"
    assert (
        f"ERROR: the restored server may be a copy beside its original ('{pgdata}' is not the data directory of the "
        f"settings, which is '{tied.cluster.pgdata}'; the original answers at 127.0.0.1, port {tied.cluster.port}), "
        "and both would archive into one archive\nHINT: Say which: --no-archiving makes a copy"
    ) in done.stderr
    assert not pgdata.exists()
    assert "archiving       not decided: --archiving for the server" in tied.must(
        "restore", "--pgdata", str(pgdata), "--plan"
    )
    answer = json.loads(tied.must("restore", "--pgdata", str(pgdata), "--plan", "--no-archiving", "--json"))
    assert answer["archiving"] is False
    assert {"archiving", "subscriptions", "background workers", "data directory"} <= set(answer["set_apart"])


def test_a_server_that_may_be_the_original_counts_as_it(tied: Beside) -> None:
    """One that answers and does not let us in cannot be told from the original."""
    refused = tied.cluster.conninfo.replace("user=postgres", "user=nobody")
    done = tied.restore("undecided", WAL_PIPELINE_CONNINFO=refused, PGDATA=str(tied.folder / "undecided"))
    assert done.returncode == 1
    assert "does not tell whether it is the original" in done.stderr


def test_the_drill_ends_with_a_log_in_another_form_and_names_what_it_did_not_prove(tied: Beside) -> None:
    """It passes, and says what a restored server has besides."""
    [drill] = json.loads(tied.must("drill", "--json"))["drills"]
    assert drill["ok"], drill
    assert "shared_preload_libraries: 'pg_prewarm' was not loaded" in drill["not_proven"]
    assert any(words.startswith("addresses, port, SSL and access rules") for words in drill["not_proven"])


def test_a_restore_without_a_start_claims_no_moment(tied: Beside) -> None:
    """It says that nothing is recovered yet, and how the server is started so that it opens its own folder."""
    done = tied.restore("files", "--no-archiving")
    assert done.returncode == 0, done.stderr
    folder = tied.folder / "files"
    assert "Nothing is recovered yet. Start the server" in done.stdout
    assert f"pg_ctl start -D {folder} -o '-c data_directory={folder}'" in done.stdout
    assert "Recovery has ended" not in done.stdout
    lines = (folder / "postgresql.auto.conf").read_text().splitlines()
    for line in (
        "hot_standby = 'off'",
        "recovery_min_apply_delay = '0'",
        "archive_mode = 'off'",
        "max_logical_replication_workers = '0'",
        "max_worker_processes = '0'",
        f"hba_file = '{folder}/pg_hba.conf'",
    ):
        assert line in lines


@pytest.fixture
def scene(postgres_version: PostgresInstall) -> Iterator[Beside]:
    """An original of this test alone."""
    with beside(postgres_version, config="max_prepared_transactions = 0\n") as made:
        yield made


def test_a_replacement_of_a_lost_original_needs_nothing_new(scene: Beside) -> None:
    """Into the data directory of the settings, with the original gone: it archives, as its configuration says."""
    scene.back_up()
    scene.cluster.psql("INSERT INTO t VALUES ('archived')")
    scene.archive()
    scene.cluster.kill()
    with scene.started("pgdata", "--force") as found:
        assert found.done.returncode == 0, found.done.stdout + found.done.stderr
        assert "archiving       as its configuration says" in found.done.stdout
        assert found.show("archive_mode") == "on"
        assert found.show("max_worker_processes") == "8"
        assert "hot_standby" not in (found.pgdata / "postgresql.auto.conf").read_text()
        assert found.value("SELECT n FROM t") == "archived"


def test_a_data_directory_elsewhere_is_not_served_by_a_replacement(scene: Beside, tmp_path: Path) -> None:
    """A configuration file that names the old folder does not make a replacement open the original for writing."""
    etc = scene.folder / "etc.conf"
    etc.write_text(
        (scene.cluster.pgdata / "postgresql.conf").read_text() + f"data_directory = '{scene.cluster.pgdata}'\n"
    )
    etc.chmod(0o644)
    scene.back_up()
    scene.archive()
    scene.cluster.stop()
    with scene.started("new", "--archiving", f"--config-file={etc}") as found:
        assert found.done.returncode == 0, found.done.stdout + found.done.stderr
        assert found.show("data_directory") == str(found.pgdata)
    assert "shut down" in scene.cluster.run("pg_controldata", str(scene.cluster.pgdata))


def raise_settings(scene: Beside, **values: str) -> str:
    """Restart the original with higher settings after its base backup, and return a moment between two commits."""
    scene.back_up()
    scene.cluster.settings |= values
    scene.cluster.restart()
    scene.cluster.psql("INSERT INTO t VALUES ('1')")
    moment = scene.cluster.value("SELECT clock_timestamp()")
    scene.cluster.psql("INSERT INTO t VALUES ('2')")
    scene.archive()
    return moment


def drill_to_the_end(scene: Beside) -> None:
    """Run drills, each of which must pass, until one has drawn the end of the archive."""
    for seed in range(12):
        if "restored the end of the archive" in scene.must("drill", "--seed", str(seed)):
            return
    pytest.fail("no drill has drawn the end of the archive")


def test_a_raised_max_connections_keeps_no_restore_waiting(scene: Beside) -> None:
    """Recovery goes through to its target, a pause has the original's value, and the drill passes."""
    moment = raise_settings(scene, max_connections="77", max_locks_per_transaction="99")
    with scene.started("r", f"--to-time={moment}", "--no-archiving") as found:
        assert found.done.returncode == 0, found.done.stdout + found.done.stderr
        assert found.value("SELECT n FROM t") == "1"
    with scene.started(
        "p", f"--to-time={moment}", "--no-archiving", "--action=pause", "--set=max_connections=25"
    ) as found:
        assert found.done.returncode == 0, found.done.stdout + found.done.stderr
        assert "Recovery is paused at the target" in found.done.stdout
        assert "max_connections: the original had 77, the configuration here has less" in found.done.stdout
        assert found.value("SELECT n FROM t") == "1"
        assert (found.show("max_connections"), found.show("max_locks_per_transaction")) == ("77", "99")
    drill_to_the_end(scene)


def test_a_raised_max_prepared_transactions_ends_no_restore(scene: Beside) -> None:
    """Replay of a prepared transaction needs the room for it, with hot standby and without."""
    scene.back_up()
    scene.cluster.settings["max_prepared_transactions"] = "5"
    scene.cluster.restart()
    scene.cluster.psql("BEGIN;\nINSERT INTO t VALUES ('prepared');\nPREPARE TRANSACTION 'open';")
    scene.cluster.psql("INSERT INTO t VALUES ('1')")
    scene.archive()
    with scene.started("r", "--no-archiving") as found:
        assert found.done.returncode == 0, found.done.stdout + found.done.stderr
        assert found.value("SELECT count(*) FROM pg_prepared_xacts") == "1"
        assert re.search(r"max_prepared_transactions: the original had 5", found.done.stdout)
    drill_to_the_end(scene)


def test_settings_of_the_originals_command_line_are_told(postgres_version: PostgresInstall) -> None:
    """The original had more connections than its configuration says: the restore goes on and tells."""
    with beside(postgres_version, command_line={"max_connections": "44"}) as scene:
        scene.back_up()
        scene.archive()
        with scene.started("r", "--no-archiving") as found:
            assert found.done.returncode == 0, found.done.stdout + found.done.stderr
            assert "max_connections: the original had 44, the configuration here has less" in found.done.stdout
