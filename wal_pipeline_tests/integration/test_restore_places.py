"""Tests restores into mount points, onto disks of their own, and over what a killed restore left."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, owned_folder, postgres_user
from testbed.s3_pair import S3Pair
from wal_pipeline.commands.archive_get.restore_command import prefetch_folder
from wal_pipeline.commands.restore.contents import find_system_identifier
from wal_pipeline.commands.restore.perform import RestoreCommand, perform_restore
from wal_pipeline.commands.restore.places.workspace import WORK_NAME
from wal_pipeline.commands.restore.prepare import RestoreRequest, prepare_restore
from wal_pipeline.commands.restore.run import recovery_log
from wal_pipeline.settings import load_settings
from wal_pipeline.wiring.pipeline import Pipeline
from wal_pipeline_tests.support.mounts import mounted
from wal_pipeline_tests.support.restore_history import History, Moment, run_restore

pytestmark = pytest.mark.integration
root_alone = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a folder to another user")
RESTORE = (sys.executable, "-P", "-m", "wal_pipeline.cli", "restore", "--no-archiving")


class Lost:
    """A lost cluster with a tablespace, and the commits that its archive has."""

    def __init__(self, history: History, end: Moment, space: Path, oid: str) -> None:
        self.history = history
        self.end = end
        self.space = space
        self.oid = oid

    @property
    def map(self) -> str:
        """The option that moves the tablespace to a folder is this and the folder."""
        return f"--tablespace-map={self.oid}="


@pytest.fixture(scope="module")
def lost(postgres_version: PostgresInstall, s3_pair: S3Pair) -> Iterator[Lost]:
    """With an incremental base backup where PostgreSQL has them."""
    incremental = postgres_version.version >= 17
    with History.begin(postgres_version, s3_pair, settings={"summarize_wal": "on"} if incremental else {}) as history:
        space = history.cluster.make_tablespace("fast")
        history.cluster.psql("CREATE TABLE far TABLESPACE fast AS SELECT generate_series(1, 1000) AS i")
        oid = history.cluster.value("SELECT oid FROM pg_tablespace WHERE spcname = 'fast'")
        history.back_up()
        history.mark("first")
        if incremental:
            history.back_up(incremental=True)
            history.mark("second")
        end = history.end()
        history.lose()
        shutil.rmtree(space)
        yield Lost(history, end, space, oid)


@pytest.fixture
def room() -> Iterator[Path]:
    """A folder of PostgreSQL's user for data directories and tablespaces."""
    folder = owned_folder("places")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def started(lost: Lost, pgdata: Path, *arguments: str) -> Iterator[PostgresCluster]:
    """Restore as PostgreSQL's user and start the server; it has the commits of the archive. Stop it at the end."""
    cluster = PostgresCluster(lost.history.install, owned_folder("restored"), pgdata=pgdata)
    where = {"port": cluster.port, "unix_socket_directories": cluster.socket_folder, "listen_addresses": "127.0.0.1"}
    options = [f"--set={name}={value}" for name, value in where.items()]
    try:
        done = run_restore(lost.history, f"--pgdata={pgdata}", "--start", "--no-archiving", *options, *arguments)
        assert done.returncode == 0, done.stderr + done.stdout
        assert cluster.value("SELECT count(*) FROM marks") == str(lost.end.marks)
        assert cluster.value("SELECT count(*) FROM far") == "1000"
        yield cluster
    finally:
        if (pgdata / "postmaster.pid").exists():
            cluster.run("pg_ctl", "stop", "--mode=immediate", "--pgdata", str(pgdata))
        cluster.remove()


@root_alone
def test_a_mount_point_in_roots_folder_is_filled(lost: Lost, tmp_path: Path) -> None:
    """Nothing is written beside it, its lost+found stays root's, and a tablespace may be a mount point too."""
    parent = Path(owned_folder("roots"))
    os.chown(parent, 0, 0)
    parent.chmod(0o755)
    with mounted(parent / "data") as data, mounted(parent / "space") as space:
        plan = run_restore(lost.history, f"--pgdata={data}", "--plan", "--no-archiving", f"{lost.map}{space}")
        assert plan.returncode == 0, plan.stderr
        with started(lost, data, f"{lost.map}{space}") as cluster:
            assert sorted(path.name for path in parent.iterdir()) == ["data", "space"]
            assert (data / "wal-pipeline-recovery.log").is_file()
            assert not list(data.glob(".wal-pipeline*")) + list(space.glob(".wal-pipeline*"))
            assert str(data / "pg_wal/.wal-pipeline-prefetch") in cluster.value("SHOW restore_command")
        for folder in (data, space):
            assert (folder / "lost+found").stat().st_uid == 0


@root_alone
def test_root_fills_a_mount_point_and_gives_no_lost_and_found_away(lost: Lost, room: Path) -> None:
    """The small parent takes nothing, and what the server needs is its own."""
    pipeline = Pipeline(load_settings(lost.history.environment))
    stores = tuple(pipeline.stores.values())
    layout = pipeline.layout(find_system_identifier(stores, "", "main", None))
    with mounted(room / "small", 1) as parent, mounted(parent / "data") as data, mounted(parent / "space") as space:
        request = RestoreRequest(
            data,
            owner=postgres_user().name,
            tablespaces={lost.oid: space},
            archiving=False,
            bindir=lost.history.install.bin_folder,
        )
        folder = prefetch_folder(data, layout.system_identifier)
        perform_restore(prepare_restore(request, stores, layout), RestoreCommand(("false",), folder))
        assert {path.name for path in parent.iterdir()} == {"data", "space", "lost+found"}
        assert folder.path.parent == data / "pg_wal/.wal-pipeline-prefetch"
        assert recovery_log(data) == data / "wal-pipeline-recovery.log"
        for top in (data, space):
            assert (top / "lost+found").stat().st_uid == 0
            others = [path for path in top.rglob("*") if path.name != "lost+found"]
            assert {path.lstat().st_uid for path in others} == {postgres_user().uid}


@root_alone
def test_a_folder_that_cannot_be_written_is_told_in_the_plan(lost: Lost) -> None:
    """Before the download: a folder of another user, whose mount was not given to PostgreSQL's."""
    folder = owned_folder("roots")
    os.chown(folder, 0, 0)
    done = run_restore(lost.history, f"--pgdata={folder}", "--plan", "--no-archiving", f"{lost.map}{folder}-s")
    assert done.returncode == 1
    assert f"ERROR: the data directory '{folder}' is of user 'root'" in done.stderr
    assert f"HINT: Type: sudo chown {postgres_user().name} {folder}" in done.stderr


def test_the_plan_counts_on_the_disk_that_is_written(lost: Lost, room: Path) -> None:
    """A small disk is refused, also where its parent is large; each line has the name of what lies there."""
    with mounted(room / "small", 20) as small:
        for arguments in (f"--pgdata={small}", f"--pgdata={room}/new --waldir={small}"):
            options = [*arguments.split(), "--plan", "--no-archiving", f"{lost.map}{room}/s"]
            done = run_restore(lost.history, *options)
            assert f"ERROR: the disk of '{small}' has " in done.stderr, arguments
    done = run_restore(lost.history, f"--pgdata={room}/new", "--plan", "--no-archiving", f"{lost.map}{room}/s")
    assert f"disk            {room}/new: " in done.stdout


def test_the_wal_has_a_disk_of_its_own(lost: Lost, room: Path) -> None:
    """With --waldir; and --force into the old data directory keeps it there, without the old cluster's WAL."""
    with mounted(room / "wal") as wal:
        (work := room / "work").mkdir()
        os.chown(work, postgres_user().uid, postgres_user().gid)
        arguments = (f"{lost.map}{room}/s", f"--work-dir={work}")
        with started(lost, room / "new", f"--waldir={wal}", *arguments):
            assert (room / "new/pg_wal").readlink() == wal
            assert [path.name for path in work.iterdir()] == ["new-recovery.log"]
        old = {path.name for path in wal.iterdir() if len(path.name) == 24}
        assert old
        (room / "new/pg_log").symlink_to(work)
        done = run_restore(lost.history, f"--pgdata={room}/new", "--force", "--plan", "--no-archiving", *arguments)
        assert f"note            '{room}/new/pg_wal' stays a link to '{wal}', whose WAL is removed" in done.stdout
        assert f"'{room}/new/pg_log' is a link to '{work}': the link is removed" in done.stdout
        with started(lost, room / "new", "--force", *arguments):
            assert (room / "new/pg_wal").readlink() == wal
            assert (wal / "lost+found").is_dir()
            assert work.is_dir()


def test_a_disk_that_is_mounted_at_pg_wal_is_filled(lost: Lost, room: Path) -> None:
    """An empty one is no content of the data directory; --force empties it and leaves it where it is."""
    (room / "new").mkdir()
    os.chown(room / "new", postgres_user().uid, postgres_user().gid)
    where = f"{lost.map}{room}/s"
    with mounted(room / "new/pg_wal") as wal:
        with started(lost, room / "new", where):
            assert any(len(path.name) == 24 for path in wal.iterdir())
        (wal / "0000000A0000000000000001").touch()
        with started(lost, room / "new", where, "--force"):
            assert os.path.ismount(wal)
            assert not (wal / "0000000A0000000000000001").exists()
        assert (wal / "lost+found").stat().st_uid == 0
        options = (f"--pgdata={room}/new", "--force", f"--waldir={room}/wal", "--plan", "--no-archiving", where)
        refused = run_restore(lost.history, *options)
        assert f"ERROR: '{wal}' is a mount point, so that no link can take its place" in refused.stderr
    with mounted(room / "small/pg_wal", 20) as wal:
        options = (f"--pgdata={room}/small", "--plan", "--no-archiving", f"{where}-2")
        os.chown(room / "small", postgres_user().uid, postgres_user().gid)
        assert f"ERROR: the disk of '{wal}' has " in run_restore(lost.history, *options).stderr


@pytest.mark.parametrize("force", [pytest.param(True, marks=pytest.mark.left_out), False])
def test_a_restore_goes_on_over_what_a_killed_one_left(lost: Lost, room: Path, force: bool) -> None:
    """Wherever it was killed, and with a tablespace whose link was not made: nothing starts there before."""
    pgdata, space = room / "new", room / "s"
    options = (f"{lost.map}{space}", *(["--force"] if force else []))
    killed = 0
    for seconds in (0.0, 0.2, 0.5, 1.0):
        was = set(names_below(pgdata))
        process = subprocess.Popen(
            postgres_user().wrap([*RESTORE, f"--pgdata={pgdata}", *options]),
            env={
                **lost.history.environment,
                "PATH": os.environ["PATH"],
                "PGBINDIR": str(lost.history.install.bin_folder),
            },
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for_change(process, pgdata, was)
        time.sleep(seconds)
        process.kill()
        killed += process.wait() < 0
        if (pgdata / WORK_NAME).exists():
            assert (pgdata / "postmaster.pid").exists() is False
    assert killed
    left = (pgdata / WORK_NAME / "mark").exists()
    plan = run_restore(lost.history, f"--pgdata={pgdata}", "--plan", "--no-archiving", *options)
    if left and any(path.name != WORK_NAME for path in pgdata.iterdir()):
        assert "was left by a restore that did not end: what it brought is removed" in plan.stdout, plan.stderr
    with started(lost, pgdata, *options, *([] if left else ["--force"])):
        assert not (pgdata / WORK_NAME).exists()
        assert not (space / WORK_NAME).exists()


def names_below(folder: Path) -> Iterator[str]:
    """Yield what lies in a folder and its work folder."""
    for path in (folder, folder / WORK_NAME):
        if path.is_dir():
            yield from (found.name for found in path.iterdir())


def wait_for_change(process: "subprocess.Popen[bytes]", pgdata: Path, was: set[str]) -> None:
    """Return once the restore has written something, or has ended."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if set(names_below(pgdata)) - was:
            return
        time.sleep(0.01)


def test_all_tablespaces_go_below_one_folder(lost: Lost, room: Path) -> None:
    """Each into one named by its OID; one that is mapped goes where the map says."""
    with started(lost, room / "pgdata", f"--tablespace-map-all={room}/spaces"):
        assert (room / "pgdata/pg_tblspc" / lost.oid).readlink() == room / "spaces" / lost.oid
    arguments = (f"--pgdata={room}/other", f"--tablespace-map-all={room}/spaces", f"{lost.map}{room}/mapped")
    plan = run_restore(lost.history, *arguments, "--plan", "--no-archiving")
    assert f"{lost.oid}: {lost.space} to {room}/mapped" in plan.stdout
