"""Tests that a lost host costs no commit that was shipped: server, spool and records are gone, the stores are left."""

import json
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

import psycopg
import pyrage
import pytest

from testbed.postgres_install import PostgresInstall
from testbed.s3_pair import S3Pair
from wal_pipeline.commands.ship.records import ShippedTail, read_tails
from wal_pipeline.settings import load_settings
from wal_pipeline.stores.s3.store import S3Store
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wiring.pipeline import Pipeline
from wal_pipeline.wiring.ship import ship_lock, ship_now
from wal_pipeline_tests.support.restore_history import History, restored, wait_until
from wal_pipeline_tests.support.warm_commands import run_warm

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


@pytest.mark.parametrize(
    ("size", "encrypted"),
    [
        pytest.param(1, False, id="1MB"),
        pytest.param(16, True, id="16MB-age", marks=pytest.mark.left_out),
        pytest.param(64, False, id="64MB", marks=pytest.mark.left_out),
    ],
)
def test_a_clean_end_leaves_nothing_behind(
    postgres_version: PostgresInstall, s3_pair: S3Pair, size: int, encrypted: bool
) -> None:
    """SIGTERM ships what was flushed until then: every acknowledged row is back, from each store."""
    with History.begin(postgres_version, s3_pair, wal_segment_size_mb=size) as history:
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
        if encrypted:
            numbers = [number for number, _ in writer.acknowledged[:-1]]
            assert rescued_marks(history, writer.acknowledged[-2][1]) == numbers


def rescued_marks(history: History, at: datetime) -> list[int]:
    """Return the rows that a rescue by this process's user brings from the stores when the server is lost."""
    output, scratch = history.folder / "marks.dump", history.folder / "scratch"
    environment = environment_of(history, WAL_PIPELINE_CONNINFO="host=/nowhere")
    words = (
        "--table=public.marks",
        f"--to-time={at.isoformat()}",
        f"--output={output}",
        f"--folder={scratch}",
        "--json",
    )
    done = run_warm("rescue", *words, env=environment, timeout_seconds=240)
    assert done.returncode == 0, done.stderr
    assert not scratch.exists()
    listed = [str(history.install.program("pg_restore")), "--data-only", "--table=marks", "--file=-", str(output)]
    text = subprocess.run(listed, capture_output=True, text=True, check=True).stdout
    rows = text.partition("FROM stdin;\n")[2].partition("\n\\.")[0].splitlines()
    assert json.loads(done.stdout)["rows"] == len(rows)
    return sorted(map(int, rows))


def requests_of(pipeline: Pipeline) -> dict[str, int]:
    """Return how many requests each store got, by its own meter."""
    stores = {name: store for name, store in pipeline.stores.items() if isinstance(store, S3Store)}
    assert set(stores) == set(STORES)
    return {name: sum(store.meter.totals().requests.values()) for name, store in stores.items()}


def test_a_quiet_server_costs_no_request(postgres18: PostgresInstall, s3_pair: S3Pair) -> None:
    """The meters of both stores stand still while nothing is written, over tens of looks."""
    with History.begin(postgres18, s3_pair) as history:
        history.mark("first")
        pipeline = Pipeline(load_settings(environment_of(history, WAL_PIPELINE_SHIP_INTERVAL_SECONDS="0.1")))
        stopped = threading.Event()
        shipping_now = threading.Thread(target=lambda: list(ship_now(pipeline, stop=stopped.is_set)))
        shipping_now.start()
        try:
            while True:  # the server writes a record of its own now and then, after others
                flushed = Lsn.parse(history.cluster.value("SELECT pg_current_wal_flush_lsn()"))
                wait_until(lambda: {one.shipped_lsn for one in tails_of(history).values()} == {flushed})  # noqa: B023
                before = requests_of(pipeline)
                time.sleep(3)
                if flushed == Lsn.parse(history.cluster.value("SELECT pg_current_wal_flush_lsn()")):
                    break
            assert requests_of(pipeline) == before
        finally:
            stopped.set()
            shipping_now.join(60)


def test_a_second_shipper_is_refused(postgres18: PostgresInstall, s3_pair: S3Pair) -> None:
    """The command says who has the lock, and ends with exit code 1; so it does where shipping is off."""
    with History.begin(postgres18, s3_pair) as history:
        environment = environment_of(history)
        history.archive()
        with shipping(environment):
            lock = ship_lock(Pipeline(load_settings(environment)))
            wait_until(lock.is_held)
            second = run_ship(environment)
        assert (second.returncode, second.stderr.splitlines()[0]) == (
            1,
            f"ERROR: the WAL of cluster 'main' is being shipped by another process, which holds '{lock.path}'",
        )
        off = run_ship({**environment, "WAL_PIPELINE_SHIP_INTERVAL_SECONDS": "off"})
        assert (off.returncode, off.stderr.splitlines()[0]) == (
            1,
            "ERROR: the open segment is not shipped: WAL_PIPELINE_SHIP_INTERVAL_SECONDS is 'off'",
        )
        done = run_ship(environment)
        assert (done.returncode, done.stderr) == (0, "")
        told = json.loads(done.stdout)
        assert {tail["shipped_lsn"] for tail in told["stores"].values()} == {told["flushed_lsn"]}


def run_ship(environment: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run ``wal-pipeline ship --seconds 1 --json``."""
    return run_warm("ship", "--seconds", "1", "--json", env=environment)
