"""Tests on real S3 servers that expired objects lose all versions, and that damage is healed."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from testbed.s3_pair import S3Buckets, S3Pair
from wal_pipeline.archive.retention.rules import RetentionRule
from wal_pipeline.commands.verify.results import FaultKind
from wal_pipeline.wiring.expire import expirer
from wal_pipeline.wiring.verify import verifier
from wal_pipeline_tests.support.base_backup_scene import s3_store
from wal_pipeline_tests.support.damage import KINDS, damage
from wal_pipeline_tests.support.segments import history_bytes, name_of
from wal_pipeline_tests.support.upkeep_pipeline import scene_pipeline
from wal_pipeline_tests.support.upkeep_scene import DAY, LAYOUT, UpkeepScene

pytestmark = pytest.mark.integration


@pytest.fixture
def scene(tmp_path: Path, s3_pair: S3Pair, s3_buckets: S3Buckets) -> Iterator[UpkeepScene]:
    """A week of WAL and two base backups on both servers; the clock begins now."""
    stores = [s3_store(s3_pair, s3_buckets, name) for name in ("r2", "b2")]
    made = UpkeepScene(tmp_path, stores, now=datetime.now(UTC), rule=RetentionRule(30 * DAY, 2))
    made.store_file("00000002.history", history_bytes([1]), made.now)
    made.run_for(8, backup_every=4)
    yield made
    made.catalog.close()


def test_forty_days_later(scene: UpkeepScene, s3_pair: S3Pair, s3_buckets: S3Buckets) -> None:
    """After two more base backups the first two expire with their WAL, and no billed version remains."""
    first = scene.backups("r2")
    client = s3_pair.b2.client()
    client.delete_object(Bucket=s3_buckets.b2, Key=scene.key_of("b2", name_of(2)))  # only hides it
    hidden = scene.key_of("r2", name_of(2))
    scene.now += timedelta(days=40)
    assert not expirer(scene_pipeline(scene)).plan().is_complete  # what is hidden on b2 is missing there
    assert verifier(scene_pipeline(scene)).verify(repair=True).is_right
    assert expirer(scene_pipeline(scene)).plan().is_complete
    assert scene.backups("r2") == first  # without newer ones they stay, however old they are
    later = {one.backup_id for one in scene.run_for(8, backup_every=4, begin=9)}
    scene.now += timedelta(days=31)
    planned = expirer(scene_pipeline(scene)).plan()
    assert planned.stores[1].plan.hidden.size_bytes.keys() == {hidden}
    before = scene.keys("r2")
    assert expirer(scene_pipeline(scene)).expire().doubt is not None  # no file for 31 days: the clock is in doubt
    assert scene.keys("r2") == before
    done = expirer(scene_pipeline(scene)).expire(trust_clock=True)
    assert done.is_complete
    kept = {name_of(number) for number in range(9, 17)} | {"00000002.history"}
    for store in ("r2", "b2"):
        assert scene.files(store) == kept
        assert scene.backups(store) == later
    versions = client.list_object_versions(Bucket=s3_buckets.b2)
    assert {one["Key"] for one in versions.get("Versions", [])} == scene.keys("b2")
    assert versions.get("DeleteMarkers", []) == []
    assert verifier(scene_pipeline(scene)).verify(share=1.0).is_right


def test_damage_of_each_kind_is_found_and_healed(scene: UpkeepScene) -> None:
    """Every kind of damage on each store is healed, that of a base backup too."""
    kinds = dict(zip(range(1, 6), KINDS, strict=True))
    for store in ("r2", "b2"):
        for number, kind in kinds.items():
            damage(scene, store, name_of(number), kind)
        backup_id = max(scene.backups(store))
        key = LAYOUT.base_key(backup_id, "base.000000.tar")
        data = scene.read(store, key)
        scene.replace_object(store, key, bytes([data[0] ^ 1]) + data[1:])
        found = verifier(scene_pipeline(scene)).verify(share=1.0)
        expected = {(name_of(number), KINDS[kind]) for number, kind in kinds.items()}
        expected |= {(backup_id, FaultKind.CORRUPT)}
        told = {(fault.item.name, fault.kind) for fault in found.faults}
        assert expected <= told
        assert {fault.store for fault in found.faults} == {store}
        assert found.lost == frozenset()
        assert verifier(scene_pipeline(scene)).verify(repair=True).is_right
        assert verifier(scene_pipeline(scene)).verify(share=1.0).is_right
