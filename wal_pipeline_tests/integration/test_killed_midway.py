"""Tests that a base backup and a restore that were killed go on where they were, and end right."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from testbed.fault_proxy import FaultProxy
from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, owned_folder, postgres_user
from testbed.s3_pair import S3Pair
from wal_pipeline_tests.support.restore_history import History, restored

pytestmark = [pytest.mark.integration, pytest.mark.left_out, pytest.mark.timeout(900)]

_TABLES = 40
_ROWS = 1_200_000  # of all tables: some 160 MB that do not compress well
_SHARES = (1, 2, 3, 4)  # fifths
_LEAST_SAVED_FROM = 3
_MOST_SHARE = 0.6
_POLL_SECONDS = 0.01
_MANY_TABLES = f"""
CREATE TABLE data (i int, label text) PARTITION BY HASH (i);
DO $$ BEGIN
  FOR n IN 0..{_TABLES - 1} LOOP
    EXECUTE format('CREATE TABLE data%s PARTITION OF data FOR VALUES WITH (MODULUS {_TABLES}, REMAINDER %s)', n, n);
  END LOOP;
END $$;
"""
_ONE_TABLE = "CREATE TABLE data (i int, label text);"  # one file, in many more volumes than there are workers
_DATA = f"""
INSERT INTO data SELECT i, md5(i::text) || md5((i * 7)::text) FROM generate_series(1, {_ROWS}) i;
CHECKPOINT;
"""  # noqa: S608 - numbers
_DIGEST = "SELECT count(*), sum(hashtextextended(label, i)) FROM data"


@dataclass(slots=True)
class Midway:
    """A cluster whose stores are behind proxies that count what is sent, and the bytes of a whole base backup."""

    history: History
    proxies: tuple[FaultProxy, ...]
    environment: dict[str, str]
    whole_bytes: int = 0
    digest: str = ""
    parents: list[str] = field(default_factory=list)

    def sent_bytes(self) -> int:
        """Return the bytes of base backups that were sent to both stores."""
        return sum(
            int(request.headers.get("content-length", 0))
            for proxy in self.proxies
            for request in proxy.requests
            if request.method == "PUT" and "/base/" in request.target
        )

    def forget(self) -> None:
        """Forget what was sent."""
        for proxy in self.proxies:
            proxy.forget()

    def command(self, *words: str, more: dict[str, str] | None = None) -> "subprocess.Popen[str]":
        """Start the program as PostgreSQL's user."""
        return subprocess.Popen(
            postgres_user().wrap([sys.executable, "-P", "-m", "wal_pipeline.cli", *words]),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            env={**self.environment, **(more or {})},
        )

    def must(self, *words: str) -> str:
        """Run the program to its end, which must be a good one."""
        process = self.command(*words)
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        return output


@pytest.fixture(scope="module", params=[_MANY_TABLES, _ONE_TABLE], ids=["many_tables", "one_table"])
def midway(request: pytest.FixtureRequest, postgres18: PostgresInstall, s3_pair: S3Pair) -> Iterator[Midway]:
    """A cluster that is made up of many tables, or of one that is most of it."""
    with History.begin(postgres18, s3_pair, wal_segment_size_mb=16) as history, ExitStack() as stack:
        history.cluster.psql(request.param + _DATA)
        proxies = tuple(stack.enter_context(FaultProxy(server)) for server in s3_pair.servers)
        state = history.folder / "midway"
        state.mkdir()
        os.chown(state, postgres_user().uid, postgres_user().gid)
        environment = {
            **history.environment,
            "R2_ENDPOINT_URL": proxies[0].endpoint_url,
            "B2_ENDPOINT_URL": proxies[1].endpoint_url,
            "PATH": os.environ["PATH"],
            "PGDATA": str(history.cluster.pgdata),
            "PGBINDIR": str(history.install.bin_folder),
            "PG_WAL_ARCHIVE_DIR": str(history.folder / "spool"),
            "WAL_PIPELINE_CONNINFO": history.cluster.conninfo,
            "WAL_PIPELINE_STATE_DIR": str(state),
            "WAL_PIPELINE_BACKUP_METHOD": "local",
            "WAL_PIPELINE_BASE_BACKUP_WORKERS": "2",  # processes, which must not outlive what is killed
            "WAL_PIPELINE_BASE_BACKUP_VOLUME_MIB": "1",
            "WAL_PIPELINE_READ_BACK": "false",
        }
        scene = Midway(history, proxies, environment, digest=history.cluster.value(_DIGEST))
        scene.must("backup")
        scene.whole_bytes = scene.sent_bytes()
        yield scene


@pytest.mark.parametrize("fifth", _SHARES)
def test_a_killed_base_backup_goes_on(midway: Midway, fifth: int) -> None:
    """The next one ends, brings every row back, and sends little again of what was there."""
    midway.forget()
    limit = midway.whole_bytes * fifth // 5
    killed_when(midway.command("backup"), lambda: midway.sent_bytes() >= limit)
    midway.forget()
    midway.must("backup")
    sent = midway.sent_bytes()
    if fifth >= _LEAST_SAVED_FROM:
        assert sent < _MOST_SHARE * midway.whole_bytes
    midway.history.archive()
    with restored(midway.history) as found:
        assert found.cluster.value(_DIGEST) == midway.digest


@contextmanager
def machine(midway: Midway) -> Iterator[PostgresCluster]:
    """A machine to restore to, with the stores' credentials."""
    install, settings = midway.history.install, {"archive_mode": "off"}
    cluster = PostgresCluster(install, owned_folder("midway"), settings=settings, env=midway.environment)
    try:
        yield cluster
    finally:
        cluster.remove()


@pytest.mark.parametrize("fifth", _SHARES)
def test_a_killed_restore_goes_on(midway: Midway, fifth: int) -> None:
    """Nothing can be started over what it left; the same command then ends it, and fetches only what lacks."""
    with machine(midway) as cluster:
        words = ("restore", "--pgdata", str(cluster.pgdata), "--no-archiving", "--json")
        whole = int(json.loads(midway.must("restore", "--plan", *words[1:]))["download_bytes"])
        limit = size_of(midway.history.cluster.pgdata / "base") * fifth // 5
        killed_when(midway.command(*words), lambda: size_of(cluster.pgdata / "base") >= limit)
        assert not (cluster.pgdata / "global/pg_control").exists()
        fetched = int(json.loads(midway.must(*words))["downloaded_bytes"])
        if fifth >= _LEAST_SAVED_FROM:
            assert fetched < _MOST_SHARE * whole
        cluster.start(wait=False)
        cluster.wait_promoted(timeout_seconds=120)
        assert cluster.value(_DIGEST) == midway.digest


def killed_when(process: "subprocess.Popen[str]", is_so: Callable[[], bool]) -> None:
    """Kill a process and its children once something is so; it must not have ended before."""
    with process:
        while not is_so():
            assert process.poll() is None, process.communicate()
            time.sleep(_POLL_SECONDS)
        process.kill()
        process.communicate()


def size_of(folder: Path) -> int:
    """Return the bytes of the files in a folder and below it; none where it is not there."""
    found = 0
    for path in folder.rglob("*"):
        try:
            found += path.lstat().st_size if path.is_file() else 0
        except OSError:
            continue  # gone meanwhile
    return found
