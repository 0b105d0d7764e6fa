"""Tests clones of a living cluster: they stand at their moment, move, end by themselves, and touch nothing of it."""

import hashlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from testbed.postgres_install import PostgresInstall
from wal_pipeline.cli.group import run
from wal_pipeline.commands.clone.folder import KEEPER, CloneFolder
from wal_pipeline.commands.clone.keeper_lock import is_kept
from wal_pipeline.commands.clone.ports import free_port
from wal_pipeline.host.process_identity import living_process
from wal_pipeline_tests.support.beside_scene import Beside, beside

pytestmark = pytest.mark.integration
ROWS = "SELECT coalesce(string_agg(n, ',' ORDER BY n), '') FROM t"


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so. Raises: TimeoutError."""
    deadline = time.monotonic() + 120
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.05)


@dataclass
class Desk:
    """A living original, moments of it and transactions just after them, and its clones."""

    scene: Beside
    capsys: pytest.CaptureFixture[str] | None = None
    moments: list[str] = field(default_factory=list)
    xids: list[str] = field(default_factory=list)

    @property
    def root(self) -> Path:
        """The folder for clones."""
        return self.scene.folder / "clones"

    def said(self, *words: str, code: int = 0) -> str:
        """Run the program in this process, and return what it printed."""
        assert self.capsys is not None
        self.capsys.readouterr()
        ended = run(["clone", *words])
        found = self.capsys.readouterr()
        assert ended == code, found.out + found.err
        return found.out if code == 0 else found.err

    def made(self, *words: str) -> dict[str, Any]:
        """Make or move a clone, and return how it stands."""
        found: dict[str, Any] = json.loads(self.said(*words, "--json"))
        return found

    def ask(self, clone: dict[str, Any], sql: str = ROWS) -> str:
        """Return a query's first value from a clone, by the socket that it names."""
        with self.connect(clone) as session:
            row = session.execute(sql.encode()).fetchone()
            return str(row[0]) if row else ""

    @staticmethod
    def connect(clone: dict[str, Any]) -> "psycopg.Connection[Any]":
        """Connect as the printed line does."""
        where = {"host": clone["socket"], "port": clone["port"], "user": "postgres", "dbname": "postgres"}
        return psycopg.connect(**where, autocommit=True)

    def audited(self) -> list[dict[str, Any]]:
        """Return the lines of the audit log that tell of clones."""
        text = (self.scene.folder / "state" / "audit.jsonl").read_text()
        return [line for line in map(json.loads, text.splitlines()) if line["action"] == "clone"]

    def alerts(self, kind: str) -> list[dict[str, Any]]:
        """Return the open alerts of a kind."""
        run(["alerts", "list", "--json"])
        return [one for one in json.loads(self.capsys.readouterr().out) if one["kind"] == kind]

    def untouched(self) -> dict[str, str]:
        """Return what no clone may change: the original's configuration, its timeline, the spool and the store."""
        pgdata, folder = self.scene.cluster.pgdata, self.scene.folder
        files = [*pgdata.glob("*.conf"), pgdata / "postmaster.pid", *(folder / "store").rglob("*")]
        found = {str(one): hashlib.sha256(one.read_bytes()).hexdigest() for one in files if one.is_file()}
        timeline = self.scene.cluster.value("SELECT timeline_id FROM pg_control_checkpoint()")
        return found | {"timeline": timeline, "spool": str(sorted((folder / "spool").iterdir()))}


@pytest.fixture(scope="module")
def original(postgres_version: PostgresInstall) -> Iterator[Desk]:
    """An original with four commits in its archive."""
    with beside(postgres_version) as scene, pytest.MonkeyPatch.context() as patch:
        desk = Desk(scene)
        scene.settings["WAL_PIPELINE_CLONE_FOLDER"] = str(desk.root)
        scene.settings["B2_SECRET_ACCESS_KEY"] = "very-secret-key"
        for name, value in scene.settings.items():
            patch.setenv(name, value)
        scene.cluster.psql("CREATE DATABASE shop")
        scene.cluster.psql("CREATE DATABASE other")
        scene.back_up()
        for number in range(4):
            desk.xids.append(
                scene.cluster.psql(f"INSERT INTO t VALUES ({number}) RETURNING txid_current()").split()[0]  # noqa: S608 - a number
            )
            desk.moments.append(scene.cluster.value("SELECT clock_timestamp()"))
        scene.archive()
        yield desk
        for folder in desk.root.iterdir() if desk.root.is_dir() else ():
            run(["clone", "stop", folder.name])


@pytest.fixture
def desk(original: Desk, capsys: pytest.CaptureFixture[str]) -> Desk:
    """The same, with what this test prints."""
    original.capsys = capsys
    return original


def test_a_clone_to_write_to_touches_nothing_of_its_original(desk: Desk) -> None:
    """It stands as of its moment, archives nothing though someone wants it to, and its server has no credentials."""
    before = desk.untouched()
    shop = desk.made("--to-time", desk.moments[0], "--name", "shop")
    assert (shop["state"], shop["target"].startswith("time "), shop["listens"]) == ("read-write", True, False)
    assert desk.ask(shop) == "0"
    with desk.connect(shop) as session:
        session.execute(b"INSERT INTO t VALUES ('clone')")
        session.execute(b"ALTER SYSTEM SET archive_mode = on")
        session.execute(f"ALTER SYSTEM SET archive_command = 'cp %p {desk.scene.folder}/spool/%f'".encode())  # type: ignore[arg-type]
        session.execute(b"SELECT pg_reload_conf()")
        session.execute(b"SELECT pg_switch_wal()")
        session.execute(b"CHECKPOINT")
    assert desk.ask(shop, "SHOW archive_mode") == "off"
    assert desk.ask(shop, "SHOW listen_addresses") == ""
    assert desk.ask(shop, "SELECT count(*) FROM pg_stat_replication") == "0"
    assert b"secret" not in (Path("/proc") / str(shop["pid"]) / "environ").read_bytes()
    assert Path(shop["folder"], "1", "pgdata").stat().st_uid == desk.scene.cluster.pgdata.stat().st_uid
    assert desk.untouched() == before
    assert desk.scene.cluster.psql(ROWS) == "0,1,2,3"
    assert "clone 'shop': read-write, as of time " in desk.scene.must("status")

    assert "there is a clone 'shop' already, as of time " in desk.said("--name", "shop", code=1)
    port = desk.scene.cluster.port
    used = desk.said("--port", str(port), code=1)
    assert f"port {port} cannot be used for the clone 'clone-1': process {desk.scene.cluster.pid} (postgres" in used
    moved = desk.made("move", "shop", "--to-xid", desk.xids[2], "--exclusive")
    assert desk.ask(moved) == "0,1"
    assert (moved["socket"], moved["port"]) == (shop["socket"], shop["port"])
    assert desk.said("stop", "shop") == "clone 'shop' is ended and removed\n"
    assert not (desk.root / "shop").exists()
    assert desk.untouched() == before


def test_a_clone_to_read_goes_onwards_with_its_own_files(desk: Desk) -> None:
    """Onwards from one moment to the next without a download, to the end of the archive; backwards it is made anew."""
    look = desk.made("--to-time", desk.moments[0], "--name", "look", "--read-only")
    assert (look["state"], desk.ask(look)) == ("read-only", "0")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        desk.ask(look, "INSERT INTO t VALUES ('clone') RETURNING n")
    onwards = (
        (("--to-time", desk.moments[1]), "0,1"),
        (("--to-xid", desk.xids[3], "--exclusive"), "0,1,2"),
        ((), "0,1,2,3"),
    )
    for target, rows in onwards:
        found = desk.made("move", "look", *target)
        assert (found["state"], desk.ask(found)) == ("read-only", rows)
    assert [line["anew"] for line in desk.audited()[-3:]] == [False, False, False]
    assert (desk.root / "look" / "1" / "pgdata").is_dir()
    back = desk.made("move", "look", "--to-xid", desk.xids[1])
    assert desk.ask(back) == "0,1"
    assert desk.audited()[-1]["anew"] is True
    assert [path.name for path in (desk.root / "look").iterdir() if path.name.isdigit()] == ["2"]
    assert (back["socket"], back["port"], back["ends_at"]) == (look["socket"], look["port"], look["ends_at"])
    desk.said("stop", "look")


def test_a_clone_of_one_database(desk: Desk) -> None:
    """The others are gone in it, and it still answers where it is asked."""
    only = desk.made("--name", "only", "--only-database", "shop")
    assert desk.ask(only, "SELECT string_agg(datname, ',' ORDER BY datname) FROM pg_database") == (
        "postgres,shop,template0,template1"
    )
    desk.said("stop", "only")
    assert "other" in desk.scene.cluster.value("SELECT string_agg(datname, ',') FROM pg_database")


def test_what_cannot_be_done_leaves_the_clone_as_it_is(desk: Desk) -> None:
    """A moment outside every window names the nearest; the clone that was to move stands where it stood."""
    kept = desk.made("--to-time", desk.moments[1], "--name", "kept", "--read-only")
    refused = desk.said("move", "kept", "--to-time", "2001-01-01 00:00:00+00", code=1)
    assert "is before the first moment that can be restored" in refused
    assert "The nearest that can be reached: " in refused
    assert desk.ask(kept) == "0,1"
    assert "is before the first moment" in desk.said("--to-time", "2001-01-01 00:00:00+00", code=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGDATA", str(desk.root / "kept" / "1" / "pgdata"))
        assert "the clone 'kept', and a clone has no archive of its own" in desk.said(code=1)
    assert [path.name for path in desk.root.iterdir()] == ["kept"]
    desk.said("stop", "kept")


def test_a_clone_ends_by_itself_while_somebody_is_connected(desk: Desk) -> None:
    """Its keeper tells who is, stops the server and removes the folder."""
    brief = desk.made("--name", "brief")
    folder = CloneFolder(desk.root, "brief")
    with desk.connect(brief) as session:
        record = folder.require_record()
        folder.write(replace(record, ends_at=datetime.now(UTC)))
        wait_until(lambda: not folder.path.exists())
        with pytest.raises(psycopg.OperationalError):
            session.execute(b"SELECT 1")
    wait_until(lambda: bool(desk.alerts("clone_ended")))  # its keeper tells when the clone is gone
    ended = desk.audited()[-1]
    assert (ended["result"], ended["name"], ended["connected"]) == ("ended", "brief", ["postgres in postgres"])
    [alert] = desk.alerts("clone_ended")
    assert alert["subject"] == "brief"
    assert alert["message"].endswith("and was removed with 1 session connected: postgres in postgres")


def test_what_a_kill_left_is_cleared(desk: Desk) -> None:
    """A clone without its keeper gets a new one; one without its server too, as after a restart, is removed."""
    left = desk.made("--name", "left", "--read-only", "--port", str(free_port_of(desk)))
    assert desk.ask(left, "SHOW listen_addresses") == "127.0.0.1"
    folder = CloneFolder(desk.root, "left")
    kill_keeper(folder)
    [state] = json.loads(desk.said("list", "--json"))["clones"]
    assert (state["name"], state["state"]) == ("left", "read-only")
    wait_until(lambda: is_kept(folder))
    kill_keeper(folder)
    os.kill(state["pid"], signal.SIGKILL)
    wait_until(lambda: not Path("/proc", str(state["pid"])).exists() or zombie(state["pid"]))
    removed = json.loads(desk.said("list", "--json"))["removed"]
    assert removed == ["clone 'left' had neither server nor keeper any more and is removed"]
    assert list(desk.root.iterdir()) == []


def kill_keeper(folder: CloneFolder) -> None:
    """Kill a clone's keeper, by the identity that it wrote."""
    keeper = living_process((folder.path / KEEPER).read_text().strip())
    assert keeper is not None
    os.kill(keeper, signal.SIGKILL)
    wait_until(lambda: not is_kept(folder))


def zombie(pid: int) -> bool:
    """Return whether a process has ended and was not waited for."""
    with suppress(OSError):
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def free_port_of(desk: Desk) -> int:
    """Return a port that nobody uses."""
    found = free_port()
    assert found != desk.scene.cluster.port
    return found


def test_clones_of_postgresqls_own_user(desk: Desk) -> None:
    """Without root: in a folder of that user, and ended by its own command."""
    where = {"WAL_PIPELINE_CLONE_FOLDER": str(desk.scene.folder / "own")}
    done = desk.scene.run("clone", "--name", "mine", "--for", "1h", **where)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Clone 'mine' stands as of the end of the archive, last commit " in done.stdout
    assert f"  psql -h {desk.scene.folder}/own/mine/socket -p " in done.stdout
    listed = desk.scene.run("clone", "list", **where)
    assert listed.stdout.splitlines()[1].startswith("mine  read-write  the end of the archive")
    done = desk.scene.run("clone", "stop", "mine", **where)
    assert (done.returncode, done.stdout) == (0, "clone 'mine' is ended and removed\n")
    assert list((desk.scene.folder / "own").iterdir()) == []
