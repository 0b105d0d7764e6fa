"""Tests a run that is killed at each step's boundary, and the run after it."""

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.postgres_install import PostgresInstall
from testbed.s3_pair import S3Buckets, S3Pair
from wal_pipeline.codec.encoder import Encoded, Encoder
from wal_pipeline_tests.support.archive_scene import ArchiveScene, contents
from wal_pipeline_tests.support.archive_wal import RealWal, real_wal
from wal_pipeline_tests.support.killed_archiver import Moment, Place, die_while_archiving
from wal_pipeline_tests.support.segments import history_bytes, spool_segments

STEPS = [
    "read",
    "compress",
    *(f"{step} {store}" for store in ("r2", "b2") for step in ("put", "publish", "open", "record")),
    "tell of copy",
    "release",
    "record release",
    "tell of release",
]
LATER_STEPS = ["put r2", "record b2", "release"]
MOMENTS = [
    *(Moment(step, when, 1 if step == "record release" else 2) for step in STEPS for when in ("before", "after")),
    *(Moment(step, when, 5) for step in LATER_STEPS for when in ("before", "after")),
]
S3_MOMENTS = [
    Moment("put r2", "before", 2),
    Moment("put b2", "after", 3),
    Moment("open r2", "after", 3),
    Moment("record b2", "before", 2),
    Moment("release", "before", 1),
    Moment("release", "after", 3),
]


@pytest.fixture(scope="module")
def wal(postgres18: PostgresInstall) -> Iterator[RealWal]:
    with real_wal(postgres18) as made:
        yield made


@pytest.mark.parametrize("moment", MOMENTS, ids=str)
def test_a_kill_at_any_step_loses_nothing(moment: Moment, quick_folder: Path) -> None:
    """At the kill each file is in the spool or on every store; the next run ends as if there had been no kill."""
    place = Place(quick_folder)
    scene = place.scene(CountingScene)
    made = spool_segments(scene.spool_folder, range(1, 6))
    made["00000002.history"] = history_bytes([1])
    (scene.spool_folder / "00000002.history").write_bytes(made["00000002.history"])
    check_kill(place, scene, made, moment)


@pytest.mark.integration
@pytest.mark.parametrize("moment", S3_MOMENTS, ids=str)
def test_a_kill_with_real_wal_on_real_servers(
    moment: Moment, quick_folder: Path, s3_pair: S3Pair, s3_buckets: S3Buckets, wal: RealWal
) -> None:
    """The same holds with a server's segments on two S3 servers, one of which keeps versions."""
    place = Place(quick_folder, s3_stores(s3_pair, s3_buckets), wal.system_identifier)
    scene = place.scene(CountingScene)
    check_kill(place, scene, wal.fill(scene.spool_folder), moment)
    # b2 has no conditional put: a put in flight when its process died may arrive after the next run has looked.
    versions = list(scene.stores["b2"].versions(""))
    assert len(versions) - len({version.key for version in versions}) <= scene.options.concurrency
    assert len({(version.key, version.size_bytes) for version in versions}) == len(
        {version.key for version in versions}
    )
    assert not any(version.is_delete_marker for version in versions)


def check_kill(place: Place, scene: ArchiveScene, made: dict[str, bytes], moment: Moment) -> None:
    """Kill a run at a moment, check the files that it left, and run again."""
    assert die_while_archiving(place, moment) == -signal.SIGKILL
    spooled = set(scene.spooled())
    held = {name: contents(store) for name, store in scene.stores.items()}
    for name in made.keys() - spooled:
        assert [found.get(name) for found in held.values()] == [made[name]] * 2, f"'{name}' was lost"
    keys = {name: {listed.key for listed in store.list("")} for name, store in scene.stores.items()}
    recorded = {name: scene.verified(name) for name in scene.stores}
    done = set.intersection(*recorded.values())
    for store in scene.stores.values():
        store.calls.clear()

    scene.run()

    assert isinstance(scene, CountingScene)
    assert len(scene.encoded) == len(made) - len(done), "what was on every store was compressed again"
    for name, store in scene.stores.items():
        assert not keys[name] & set(store.created), "an object was stored twice"
        touched = {Path(key).name.split(".zst")[0] for call, key in store.calls if call in ("put", "open")}
        assert not touched & recorded[name], "a recorded copy was asked for again"
        assert contents(store) == made
        assert scene.verified(name) == set(made)
    assert scene.spooled() == []
    assert scene.quarantined() == []


class CountingScene(ArchiveScene):
    """A scene that records the input of its encoder."""

    def encoder(self) -> Encoder:
        self.encoded: list[int] = []
        return _CountingEncoder(self.codec, self.encoded)


class _CountingEncoder(Encoder):
    def __init__(self, codec: Any, encoded: list[int]) -> None:
        super().__init__(codec)
        self._encoded = encoded

    def encode(self, data: bytes) -> Encoded:
        self._encoded.append(len(data))
        return super().encode(data)


@pytest.fixture
def quick_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, or else on disk. Written bytes outlive a kill in both."""
    memory = Path("/dev/shm")  # noqa: S108
    if not memory.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="wal-pipeline-test-", dir=memory) as folder:
        yield Path(folder)


def s3_stores(pair: S3Pair, buckets: S3Buckets) -> dict[str, dict[str, Any]]:
    """Return the settings that reach both stores."""
    return {
        server.name: {
            "bucket": bucket,
            "access_key_id": server.access_key_id,
            "secret_access_key": server.secret_access_key,
            "endpoint_url": server.endpoint_url,
            "region": "us-east-005",
            "ca_bundle": server.ca_bundle,
            "concurrency": 8,
        }
        for server, bucket in ((pair.r2, buckets.r2), (pair.b2, buckets.b2))
    }
