"""Tests that the configuration outside the data directory comes back, as Debian keeps it and as others do."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyrage
import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, owned_folder, postgres_user
from wal_pipeline.stores.local.store import LocalFolderStore
from wal_pipeline_tests.support.restore_history import History, run_restore

pytestmark = pytest.mark.integration
SECRET = "host=primary password=hunter2"
Place = Callable[[Path], Path]


@contextmanager
def history_with(
    install: PostgresInstall, place: Place, *, pgdata: Path | None = None, **environment: str
) -> Iterator[History]:
    """Make a cluster, give ``place`` its data directory, which returns the configuration file, and archive it."""
    folder = owned_folder("history")
    for name in ("spool", "store"):
        (folder / name).mkdir()
        os.chown(folder / name, postgres_user().uid, postgres_user().gid)
    spool = folder / "spool"
    settings = {"archive_mode": "on", "archive_command": f"cp %p {spool}/.%f && mv {spool}/.%f {spool}/%f"}
    cluster = PostgresCluster(install, pgdata=pgdata, settings=settings)
    if pgdata is None:
        cluster.initdb(wal_segment_size_mb=1)
    cluster.settings["config_file"] = str(place(cluster.pgdata))
    LocalFolderStore("local", folder / "store").prepare()
    local = {"WAL_PIPELINE_STORES": "local", "WAL_PIPELINE_LOCAL_STORE_FOLDER": str(folder / "store"), **environment}
    cluster.start()
    made: Any = None
    try:
        cluster.pgbench_init()
        cluster.psql("CREATE TABLE marks (n int)")
        yield History(install, made, made, cluster, folder, local)
    finally:
        cluster.remove()
        shutil.rmtree(folder, ignore_errors=True)


def lost(history: History) -> None:
    """Take a base backup, commit, archive, and lose the server."""
    history.back_up()
    history.cluster.psql("INSERT INTO marks VALUES (1)")
    history.end()
    history.cluster.kill()
    subprocess.run(["chown", "-R", postgres_user().name, str(history.folder)], check=True)


@pytest.fixture
def etc() -> Iterator[Path]:
    """A folder for configuration, on the original's host."""
    folder = owned_folder("etc")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def moved_to(etc: Path) -> Place:
    """Move the three files out, name them in the settings, and have one include others in every way."""

    def move(pgdata: Path) -> Path:
        for name in ("postgresql.conf", "pg_hba.conf", "pg_ident.conf"):
            (pgdata / name).rename(etc / name)
        (etc / "conf.d").mkdir()
        (etc / "empty.d").mkdir()
        (etc / "conf.d/10-mem.conf").write_text(f"work_mem = '7MB'\nprimary_conninfo = '{SECRET}'\n")
        (etc / "conf.d/.hidden.conf").write_text("nonsense\n")
        (etc / "common.conf").write_text("maintenance_work_mem = '77MB'\n")
        with (etc / "postgresql.conf").open("a") as conf:
            conf.write(
                f"data_directory = '{pgdata}'\nhba_file = '{etc}/pg_hba.conf'\nident_file = '{etc}/pg_ident.conf'\n"
                f"external_pid_file = '{etc}/pid'\ninclude_dir 'conf.d'\ninclude_dir = '{etc}/empty.d'\n"
                f"include '{etc}/common.conf'\ninclude_if_exists 'none.conf'\n"
            )
        subprocess.run(["chown", "-R", postgres_user().name, str(etc)], check=True)
        return etc / "postgresql.conf"

    return move


@contextmanager
def started(history: History, pgdata: Path, *arguments: str) -> Iterator[tuple[PostgresCluster, str]]:
    """Restore and start; give the server and what the command said."""
    cluster = PostgresCluster(history.install, owned_folder("restored"), pgdata=pgdata)
    where = {"port": cluster.port, "unix_socket_directories": cluster.socket_folder, "listen_addresses": "127.0.0.1"}
    options = [f"--set={name}={value}" for name, value in where.items()]
    try:
        done = run_restore(history, f"--pgdata={pgdata}", "--start", "--no-archiving", *options, *arguments)
        assert done.returncode == 0, done.stderr + done.stdout
        assert cluster.value("SELECT count(*) FROM marks") == "1"
        assert cluster.value("SHOW data_directory") == str(pgdata)
        yield cluster, done.stdout + done.stderr
    finally:
        if (pgdata / "postmaster.pid").exists():
            cluster.run("pg_ctl", "stop", "--mode=immediate", "--pgdata", str(pgdata))
        cluster.remove()


def test_configuration_outside_comes_back_on_a_new_machine(
    postgres_version: PostgresInstall, etc: Path, postgres_folder: Path
) -> None:
    """The plan tells it before the download; the server starts with it and all that it includes, in its own folder."""
    with history_with(postgres_version, moved_to(etc)) as history:
        lost(history)
        etc.rename(etc.with_name(f"{etc.name}-gone"))
        plan = run_restore(history, f"--pgdata={postgres_folder}/new", "--plan", "--no-archiving")
        assert f"the original's configuration was outside its data directory: {etc}/common.conf, " in plan.stdout
        assert f"it is written into '{postgres_folder}/new'" in plan.stdout
        assert "hunter2" not in plan.stdout + plan.stderr
        with started(history, postgres_folder / "new") as (cluster, said):
            assert cluster.value("SHOW work_mem") == "7MB"
            assert cluster.value("SHOW maintenance_work_mem") == "77MB"
            assert cluster.value("SHOW hba_file") == str(postgres_folder / "new/pg_hba.conf")
            assert str(etc) not in cluster.value("SHOW external_pid_file")
            assert "hunter2" not in said
            mirror = postgres_folder / "new/restored-configuration"
            assert (mirror / str(etc)[1:] / "conf.d/10-mem.conf").exists()
            assert (mirror / str(etc)[1:] / "empty.d").is_dir()
        shutil.rmtree(etc.with_name(f"{etc.name}-gone"))


def test_configuration_is_encrypted_with_the_base_backup(postgres18: PostgresInstall, etc: Path) -> None:
    """No name and no secret of it stands in the store in plain text, and an identity opens it."""
    identity = pyrage.x25519.Identity.generate()
    key = owned_folder("key") / "identity"
    key.write_text(str(identity))
    os.chown(key, postgres_user().uid, postgres_user().gid)
    options = {"WAL_PIPELINE_AGE_RECIPIENTS": str(identity.to_public()), "WAL_PIPELINE_AGE_IDENTITY_FILE": str(key)}
    with history_with(postgres18, moved_to(etc), **options) as history:
        lost(history)
        objects = [path for path in (history.folder / "store").rglob("*") if path.is_file()]
        assert [path.name for path in objects if "configuration" in path.name and "objects" in path.parts] == [
            "configuration.tar.zst.age"
        ]
        assert not any(word in path.read_bytes() for path in objects for word in (b"hunter2", b"work_mem"))
        plan = run_restore(history, f"--pgdata={key.parent}/new", "--plan", "--no-archiving")
        assert f"{etc}/conf.d/10-mem.conf" in plan.stdout, plan.stderr
    shutil.rmtree(key.parent)


def test_a_server_without_configuration_is_told_before_the_download(
    postgres18: PostgresInstall, etc: Path, postgres_folder: Path
) -> None:
    """Not after it; and with --no-restore-config or another file the person decides."""
    with history_with(postgres18, moved_to(etc)) as history:
        lost(history)
        arguments = (f"--pgdata={postgres_folder}/new", "--no-archiving", "--no-restore-config")
        plan = run_restore(history, *arguments, "--plan")
        assert "the base backup has no postgresql.conf, and none was kept with it" in plan.stdout, plan.stderr
        done = run_restore(history, *arguments, "--start")
        assert done.returncode == 1
        assert f"ERROR: there is no postgresql.conf for '{postgres_folder}/new'" in done.stderr
        assert not (postgres_folder / "new").exists()
        own = postgres_folder / "own.conf"
        own.write_text("work_mem = '9MB'\n")
        (postgres_folder / "hba").write_text("local all all trust\nhost all all 127.0.0.1/32 trust\n")
        with started(
            history,
            postgres_folder / "new",
            f"--config-file={own}",
            f"--set=hba_file={postgres_folder}/hba",
            f"--set=data_directory={postgres_folder}/new",
        ) as (cluster, _):
            assert cluster.value("SHOW work_mem") == "9MB"
            assert not (postgres_folder / "new/postgresql.conf").exists()


def test_an_access_file_outside_and_a_linked_one_come_back(
    postgres_version: PostgresInstall, etc: Path, postgres_folder: Path
) -> None:
    """postgresql.conf lies inside and names one file outside; another one is a link, which pg_basebackup skips."""

    def place(pgdata: Path) -> Path:
        (pgdata / "pg_hba.conf").rename(etc / "access.conf")
        (pgdata / "pg_ident.conf").rename(etc / "ident.conf")
        (pgdata / "pg_ident.conf").symlink_to(etc / "ident.conf")
        (pgdata / "pg_log").symlink_to(etc)
        with (pgdata / "postgresql.conf").open("a") as conf:
            conf.write(f"hba_file = '{etc}/access.conf'\nwork_mem = '7MB'\n")
        return pgdata / "postgresql.conf"

    with history_with(postgres_version, place) as history:
        lost(history)
        etc.rename(etc.with_name(f"{etc.name}-gone"))
        plan = run_restore(history, f"--pgdata={postgres_folder}/new", "--plan", "--no-archiving")
        assert f"'pg_log' in the original's data directory was a link to '{etc}'" in plan.stdout, plan.stderr
        with started(history, postgres_folder / "new") as (cluster, _):
            assert cluster.value("SHOW work_mem") == "7MB"
            assert cluster.value("SHOW hba_file") == str(postgres_folder / "new/pg_hba.conf")
            assert (postgres_folder / "new/pg_ident.conf").is_file()
        shutil.rmtree(etc.with_name(f"{etc.name}-gone"))


@pytest.mark.postgres15
def test_debians_own_layout(postgres15: PostgresInstall, postgres_folder: Path) -> None:
    """Made by pg_createcluster: on the same machine its files are used, on a new one the kept files are."""
    program = shutil.which("pg_createcluster")
    if program is None or os.geteuid() != 0:
        pytest.skip("pg_createcluster needs root, and the package postgresql-common")
    name = f"wp{os.getpid()}"
    pgdata = postgres_folder / "data"
    create = [program, f"--datadir={pgdata}", f"--user={postgres_user().name}", "15", name]
    subprocess.run([*create, "--", "--auth=trust", "--wal-segsize=1"], check=True, capture_output=True)
    etc = Path("/etc/postgresql/15") / name
    try:
        with (etc / "pg_hba.conf").open("a") as hba:
            hba.write("host replication all 127.0.0.1/32 trust\n")
        (etc / "conf.d/mem.conf").write_text("work_mem = '7MB'\nssl = off\n")
        with history_with(postgres15, lambda _: etc / "postgresql.conf", pgdata=pgdata) as history:
            lost(history)
            shutil.rmtree(pgdata)
            with started(history, pgdata) as (cluster, said):
                assert cluster.value("SHOW work_mem") == "7MB"
                assert f"the server starts with '{etc}/postgresql.conf' of this machine" in said
                assert not (pgdata / "postgresql.conf").exists()
            shutil.rmtree(etc)
            with started(history, postgres_folder / "new") as (cluster, _):
                assert cluster.value("SHOW work_mem") == "7MB"
    finally:
        subprocess.run(["pg_dropcluster", "--stop", "15", name], check=False, capture_output=True)
        shutil.rmtree(etc, ignore_errors=True)
