"""Tests that ``wal-pipeline rescue`` brings back what an accident took, while the cluster goes on.

One living server for each version has a few accidents, one after the other, under load. Then each is undone.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, postgres_user
from testbed.processes import ChildProcess
from testbed.s3_pair import S3Pair
from wal_pipeline_tests.support.restore_history import History, wait_until

pytestmark = pytest.mark.integration

TABLES = """
CREATE TYPE public.status AS ENUM ('new', 'paid');
CREATE TABLE public.orders (id serial PRIMARY KEY, state public.status DEFAULT 'new', label text);
INSERT INTO public.orders (label) SELECT 'order ' || i FROM generate_series(1, 4000) i;
CREATE TABLE public."My.Events" (at date, n int) PARTITION BY RANGE (at);
CREATE TABLE public.spring PARTITION OF public."My.Events" FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
CREATE TABLE public.autumn PARTITION OF public."My.Events" FOR VALUES FROM ('2026-07-01') TO ('2027-01-01');
INSERT INTO public."My.Events" SELECT date '2026-01-01' + i % 360, i FROM generate_series(1, 700) i;
"""
SHOP = """
CREATE TABLE public.wares AS SELECT i AS n, 'ware ' || i AS name FROM generate_series(1, 250) i;
CREATE TABLE public.places AS SELECT i AS n FROM generate_series(1, 5) i;
"""
PASSWORD = "rescue-word-41"


def command_lines() -> Iterator[bytes]:
    """Yield the command line of every process that there is."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            yield path.read_bytes()


@dataclass(slots=True)
class Accidents:
    """A living server that lost things, each with the transaction that did it."""

    history: History
    xids: dict[str, str] = field(default_factory=dict)
    load: ChildProcess | None = None

    @property
    def cluster(self) -> PostgresCluster:
        """The living server."""
        return self.history.cluster

    @property
    def scratch(self) -> Path:
        """The scratch folder of the rescues."""
        return self.history.folder / "scratch"

    def happen(self, name: str, sql: str, database: str = "postgres") -> None:
        """Let a transaction do it."""
        self.xids[name] = self.cluster.psql(f"BEGIN;\nSELECT pg_current_xact_id();\n{sql};\nCOMMIT;", database=database)

    def words(self, *words: str) -> list[str]:
        """Return the command line of a rescue."""
        return [sys.executable, "-P", "-m", "wal_pipeline.cli", "rescue", "--folder", str(self.scratch), *words]

    @property
    def environment(self) -> dict[str, str]:
        """The settings: those of the stores, and where the living server is."""
        history = self.history
        return {
            **history.environment,
            "PATH": os.environ["PATH"],
            "PGBINDIR": str(history.install.bin_folder),
            "WAL_PIPELINE_CONNINFO": history.cluster.conninfo,
            "WAL_PIPELINE_STATE_DIR": str(history.folder / "desk"),
            "PGPASSWORD": PASSWORD,
        }

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run a rescue as PostgreSQL's user. Meanwhile no other command line may show the password."""
        own = "\0".join(self.words(*words)).encode()
        command = postgres_user().wrap(self.words(*words))
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/", env=self.environment
        )
        with ThreadPoolExecutor(1) as reader, process:
            output = reader.submit(process.communicate, timeout=240)
            while not output.done():
                shown = [line for line in command_lines() if PASSWORD.encode() in line and own not in line]
                assert not shown
                time.sleep(0.02)
            return subprocess.CompletedProcess(command, process.returncode, *output.result())

    def rescue(self, *words: str) -> dict[str, Any]:
        """Run a rescue that succeeds, and return its answer."""
        done = self.run("--json", *words)
        assert done.returncode == 0, done.stderr
        assert not self.scratch.exists()
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer


@pytest.fixture(scope="module")
def accidents(postgres_version: PostgresInstall, s3_pair: S3Pair) -> Iterator[Accidents]:
    """A cluster with a tablespace and two databases, of which much is lost after its base backup; pgbench goes on."""
    with History.begin(postgres_version, s3_pair) as history:
        scene, cluster = Accidents(history), history.cluster
        desk = history.folder / "desk"
        desk.mkdir()
        os.chown(desk, postgres_user().uid, postgres_user().gid)
        cluster.make_tablespace("apart")
        cluster.psql(TABLES)
        cluster.psql("CREATE DATABASE shop")
        cluster.psql(SHOP, database="shop")
        history.back_up()
        cluster.psql(
            "ALTER TABLE public.orders SET TABLESPACE apart; INSERT INTO public.orders (label) VALUES ('last')"
        )
        scene.happen("delete", "DELETE FROM public.orders")
        history.mark("between")
        scene.happen("drop table", 'DROP TABLE public."My.Events"; DROP TABLE public.orders; DROP TYPE public.status')
        cluster.psql("DROP DATABASE shop")
        history.mark("end")
        history.end()
        scene.load = cluster.start_pgbench(seconds=600, clients=1, rate=20)
        yield scene
        scene.load.stop()


@pytest.fixture
def only18(accidents: Accidents) -> None:
    """Skip with another version than 18: the test does not depend on it."""
    if accidents.history.install.version != 18:
        pytest.skip("once is enough")


def test_a_deleted_table_comes_back_beside_the_living_server(accidents: Accidents) -> None:
    """Just before the DELETE, into a schema of its own; the load on the living server never stops."""
    answer = accidents.rescue(
        *("--table", "orders", "--before-xid", accidents.xids["delete"], "--as", "Back again"),
        *("--into", "dbname=postgres"),
    )
    assert answer["tables"] == [{"name": "public.orders", "rows": 4001, "into": '"Back again".orders'}]
    assert accidents.cluster.value('SELECT count(*) FROM "Back again".orders') == "4001"
    assert accidents.cluster.value('SELECT max(label) FROM "Back again".orders WHERE id = 4001') == "last"
    assert {"download", "recovery", "count", "dump", "load", "check"} <= set(answer["seconds"])
    assert "type public.status came along: the target lacks it" in answer["notes"]
    assert accidents.load is not None
    assert accidents.load.is_running
    audit = (accidents.history.folder / "desk" / "audit.jsonl").read_text()
    line = json.loads(audit.splitlines()[-1])
    assert (line["action"], line["result"], line["rows"]) == ("rescue", "rescued", {"public.orders": 4001})
    assert PASSWORD not in audit


@pytest.mark.usefixtures("only18")
def test_a_transaction_before_the_base_backup_is_said_to_be(accidents: Accidents) -> None:
    """PostgreSQL only says that it did not see it; the hint says how to take an older base backup."""
    done = accidents.run("--table", "orders", "--before-xid", "4", "--into", "dbname=postgres", "--as", "never")
    assert done.returncode == 1
    assert "transaction 4 was not seen in the WAL after base backup" in done.stderr
    assert "--committed-at" in done.stderr


def test_dropped_tables_come_back_in_a_dump(accidents: Accidents) -> None:
    """Two at once, one of them partitioned, into one new file that only its owner reads, and which loads."""
    output = accidents.history.folder / "desk" / "tables.dump"
    words = ("--table", "Events", "--table", "orders", "--before-xid", accidents.xids["drop table"])
    refused = accidents.run(*words, "--output", str(output))
    assert refused.returncode != 0
    assert "no list of relations knows a table 'Events'" in refused.stderr
    words = ("--table", "My.Events", *words[2:])
    answer = accidents.rescue(*words, "--output", str(output))
    assert {one["name"]: one["rows"] for one in answer["tables"]} == {'public."My.Events"': 700, "public.orders": 0}
    assert output.stat().st_mode & 0o777 == 0o600
    cluster = accidents.cluster
    cluster.psql("CREATE DATABASE again")
    cluster.psql("CREATE TYPE public.status AS ENUM ('new', 'paid')", database="again")
    cluster.run("pg_restore", "--dbname=again", "--single-transaction", "--no-tablespaces", str(output))
    assert cluster.psql('SELECT count(*) FROM public."My.Events"', database="again") == "700"
    again = accidents.run(*words, "--output", str(output))
    assert again.returncode == 1
    assert "exists, and is not written over" in again.stderr


def test_a_dropped_database_comes_back_after_a_killed_rescue(accidents: Accidents) -> None:
    """The killed one leaves its folder and its server, which the next one removes first."""
    output = accidents.history.folder / "desk" / "shop.dump"
    moment = accidents.history.moments["between"]
    words = ("--database", "shop", "--whole-database", "--to-time", moment, "--output", str(output))
    killed = subprocess.Popen(
        postgres_user().wrap(accidents.words(*words)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env=accidents.environment,
        start_new_session=True,
    )
    pid_file = accidents.scratch / "pgdata" / "postmaster.pid"
    wait_until(lambda: pid_file.exists() or killed.poll() is not None)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert accidents.scratch.exists()
    answer = accidents.rescue(*words)
    assert {one["name"]: one["rows"] for one in answer["tables"]} == {"public.wares": 250, "public.places": 5}
    accidents.cluster.run("pg_restore", "--create", "--dbname=postgres", str(output))
    assert accidents.cluster.psql("SELECT sum(n) FROM public.wares", database="shop") == "31375"


def test_one_table_of_a_dropped_database_goes_into_another(accidents: Accidents) -> None:
    """The lists of relations say in which database it was, so that no other one is brought."""
    moment = accidents.history.moments["between"]
    answer = accidents.rescue("--table", "wares", "--to-time", moment, "--into", "dbname=postgres", "--as", "shop")
    assert (answer["database"], answer["rows"]) == ("shop", 250)
    assert accidents.cluster.value("SELECT count(*) FROM shop.wares") == "250"


@pytest.mark.usefixtures("only18")
def test_a_table_that_was_not_there_is_said_to_have_been(accidents: Accidents) -> None:
    """With the moments of the lists that had it; the scratch folder goes, and nothing is loaded."""
    end = accidents.history.moments["end"]
    done = accidents.run("--table", "orders", "--to-time", end, "--into", "dbname=postgres", "--as", "never")
    assert done.returncode == 1
    assert "had no table 'orders' at that moment" in done.stderr
    assert "By the lists of relations it was there from " in done.stderr
    assert not accidents.scratch.exists()
    assert accidents.cluster.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'never'") == "0"


@pytest.mark.usefixtures("only18")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--into", "host=127.0.0.1 port=1"), "cannot connect to PostgreSQL"),
        (("--into", "dbname=postgres password=rescue-word-41"), "--into holds a password"),
        (("--into", "dbname=postgres", "--as", "public"), "'public' is not a schema for rescued tables"),
        (("--into", "dbname=postgres", "--as", "taken"), "taken.orders is in database 'postgres'"),
        (("--output", "/nowhere/at/all"), "no file can be written into '/nowhere/at'"),
    ],
)
def test_trouble_is_found_before_anything_is_restored(
    accidents: Accidents, words: tuple[str, ...], message: str
) -> None:
    """The destination is looked at first, and no secret is printed."""
    accidents.cluster.psql("CREATE SCHEMA IF NOT EXISTS taken; CREATE TABLE IF NOT EXISTS taken.orders ()")
    done = accidents.run("--table", "orders", "--before-xid", accidents.xids["delete"], *words)
    assert done.returncode != 0
    assert message in done.stderr
    assert PASSWORD not in done.stderr
    assert not accidents.scratch.exists()
