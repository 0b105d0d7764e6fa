"""Tests that an accident of which nobody knows more than the time comes undone, while the cluster goes on.

One living server for each version has five accidents under pgbench, one after the other. Each time ``find`` is told ten
minutes and nothing else, and the line that it prints last, with a destination, brings every row back.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, postgres_user
from testbed.processes import ChildProcess
from testbed.s3_pair import S3Pair
from wal_pipeline_tests.support.restore_history import History

pytestmark = pytest.mark.integration

_DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "recovery.md"
_BLOCK: Final = re.compile(r"<!-- tested on a living server -->\n```sh\n(.*?)```", re.DOTALL)
_COMMAND: Final = (sys.executable, "-P", "-m", "wal_pipeline.cli")
_WINDOW: Final = timedelta(minutes=10)
_TABLES: Final = """
CREATE TABLE public.orders (id serial PRIMARY KEY, label text NOT NULL, at timestamptz);
CREATE TABLE public.prices (id int PRIMARY KEY, cents int NOT NULL);
CREATE TABLE public.visits (id int, page text);
CREATE TABLE public."Invoices" (id int PRIMARY KEY, body text);
INSERT INTO public.orders (label, at) SELECT 'order ' || i, now() FROM generate_series(1, 3000) i;
INSERT INTO public.prices SELECT i, i * 7 FROM generate_series(1, 2500) i;
INSERT INTO public.visits SELECT i, md5(i::text) FROM generate_series(1, 2000) i;
INSERT INTO public."Invoices" SELECT i, repeat(md5(i::text), 100) FROM generate_series(1, 1500) i;
"""
_SHOP: Final = """
CREATE TABLE public.orders (id int PRIMARY KEY, label text);
CREATE TABLE public.wares (id int PRIMARY KEY, name text);
INSERT INTO public.wares SELECT i, 'ware ' || i FROM generate_series(1, 1000) i;
"""


@dataclass(frozen=True, slots=True)
class Accident:
    """What somebody did. ``change`` came shortly before, after the base backup; ``table`` is what it hurt.

    ``merge`` puts the rows back from the schema ``{back}``, as the document says; ``{xid}`` is the one that was found.
    """

    change: str
    sql: str
    table: str
    merge: str = ""
    database: str = "postgres"
    target: str = "postgres"


ACCIDENTS: Final = {
    "DELETE without WHERE": Accident(
        "INSERT INTO public.orders (label) VALUES ('the last one')",
        "DELETE FROM public.orders",
        "public.orders",
        "INSERT INTO public.orders SELECT * FROM {back}.orders ON CONFLICT (id) DO NOTHING",
    ),
    "UPDATE of all rows": Accident(
        "UPDATE public.prices SET cents = 1 WHERE id = 7",
        "UPDATE public.prices SET cents = 0",
        "public.prices",
        "UPDATE public.prices p SET cents = r.cents FROM {back}.prices r WHERE p.id = r.id AND p.xmin = '{xid}'",
    ),
    "TRUNCATE": Accident(
        "DELETE FROM public.visits WHERE id % 500 = 0",
        "TRUNCATE public.visits",
        "public.visits",
        "INSERT INTO public.visits SELECT * FROM {back}.visits",
    ),
    "DROP TABLE": Accident(
        'ALTER TABLE public."Invoices" ADD paid boolean DEFAULT true',
        'DROP TABLE public."Invoices"',
        'public."Invoices"',
        'ALTER TABLE {back}."Invoices" SET SCHEMA public',
    ),
    "DROP DATABASE": Accident(
        "INSERT INTO public.wares VALUES (0, 'the last one')",
        "DROP DATABASE shop",
        "public.wares",
        database="shop",
        target="again",
    ),
}


@dataclass(slots=True)
class Desk:
    """A living server under pgbench, and the commands of a person who sits before it."""

    history: History
    load: ChildProcess

    @property
    def cluster(self) -> PostgresCluster:
        """The living server."""
        return self.history.cluster

    @property
    def folder(self) -> Path:
        """The person's own folder, in which no command may leave a thing."""
        return self.history.folder / "desk"

    def rows(self, table: str, database: str = "postgres") -> str:
        """Return the number of a table's rows, and one digest of all of them in order."""
        counted = "SELECT count(*) || ' ' || md5(string_agg(t::text, E'\\n' ORDER BY t::text)) FROM"
        return self.cluster.psql(f"{counted} {table} t", database=database)

    def now(self) -> datetime:
        """Return the server's time."""
        return datetime.fromisoformat(self.cluster.value("SELECT clock_timestamp()"))

    def run(self, *words: str) -> list[dict[str, Any]]:
        """Run a command with ``--json``, and return the objects that it prints."""
        done = self._run([*_COMMAND, *words, "--json"])
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def refusal(self, *words: str) -> str:
        """Run a command that fails, and return what it says."""
        done = self._run([*_COMMAND, *words])
        assert done.returncode == 1, done.stdout
        return done.stderr

    def type(self, block: str) -> str:
        """Type a document's block, and return what it prints."""
        done = self._run(["bash", "-euo", "pipefail", "-c", block])
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _run(self, words: list[str]) -> "subprocess.CompletedProcess[str]":
        """Run a program as PostgreSQL's user, with the settings of the cluster's host."""
        history = self.history
        bin_folder = history.install.bin_folder
        return subprocess.run(
            postgres_user().wrap(words),
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
            cwd="/",
            env={
                **history.environment,
                **history.cluster.pg_environment,
                "PATH": f"{bin_folder}:{os.environ['PATH']}",
                "PGBINDIR": str(bin_folder),
                "WAL_PIPELINE_CONNINFO": history.cluster.conninfo,
                "WAL_PIPELINE_STATE_DIR": str(self.folder / "state"),
                "WAL_PIPELINE_CLONE_FOLDER": str(self.folder / "clones"),
                "WAL_PIPELINE_DRILL_FOLDER": str(self.folder / "drill"),
            },
        )


@pytest.fixture(scope="module")
def desk(postgres_version: PostgresInstall, s3_pair: S3Pair) -> Iterator[Desk]:
    """A cluster with one base backup, and pgbench on its own tables until the last test."""
    with History.begin(postgres_version, s3_pair) as history:
        folder, user = history.folder / "desk", postgres_user()
        folder.mkdir()
        os.chown(folder, user.uid, user.gid)
        history.cluster.psql(_TABLES)
        history.cluster.psql("CREATE DATABASE shop")
        history.cluster.psql("CREATE DATABASE again")
        history.cluster.psql(_SHOP, database="shop")
        history.back_up()
        load = history.cluster.start_pgbench(seconds=3600, clients=2, rate=60)
        yield Desk(history, load)
        load.kill()


def test_the_chapter_is_true(desk: Desk) -> None:
    """Its commands, typed one after the other with the real times and numbers, put deleted orders back.

    One order came back by hand meanwhile, changed, and another is new: both stay as they are.
    """
    if desk.history.install.version != 18:
        pytest.skip("the commands are those of every version")
    began_at = desk.now()
    desk.cluster.psql(
        "INSERT INTO public.orders SELECT i, 'order ' || i FROM generate_series(1, 400) i", database="shop"
    )
    before = desk.rows("public.orders", "shop")
    doing = "BEGIN; SELECT pg_current_xact_id(); DELETE FROM public.orders; COMMIT;"
    xid = desk.cluster.psql(doing, database="shop")
    committed_at = desk.cluster.psql(f"SELECT pg_xact_commit_timestamp('{xid}')", database="shop")
    desk.cluster.psql("INSERT INTO public.orders VALUES (7, 'by hand'), (5000, 'new')", database="shop")
    desk.history.end()

    clones = desk.folder / "clones"
    true = {
        "2026-11-22 17:35:00+00": began_at.isoformat(),
        "2026-11-22 17:45:00+00": (began_at + _WINDOW).isoformat(),
        "2026-11-22T17:41:07.330561+00:00": datetime.fromisoformat(committed_at).astimezone(UTC).isoformat(),
        "812": xid,
        "/var/lib/wal-pipeline/clones": str(clones),
        "-p 53991": f"-p $(basename {clones}/look/socket/.s.PGSQL.*[0-9] | cut -d. -f4)",
    }
    said = []
    for block in _BLOCK.findall(_DOCUMENT.read_text(encoding="utf-8")):
        typed = re.sub("|".join(map(re.escape, true)), lambda found: true[found[0]], block)
        said.append(desk.type(typed))

    found, looked, rescued, merged, _ = said
    assert f"Look at transaction {xid} first: of all it deleted and updated most rows: 400." in found
    assert f"rescue --table public.orders --database shop --before-xid {xid} --committed-at" in found
    assert "400\n" in looked
    assert "rescued.orders: 400 rows, as counted on both sides" in rescued
    assert "401\n" in merged
    as_before = "DELETE FROM public.orders WHERE id = 5000; UPDATE public.orders SET label = 'order 7' WHERE id = 7"
    desk.cluster.psql(as_before, database="shop")
    assert desk.rows("public.orders", "shop") == before


@pytest.mark.parametrize(
    "name",
    [*list(ACCIDENTS)[:3], *(pytest.param(name, marks=pytest.mark.left_out) for name in list(ACCIDENTS)[3:])],
)
def test_an_accident_is_found_by_its_time_and_undone(desk: Desk, name: str) -> None:
    """The transaction that ``find`` names is the right one, and every row of just before it is back beside the rest."""
    accident, cluster = ACCIDENTS[name], desk.cluster
    began_at = desk.now()
    cluster.psql(accident.change, database=accident.database)
    before = desk.rows(accident.table, accident.database)
    cluster.psql(accident.sql)
    desk.history.end()

    window = ("--from", began_at.isoformat(), "--to", (began_at + _WINDOW).isoformat())
    *_, summary = desk.run("find", *window)
    words = shlex.split(summary["rescue"])
    assert words[:2] == ["wal-pipeline", "rescue"]
    schema = f"back {name}".lower()
    (answer,) = desk.run(*_into(words[1:], accident), "--as", schema)

    assert [one["name"] for one in answer["tables"]] == [accident.table]
    quoted = accident.table.partition(".")[2]
    assert desk.rows(f'"{schema}".{quoted}', accident.target) == before
    assert {path.name for path in desk.folder.iterdir()} <= {"state", "clones"}
    assert desk.load.is_running
    if accident.merge:
        cluster.psql(accident.merge.format(back=f'"{schema}"', xid=summary["suspect_xid"]))
        assert desk.rows(accident.table) == before
    else:
        late = ("rescue", "--table", accident.table, "--database", "shop", "--into", "dbname=again", "--as", "late")
        said = desk.refusal(*late, "--before-xid", str(summary["suspect_xid"]))
        assert "database 'shop' has no files at that moment: DROP DATABASE removes them before its commit" in said
        assert desk.cluster.psql("SELECT to_regnamespace('late') IS NULL", database="again") == "t"


def _into(words: list[str], accident: Accident) -> list[str]:
    """Let the printed line load its rows: that of a database ends with a dump, which one table of it needs not."""
    if "--output" not in words:
        return words
    output = words.index("--output")
    whole = words.index("--whole-database")
    words[output : output + 2] = ["--into", f"dbname={accident.target}"]
    words[whole : whole + 1] = ["--table", accident.table]
    return words


def test_pgbench_has_lost_nothing(desk: Desk) -> None:
    """It ran through all of it: no transaction failed, and the server has each that it counted."""
    assert desk.load.is_running
    assert desk.load.stop(with_signal=signal.SIGALRM) == 0  # its own timer's signal: it ends as after --time
    said = dict(re.findall(r"^number of ([a-z ]+): (\d+)", desk.load.log.read_text(), re.MULTILINE))
    assert said["failed transactions"] == "0"
    made = said["transactions actually processed"]
    assert desk.cluster.value("SELECT count(*) FROM pgbench_history") == made
    assert int(made) > 0
