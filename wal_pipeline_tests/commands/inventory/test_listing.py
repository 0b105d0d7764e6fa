"""One store's listing is the same wherever it is cut, and leaves nothing out."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.s3_pair import S3Pair
from wal_pipeline.archive.records import Codec
from wal_pipeline.commands.inventory import listing as store_listing
from wal_pipeline.commands.inventory.listing import HiddenVersions, cuts_of, list_backup_ids, list_store
from wal_pipeline.errors import StoreUnavailableError
from wal_pipeline.stores.base import Body
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.stores.s3.profiles import B2
from wal_pipeline.wal.names import segment_name
from wal_pipeline_tests.support.s3_connection import connect
from wal_pipeline_tests.support.segments import name_of
from wal_pipeline_tests.support.upkeep_scene import LAYOUT, UpkeepScene


@pytest.fixture
def scene(tmp_path: Path) -> UpkeepScene:
    return UpkeepScene(tmp_path)


def test_wherever_it_is_cut_the_listing_is_the_same(scene: UpkeepScene) -> None:
    """Before, at, between and after the objects; also by keys that are not below the prefix."""
    scene.run_for(9)
    store = scene.stores["r2"]
    place = ClusterStore(store, LAYOUT)
    whole = list_store(place)
    assert sorted(whole.wal) == [name_of(number) for number in range(1, 10)]
    keys = sorted(scene.keys("r2"))
    stems = [LAYOUT.wal_root, *keys, "zzz"]
    for cut in stems:
        assert list_store(place, [cut]) == whole
    assert list_store(place, stems) == whole


@pytest.mark.integration
def test_hidden_versions_are_found_wherever_it_is_cut(s3_pair: S3Pair) -> None:
    """On a store that keeps versions: those that another put covered and those that a delete by key alone hid."""
    buckets = s3_pair.fresh_buckets("ranges")
    store, client = connect(B2, s3_pair.b2, buckets.b2), s3_pair.b2.client()
    place = ClusterStore(store, LAYOUT)
    keys = [LAYOUT.wal_key(segment_name(1, number, 1 << 24), Codec.GZIP, encrypted=False) for number in range(1, 6)]
    for key in (*keys, keys[1], keys[3], keys[3]):
        client.put_object(Bucket=buckets.b2, Key=key, Body=b"stored")
    client.delete_object(Bucket=buckets.b2, Key=keys[4])
    whole = list_store(place, with_hidden=True)
    assert sorted(whole.wal) == [segment_name(1, number, 1 << 24).name for number in range(1, 5)]
    assert whole.hidden.size_bytes == {keys[1]: 6, keys[3]: 12, keys[4]: 6}
    for cut in keys:
        assert list_store(place, [cut], with_hidden=True) == whole
    assert list_store(place, keys, with_hidden=True) == whole
    shown = list_store(place, keys)
    assert (shown.wal.keys(), shown.hidden) == (whole.wal.keys(), HiddenVersions())
    s3_pair.remove_buckets(buckets)


def test_a_store_that_fails_in_one_range_has_no_listing(scene: UpkeepScene) -> None:
    """A part is never taken for the whole."""
    scene.run_for(5)
    store = scene.stores["r2"]

    def fail_third(call: str, _key: str) -> None:
        if call == "list" and sum(one == "list" for one, _ in store.calls) == 3:
            raise StoreUnavailableError("r2", "gone")

    store.before = fail_third
    with pytest.raises(StoreUnavailableError, match="gone"):
        list_store(ClusterStore(store, LAYOUT), sorted(scene.keys("r2")))


def test_foreign_objects_do_no_harm(scene: UpkeepScene) -> None:
    """What is not ours is no file and no base backup, also beside the cuts; it stays visible by itself."""
    scene.run_for(3)
    store = scene.stores["r2"]
    place = ClusterStore(store, LAYOUT)
    whole = list_store(place)
    assert whole.others == ()
    names = [
        f"base/{max(scene.backups('r2'))}/more/manifest.json",
        "base/latest/manifest.json",
        "base/notes",
        "notes.txt",
        "wal/00000001/000000010000000000000001.gz",
        "wal/notes.txt",
    ]
    for name in names:
        store.inner.put_if_absent(LAYOUT.root + name, Body.of(b"x"), {})
    found = list_store(place, [LAYOUT.wal_root, f"{LAYOUT.wal_root}00000001/"])
    assert [item.key for item in found.others] == [LAYOUT.root + name for name in names]
    assert replace(found, others=()) == whole
    assert list_backup_ids(place) == whole.finished != []


@given(st.lists(st.integers(0, 3 * store_listing._FILES_OF_A_RANGE), max_size=30))
def test_cuts_part_the_archive_evenly(counts: list[int]) -> None:
    """They ascend, none stands before the first log, and no range but the last is small."""
    logs = [(f"00000001{number:08X}", count) for number, count in enumerate(counts)]
    cuts = cuts_of(LAYOUT, logs)
    assert list(cuts) == sorted(set(cuts))
    starts = [int(cut[-16:-8], 16) for cut in cuts]
    ranges = zip([0, *starts], [*starts, len(counts)], strict=True)
    sizes = [sum(counts[first:last]) for first, last in ranges]
    assert all(size >= store_listing._FILES_OF_A_RANGE for size in sizes[:-1])
