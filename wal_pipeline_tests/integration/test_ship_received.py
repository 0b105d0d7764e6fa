"""Tests that a synchronous pg_receivewal on another host loses nothing: the database's host is gone with its disk."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psycopg
import pyrage
import pytest

from testbed.postgres_install import PostgresInstall
from testbed.s3_pair import S3Pair
from wal_pipeline.cli.group import run
from wal_pipeline.commands.ship.records import read_tails
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline_tests.support.restore_history import History, restored, wait_until

pytestmark = pytest.mark.integration
SLOT = "wal_pipeline_main"


def environment_of(history: History) -> dict[str, str]:
    """Return the settings of the receiving host, which is not the database's."""
    return {
        **history.environment,
        "PATH": os.environ["PATH"],
        "PG_WAL_ARCHIVE_DIR": str(history.folder / "spool"),
        "WAL_PIPELINE_CONNINFO": history.cluster.conninfo,
        "WAL_PIPELINE_STATE_DIR": str(history.folder / "state"),
        "WAL_PIPELINE_SHIP_INTERVAL_SECONDS": "0.5",
        "WAL_PIPELINE_SHIP_FROM": "pg_receivewal",
        "PGBINDIR": str(history.install.bin_folder),
    }


def encrypt(history: History) -> None:
    """Let everything be encrypted."""
    identity = pyrage.x25519.Identity.generate()
    history.environment["WAL_PIPELINE_AGE_RECIPIENTS"] = str(identity.to_public())
    key = history.folder / "identity"
    key.write_text(f"{identity}\n")
    key.chmod(0o644)
    history.folder.chmod(0o755)
    history.environment["WAL_PIPELINE_AGE_IDENTITY_FILE"] = str(key)


@contextmanager
def shipping(environment: dict[str, str]) -> Iterator["subprocess.Popen[str]"]:
    """Run ``wal-pipeline ship`` meanwhile, and end it as a service manager does."""
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "wal_pipeline.cli", "ship"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd="/",
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.communicate(timeout=60)
            finally:
                process.kill()


def write_until_lost(history: History, acknowledged: list[tuple[int, Lsn]]) -> None:
    """Commit rows one by one until the server is gone; note each that was acknowledged, and where WAL was before it."""
    with suppress(psycopg.OperationalError), history.cluster.connect() as connection:
        for number in range(1, 1_000_000):
            row = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
            assert row is not None
            connection.execute("INSERT INTO marks VALUES (%s)", [number])
            acknowledged.append((number, Lsn.parse(str(row[0]))))


@dataclass(frozen=True, slots=True)
class Case:
    """A server's version, its segment size in MB, and whether the stores hold encrypted objects."""

    major: int
    segment_mb: int
    encrypted: bool


CASES = [
    Case(18, 1, False),
    pytest.param(Case(18, 64, True), marks=pytest.mark.left_out),
    pytest.param(Case(15, 1, True), marks=pytest.mark.left_out),
    Case(15, 16, False),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.major}-{case.segment_mb}MB")
def test_nothing_acknowledged_is_lost_with_the_databases_host(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, s3_pair: S3Pair, case: Case
) -> None:
    """The server is killed while it commits, and its disk is gone: the stores have each acknowledged row."""
    major, segment_mb, encrypted = case.major, case.segment_mb, case.encrypted
    install: PostgresInstall = request.getfixturevalue(f"postgres{major}")
    with History.begin(install, s3_pair, wal_segment_size_mb=segment_mb) as history:
        if encrypted:
            encrypt(history)
        history.back_up()
        environment = environment_of(history)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert run(["slot", "make"]) == 0
        acknowledged: list[tuple[int, Lsn]] = []
        with shipping(environment):
            wait_until(lambda: len(read_tails(history.pipeline.catalog.values, ("r2", "b2"))) == 2)
            history.cluster.psql(f"ALTER SYSTEM SET synchronous_standby_names = '{SLOT}'")
            history.cluster.psql("SELECT pg_reload_conf()")
            state = "SELECT sync_state FROM pg_stat_replication"
            wait_until(lambda: history.cluster.value(state) == "sync")
            writer = threading.Thread(target=write_until_lost, args=(history, acknowledged))
            writer.start()
            wait_until(lambda: len(acknowledged) > 500)
            history.cluster.kill()
            writer.join(60)
            last = acknowledged[-1][1]
            wait_until(
                lambda: all(
                    tail.shipped_lsn is not None and tail.shipped_lsn > last
                    for tail in read_tails(history.pipeline.catalog.values, ("r2", "b2")).values()
                )
            )
        history.lose()
        with restored(history) as found:
            there = {int(number) for number in found.cluster.psql("SELECT n FROM marks").split()}
            assert found.balances_agree()
    assert {number for number, _ in acknowledged} <= there
