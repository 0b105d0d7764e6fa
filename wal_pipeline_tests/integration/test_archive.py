"""Tests the archiving run on real S3 servers behind a fault proxy, with WAL of a real PostgreSQL."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.fault_proxy import FaultProxy
from testbed.faults import (
    ERROR_IN_200,
    SLOW_DOWN,
    Delay,
    Fault,
    Flip,
    ResetAfter,
    ResetInBody,
    StoreFlipped,
    StoreHalf,
    Swallow,
    Truncate,
)
from testbed.postgres_install import PostgresInstall
from testbed.s3_pair import S3Buckets, S3Pair
from wal_pipeline.archive.alerts import AlertKind
from wal_pipeline.archive.records import CommitTimes, CopyStatus
from wal_pipeline.cli.group import run as run_cli
from wal_pipeline.commands.archive_push.alerts import ArchiveAlerts
from wal_pipeline.commands.archive_push.events import ArchiveEvent, CopyFailed, CopyVerified, FileReleased
from wal_pipeline.commands.archive_push.flow_control import ArchiveOptions
from wal_pipeline.settings import load_settings
from wal_pipeline.stores.s3.client import Connection
from wal_pipeline.stores.s3.profiles import PROFILES
from wal_pipeline.stores.s3.store import open_s3_store
from wal_pipeline.wiring.pipeline import Pipeline
from wal_pipeline_tests.support.archive_scene import ArchiveScene, WatchedStore, contents
from wal_pipeline_tests.support.archive_wal import RealWal, real_wal
from wal_pipeline_tests.support.segments import name_of, segment_bytes, spool_segments

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def wal(postgres18: PostgresInstall) -> Iterator[RealWal]:
    with real_wal(postgres18) as made:
        yield made


@pytest.fixture
def proxy(s3_pair: S3Pair) -> Iterator[FaultProxy]:
    """A proxy before r2."""
    with FaultProxy(s3_pair.r2) as made:
        yield made


@pytest.fixture
def scene(tmp_path: Path, s3_pair: S3Pair, s3_buckets: S3Buckets, proxy: FaultProxy) -> Iterator[ArchiveScene]:
    """An archiver with r2 behind the proxy, and one attempt for each request."""
    stores = {
        "r2": s3_store("r2", s3_pair, s3_buckets, endpoint_url=proxy.endpoint_url),
        "b2": s3_store("b2", s3_pair, s3_buckets),
    }
    made = ArchiveScene(tmp_path, stores, options=ArchiveOptions(concurrency=2))
    yield made
    made.catalog.close()


def s3_store(name: str, pair: S3Pair, buckets: S3Buckets, **changed: Any) -> WatchedStore:
    """Return one store of the pair. ``changed`` replaces correct values."""
    server = {"r2": pair.r2, "b2": pair.b2}[name]
    how: dict[str, Any] = {
        "bucket": getattr(buckets, name),
        "access_key_id": server.access_key_id,
        "secret_access_key": server.secret_access_key,
        "endpoint_url": server.endpoint_url,
        "region": "us-east-005",
        "ca_bundle": server.ca_bundle,
        "concurrency": 4,
        "max_attempts": 1,
        "connect_timeout_seconds": 1.0,
        "read_timeout_seconds": 20.0,
    }
    return WatchedStore(open_s3_store(PROFILES[name], Connection(store=name, **(how | changed))))


def plain(scene: ArchiveScene, pair: S3Pair, buckets: S3Buckets) -> dict[str, dict[str, bytes]]:
    """Return the files on both servers, not through the proxy."""
    return {name: contents(s3_store(name, pair, buckets)) for name in scene.stores}


def failures(events: list[ArchiveEvent]) -> list[CopyFailed]:
    return [event for event in events if isinstance(event, CopyFailed)]


def test_real_wal_reaches_both_stores(
    tmp_path: Path, s3_pair: S3Pair, s3_buckets: S3Buckets, wal: RealWal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command stores every file that a server archives, with the commit times that pg_waldump reads."""
    (tmp_path / "spool").mkdir()
    made = wal.fill(tmp_path / "spool")
    settings = environment(tmp_path, s3_pair, s3_buckets) | {"WAL_PIPELINE_CODEC": "gzip"}
    monkeypatch.chdir(tmp_path)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert run_cli(["archive", "--json"]) == 0
    pipeline = Pipeline(load_settings(settings))
    for store in pipeline.stores.values():
        assert contents(store) == made
    segments = [file for file in pipeline.catalog.files.files() if file.kind == "segment"]
    assert {file.server_major for file in segments} == {wal.major}
    assert any(file.commit_times is CommitTimes.KNOWN and file.last_commit_at is not None for file in segments)
    assert {file.system_identifier for file in segments} == {wal.system_identifier}
    kinds = {file.kind for file in pipeline.catalog.files.files()}
    assert {"segment", "history", "backup_history"} <= kinds
    key = next(copy.object_key for copy in pipeline.catalog.files.copies() if copy.name == segments[0].name)
    opened = subprocess.run(
        ["gunzip", "-c"], input=s3_pair.r2.read(s3_buckets.r2, key), capture_output=True, check=True
    )
    assert opened.stdout == made[segments[0].name]


def down(proxy: FaultProxy) -> None:
    proxy.down()


def blackhole(proxy: FaultProxy) -> None:
    proxy.blackhole()


def overloaded(proxy: FaultProxy) -> None:
    proxy.add(SLOW_DOWN, times=None)


@pytest.mark.parametrize("outage", [down, blackhole, overloaded])
def test_r2_down_for_a_while(
    outage: Callable[[FaultProxy], None],
    scene: ArchiveScene,
    proxy: FaultProxy,
    s3_pair: S3Pair,
    s3_buckets: S3Buckets,
) -> None:
    """b2 gets every file, the spool keeps them, and an alert opens; when r2 has caught up, the alert is resolved."""
    alerts = ArchiveAlerts(scene.catalog, scene.clock)
    scene.stores["r2"] = s3_store(
        "r2",
        s3_pair,
        s3_buckets,
        endpoint_url=proxy.endpoint_url,
        read_timeout_seconds=1.0 if outage is blackhole else 20,
    )
    outage(proxy)
    made: dict[str, bytes] = {}
    for turn in range(3):
        made |= spool_segments(scene.spool_folder, range(3 * turn + 1, 3 * turn + 4))
        for event in scene.archiver().drain():
            alerts.note(event)
        state = scene.catalog.stores.states()["r2"]
        assert state.consecutive_failures > turn  # a long run tries again
        assert contents(scene.stores["b2"]) == made
        assert scene.spooled() == sorted(made)
        assert scene.verified("b2") == set(made)
        assert scene.verified("r2") == set()
        active = [(alert.kind, alert.subject) for alert in scene.catalog.alerts.active()]
        assert active == ([(AlertKind.STORE_DOWN, "r2")] if state.consecutive_failures >= 3 else [])
        scene.settle()
    proxy.clear()
    scene.stores["r2"] = s3_store("r2", s3_pair, s3_buckets, endpoint_url=proxy.endpoint_url)
    for event in scene.archiver().drain():
        alerts.note(event)
    assert scene.spooled() == []
    assert plain(scene, s3_pair, s3_buckets) == {"r2": made, "b2": made}
    assert len(scene.stores["b2"].created) == len(made)
    assert scene.catalog.alerts.active() == []


@pytest.mark.parametrize("fault", [Swallow(), StoreHalf(), StoreFlipped()], ids=lambda fault: type(fault).__name__)
def test_a_lying_store_never_gets_a_file_released(
    fault: Fault, scene: ArchiveScene, proxy: FaultProxy, s3_pair: S3Pair, s3_buckets: S3Buckets
) -> None:
    """Reading back finds that a promised object was not stored, and the next run mends the copy."""
    made = spool_segments(scene.spool_folder, [1, 2])
    rule = proxy.add(fault, method="PUT", times=None)
    events = scene.run()
    assert rule.hits >= 2
    assert {event.store for event in failures(events)} == {"r2"}
    assert scene.spooled() == sorted(made)
    assert scene.verified("r2") == set()
    assert scene.verified("b2") == set(made)
    proxy.clear()
    scene.settle()
    scene.run()
    assert scene.spooled() == []
    assert plain(scene, s3_pair, s3_buckets) == {"r2": made, "b2": made}


@pytest.mark.parametrize(
    "fault",
    [ResetInBody(), ResetAfter(), ERROR_IN_200, Truncate(), Flip()],
    ids=lambda fault: type(fault).__name__,
)
def test_a_request_that_breaks_once(
    fault: Fault, scene: ArchiveScene, proxy: FaultProxy, s3_pair: S3Pair, s3_buckets: S3Buckets
) -> None:
    """After any fault of one request, two runs leave one good object for each file and an empty spool."""
    made = spool_segments(scene.spool_folder, [1, 2])
    method = "GET" if isinstance(fault, Truncate | Flip) else "PUT"
    rule = proxy.add(fault, method=method, key=f"{name_of(1)}.zst")
    scene.run()
    assert rule.hits == 1
    scene.settle()
    scene.run()
    assert scene.spooled() == []
    assert plain(scene, s3_pair, s3_buckets) == {"r2": made, "b2": made}


def test_a_store_with_latency_does_not_hold_back_the_other(
    scene: ArchiveScene, proxy: FaultProxy, s3_pair: S3Pair, s3_buckets: S3Buckets
) -> None:
    """b2 has every file while the slow r2 still lacks most of them."""
    made = spool_segments(scene.spool_folder, range(1, 31))
    proxy.add(Delay(0.7), method="PUT", times=None)
    order: list[str] = []
    for event in scene.archiver().drain():
        if isinstance(event, CopyVerified) and event.is_new:
            order.append(event.copy.store)
            if order.count("b2") == len(made):
                proxy.clear()
    last_b2 = len(order) - 1 - order[::-1].index("b2")
    assert order[:last_b2].count("r2") < len(made) // 2
    assert scene.spooled() == []
    assert plain(scene, s3_pair, s3_buckets) == {"r2": made, "b2": made}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"secret_access_key": "wrong-secret"}, "r2: "),
        ({"access_key_id": "AKIAWRONG"}, "r2: "),
        ({"bucket": "no-such-bucket-at-all"}, "no-such-bucket-at-all"),
    ],
)
def test_wrong_credentials_and_a_missing_bucket(
    wrong: dict[str, str], message: str, scene: ArchiveScene, s3_pair: S3Pair, s3_buckets: S3Buckets
) -> None:
    """The error names the wrong setting and shows no secret; the other store gets every file, and nothing is lost."""
    made = spool_segments(scene.spool_folder, [1, 2])
    scene.stores["r2"] = s3_store("r2", s3_pair, s3_buckets, **wrong)
    events = failures(scene.run())
    assert events
    assert message in events[0].message
    assert not any(secret in str(events) for secret in ("wrong-secret", s3_pair.r2.secret_access_key))
    assert contents(scene.stores["b2"]) == made
    assert scene.spooled() == sorted(made)
    copies = [copy for copy in scene.catalog.files.copies() if copy.store == "r2"]
    assert {copy.status for copy in copies} == {CopyStatus.FAILED}


def environment(folder: Path, pair: S3Pair, buckets: S3Buckets) -> dict[str, str]:
    """Return the settings of a cluster without a server."""
    return {
        **pair.store_environment(buckets),
        "WAL_PIPELINE_CA_BUNDLE": str(pair.r2.ca_bundle),
        "PG_WAL_ARCHIVE_DIR": str(folder / "spool"),
        "WAL_PIPELINE_STATE_DIR": str(folder / "state"),
        "WAL_PIPELINE_CODEC": "zstd",
        "WAL_PIPELINE_CONNINFO": "host=127.0.0.1 port=1 connect_timeout=1",
    }


# Bounds

_MEASURED = """
import json, sys
from pathlib import Path
from wal_pipeline.archive.records import Codec
from wal_pipeline.commands.archive_push.flow_control import ArchiveOptions
from wal_pipeline.commands.archive_push.events import FileReleased
from wal_pipeline_tests.support.archive_scene import ArchiveScene

scene = ArchiveScene(Path(sys.argv[1]), codec=Codec.LZ4, options=ArchiveOptions(concurrency=4))
released, peaks = 0, []
for event in scene.archiver().drain():
    if isinstance(event, FileReleased):
        released += 1
        status = Path("/proc/self/status").read_text()  # ru_maxrss would count the parent's peak before exec
        peaks.append(int(status.split("VmHWM:")[1].split()[0]))
print(json.dumps({"released": released, "early": peaks[len(peaks) // 5], "peak": peaks[-1]}))
"""


def test_memory_is_bounded() -> None:
    """Four workers with 16 MiB of incompressible segments stay under 512 MiB, however many files there are."""
    size = 16 << 20
    with tempfile.TemporaryDirectory(prefix="wal-pipeline-memory-") as folder:
        spool = Path(folder) / "spool"
        spool.mkdir()
        noise = os.urandom(size)
        for number in range(1, 25):
            (spool / name_of(number, size=size)).write_bytes(segment_bytes(number, size=size)[:40] + noise[40:])
        for number in range(25, 121):
            with (spool / name_of(number, size=size)).open("wb") as file:
                file.write(segment_bytes(number, size=size)[:40])
                file.truncate(size)
        finished = subprocess.run(
            [sys.executable, "-c", _MEASURED, folder], capture_output=True, text=True, check=True, timeout=200
        )
    found = json.loads(finished.stdout)
    assert found["released"] == 120
    assert found["peak"] < 512 * 1024
    assert found["peak"] - found["early"] < 32 * 1024


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_while_quarantining(tmp_path: Path) -> None:
    """A file that does not fit into the quarantine stays in the spool, and no half file is left behind."""
    scene = ArchiveScene(tmp_path)
    scene.quarantine_folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(scene.quarantine_folder)],
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        (scene.spool_folder / name_of(1)).write_bytes(segment_bytes(2))
        scene.run()
        scene.settle()
        made = spool_segments(scene.spool_folder, [3])
        events = scene.run()
        assert [event.file.name for event in events if isinstance(event, FileReleased)] == list(made)
        assert scene.spooled() == [name_of(1)]
        assert scene.quarantined() == []
        assert list(scene.quarantine_folder.iterdir()) == []
    finally:
        subprocess.run(["umount", str(scene.quarantine_folder)], check=True)
    scene.run()
    assert scene.spooled() == []
    assert len(scene.quarantined()) == 1
