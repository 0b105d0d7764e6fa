"""Tests that a lost host costs no commit that was shipped: server, spool and records are gone, the stores are left."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import psycopg
import pyrage
import pytest

from testbed.postgres_install import PostgresInstall
from testbed.s3_pair import S3Pair
from wal_pipeline.commands.ship.records import ShippedTail, read_tails
from wal_pipeline_tests.support.restore_history import History, restored, wait_until

pytestmark = pytest.mark.integration
STORES = ("r2", "b2")


@dataclass
class Writer:
    """Commits rows one by one, and notes the server's clock after each acknowledgement."""

    history: History
    acknowledged: list[tuple[int, datetime]] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def write(self) -> None:
        """Write until it is stopped, or the server is gone."""
        try:
            with self.history.cluster.connect() as connection:
                number = 0
                while not self._stopped.is_set():
                    number += 1
                    connection.execute("INSERT INTO marks VALUES (%s)", [number])
                    row = connection.execute("SELECT clock_timestamp()").fetchone()
                    assert row is not None
                    self.acknowledged.append((number, row[0]))  # type: ignore[arg-type]
        except psycopg.OperationalError:
            return  # it was killed

    @contextmanager
    def running(self) -> Iterator[None]:
        """Write meanwhile, and archive what the server finishes."""
        threads = [threading.Thread(target=self.write), threading.Thread(target=self._archive)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            for thread in threads:
                thread.join(60)

    def _archive(self) -> None:
        while not self._stopped.wait(0.5):
            self.history.archive()


def environment_of(history: History, **settings: str) -> dict[str, str]:
    """Return the settings of the host that is lost later."""
    return {
        **history.environment,
        "PATH": os.environ["PATH"],
        "PG_WAL_ARCHIVE_DIR": str(history.folder / "spool"),
        "WAL_PIPELINE_CONNINFO": history.cluster.conninfo,
        "WAL_PIPELINE_STATE_DIR": str(history.folder / "state"),
        "WAL_PIPELINE_SHIP_INTERVAL_SECONDS": "0.5",
        "PGBINDIR": str(history.install.bin_folder),
        **settings,
    }


@contextmanager
def shipping(environment: Mapping[str, str]) -> Iterator["subprocess.Popen[str]"]:
    """Run ``wal-pipeline ship`` meanwhile."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "wal_pipeline.cli", "ship", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=dict(environment),
        cwd="/",
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def tails_of(history: History) -> dict[str, ShippedTail]:
    """Return what the records say of each store."""
    return read_tails(history.pipeline.catalog.values, STORES)


def test_all_that_was_complete_is_restored(postgres_version: PostgresInstall, s3_pair: S3Pair) -> None:
    """Everything is killed under load. Each row that a store was said to hold is there, and only few others lack."""
    with History.begin(postgres_version, s3_pair) as history:
        history.back_up()
        writer = Writer(history)
        with shipping(environment_of(history)) as process, writer.running():
            wait_until(
                lambda: len(tails_of(history)) == 2 and all(one.complete_at for one in tails_of(history).values())
            )
            begun = len(writer.acknowledged)
            wait_until(lambda: len(writer.acknowledged) > begun + 300)
            time.sleep(2)  # at an interval of half a second some pieces follow
            process.kill()
            history.cluster.kill()
        tails = tails_of(history)
        complete_at = [one.complete_at for one in tails.values() if one.complete_at is not None]
        promised = [number for number, at in writer.acknowledged if at <= max(complete_at)]
        history.lose()
        with restored(history) as found:
            there = {int(number) for number in found.cluster.psql("SELECT n FROM marks").split()}
            assert found.balances_agree()
    assert len(complete_at) == 2
    assert len(promised) > 300
    assert set(promised) <= there


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_a_clean_end_leaves_nothing_behind(
    postgres_version: PostgresInstall, s3_pair: S3Pair, encrypted: bool, tmp_path: Path
) -> None:
    """SIGTERM ships what was flushed until then: every acknowledged row is back, from each store."""
    with History.begin(postgres_version, s3_pair) as history:
        if encrypted:
            identity = pyrage.x25519.Identity.generate()
            history.environment["WAL_PIPELINE_AGE_RECIPIENTS"] = str(identity.to_public())
            key = history.folder / "identity"
            key.write_text(f"{identity}\n")
            key.chmod(0o644)
            history.folder.chmod(0o755)
            history.environment["WAL_PIPELINE_AGE_IDENTITY_FILE"] = str(key)
        history.back_up()
        writer = Writer(history)
        with shipping(environment_of(history)) as process:
            with writer.running():
                wait_until(lambda: len(tails_of(history)) == 2 and len(writer.acknowledged) > 200)
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=60)
            assert process.returncode == 0, output
        history.cluster.kill()
        history.lose()
        for store in STORES:
            with restored(history, f"--store={store}") as found:
                there = {int(number) for number in found.cluster.psql("SELECT n FROM marks").split()}
                assert {number for number, _ in writer.acknowledged} <= there
