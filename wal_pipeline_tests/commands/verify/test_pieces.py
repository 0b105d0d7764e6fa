"""Verification of the pieces of open segments: damage is named by store and key, and removed only where it is safe."""

import json
from pathlib import Path

import pytest

from wal_pipeline.archive.alerts import AlertKind
from wal_pipeline.archive.format.piece import piece_from_metadata
from wal_pipeline.archive.records import CopyStatus
from wal_pipeline.commands.ship.records import RecordedPiece, ShippedTail, put_tail
from wal_pipeline.commands.verify.results import FaultKind
from wal_pipeline.stores.base import Body
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline_tests.support.pieces import cut, put_pieces
from wal_pipeline_tests.support.segments import SEGMENT_BYTES, SYSTEM_IDENTIFIER, name_of, segment_bytes
from wal_pipeline_tests.support.upkeep_scene import LAYOUT, UpkeepScene

OPEN = name_of(5)


@pytest.fixture
def scene(tmp_path: Path) -> UpkeepScene:
    """Four archived segments, and the fifth in three pieces on r2 and two on b2."""
    made = UpkeepScene(tmp_path)
    made.run_for(4)
    ship(made, "r2", [0, 8192, 16384, 24576])
    ship(made, "b2", [0, 16384, 24576])
    return made


def ship(scene: UpkeepScene, store: str, places: list[int], number: int = 5) -> list[str]:
    """Put pieces of a segment on a store, and record them as a shipper does; return their keys."""
    data, place = segment_bytes(number), ClusterStore(scene.stores[store].inner, LAYOUT)
    pieces = cut(name_of(number), data, places, system_identifier=SYSTEM_IDENTIFIER, wal_segment_size=SEGMENT_BYTES)
    keys = put_pieces(place, pieces, data)
    described = [(key, place.store.head(key)) for key in keys]
    recorded = [RecordedPiece(*piece_from_metadata(key, one.metadata)) for key, one in described if one is not None]
    tail = ShippedTail(store, SYSTEM_IDENTIFIER, 1, tuple(recorded), None, None, None, None, None, None)
    put_tail(scene.catalog.values, tail)
    return keys


def keys_on(scene: UpkeepScene, store: str) -> list[str]:
    return sorted(key for key in scene.keys(store) if key.startswith(LAYOUT.tail_root))


def flip(scene: UpkeepScene, store: str, key: str) -> None:
    """Change the last byte of an object."""
    data = scene.read(store, key)
    scene.replace_object(store, key, data[:-1] + bytes([data[-1] ^ 1]))


def test_good_pieces_are_counted_and_read(scene: UpkeepScene) -> None:
    """By names and sizes each is described; a deep verification reads all of them, whatever its share."""
    plain = scene.verify()
    assert plain.is_right
    assert {store: (one.pieces, one.read) for store, one in plain.piece_tallies.items()} == {"r2": (3, 0), "b2": (2, 0)}
    deep = scene.verify(share=0.01)
    assert deep.is_right
    stored = sum(len(scene.read("r2", key)) for key in keys_on(scene, "r2"))
    assert (deep.piece_tallies["r2"].read, deep.piece_tallies["r2"].read_bytes) == (3, stored)


@pytest.mark.parametrize("share", [None, 1.0])
def test_a_truncated_piece_is_named_by_store_and_key(scene: UpkeepScene, share: float | None) -> None:
    """By its size alone, without being read; the alert says what it costs."""
    key = keys_on(scene, "r2")[1]
    size = len(scene.read("r2", key))
    scene.replace_object("r2", key, scene.read("r2", key)[:-5])
    done = scene.verify(share=share)
    [fault] = done.piece_faults
    message = f"r2: object '{key}' has {size - 5} bytes, expected {size}"
    assert (fault.store, fault.key, fault.kind, fault.message) == ("r2", key, FaultKind.TRUNCATED, message)
    assert not done.is_right
    [alert] = [one for one in scene.catalog.alerts.active() if one.kind is AlertKind.DAMAGE]
    assert (alert.subject, alert.message) == (
        "r2/pieces",
        "1 fault in the pieces of open segments: a recovery after a loss of the database's host ends before them, "
        "until their segment is archived; restart 'wal-pipeline ship', which sends again what it does not find whole; "
        f"first: {message}",
    )


def test_a_damaged_piece_is_removed_where_the_other_store_has_its_bytes(scene: UpkeepScene) -> None:
    """Cut otherwise there: its good pieces were read just now. The audit log says so, and the alert ends."""
    key = keys_on(scene, "r2")[1]
    flip(scene, "r2", key)
    assert [one.kind for one in scene.verify(share=1.0).piece_faults] == [FaultKind.CORRUPT]
    assert key in keys_on(scene, "r2")
    done = scene.verify(share=1.0, repair=True)
    [fault] = done.piece_faults
    assert fault.outcome == "removed: other pieces were read just now and hold its bytes (b2)"
    assert fault.is_removed and done.is_right
    assert key not in keys_on(scene, "r2")
    last = json.loads(scene.audit.path.read_text().splitlines()[-1])
    assert (last["action"], last["subject"], last["result"], last["store"]) == ("repair", key, "removed", "r2")
    assert scene.catalog.alerts.active() == []


def test_a_damaged_piece_stays_where_nothing_else_has_its_bytes(scene: UpkeepScene) -> None:
    """The other store has less, or is damaged itself: what is left of it may be all there is."""
    keys = {store: keys_on(scene, store)[-1] for store in ("r2", "b2")}
    for store, key in keys.items():
        flip(scene, store, key)
    done = scene.verify(share=1.0, repair=True)
    assert {one.outcome for one in done.piece_faults} == {
        "not removed: nothing else is proven to hold its bytes; it is superseded when its segment is archived"
    }
    assert all(key in keys_on(scene, store) for store, key in keys.items())


def test_without_reading_only_a_verified_segment_lets_a_damaged_piece_go(scene: UpkeepScene) -> None:
    """The sizes of the other store's pieces prove nothing of their bytes."""
    key = keys_on(scene, "r2")[2]
    scene.replace_object("r2", key, b"short")
    assert [one.is_removed for one in scene.verify(repair=True).piece_faults] == [False]
    scene.archive(5, scene.now, ["b2"])
    done = scene.verify(repair=True)
    assert [one.outcome for one in done.piece_faults] == ["removed: the whole segment is verified on b2"]


def test_superseded_pieces_are_not_judged(scene: UpkeepScene) -> None:
    """The whole segment is verified there: a damaged piece of it is only left over."""
    scene.archive(5, scene.now)
    flip(scene, "r2", keys_on(scene, "r2")[0])
    done = scene.verify(share=1.0)
    assert done.piece_faults == ()
    assert done.piece_tallies["r2"].superseded == 3


def test_a_segment_that_is_only_recorded_as_damaged_supersedes_nothing(scene: UpkeepScene) -> None:
    """Its pieces are read as those of an open one."""
    scene.archive(5, scene.now)
    scene.catalog.files.set_status(SYSTEM_IDENTIFIER, [OPEN], "r2", CopyStatus.DAMAGED)
    assert scene.verify().piece_tallies["r2"].superseded == 0


def test_a_recorded_piece_that_is_gone_is_missing_unless_others_hold_its_bytes(scene: UpkeepScene) -> None:
    """A merged piece may have taken its place meanwhile."""
    key = keys_on(scene, "r2")[2]
    scene.stores["r2"].inner.delete(key)
    done = scene.verify()
    assert [(one.store, one.key, one.kind) for one in done.piece_faults] == [("r2", key, FaultKind.MISSING)]
    data = segment_bytes(5)
    merged = cut(OPEN, data, [0, 24576], system_identifier=SYSTEM_IDENTIFIER, wal_segment_size=SEGMENT_BYTES)
    put_pieces(ClusterStore(scene.stores["r2"].inner, LAYOUT), merged, data)
    assert scene.verify().is_right


def test_pieces_that_do_not_join_on_any_store_are_named(scene: UpkeepScene) -> None:
    """A hole on one store alone is filled by the other one."""
    for store in ("r2", "b2"):
        ship(scene, store, [24576, 32768] if store == "r2" else [40960, 49152])
    done = scene.verify()
    assert done.holes == (
        f"'{OPEN}': its pieces join up to offset 32768 alone, and there are pieces up to 49152: a recovery ends at "
        "32768",
    )
    assert not done.is_right


def test_a_piece_under_another_ones_key_is_named_and_never_removed(scene: UpkeepScene) -> None:
    """It is whole, and says where it belongs: a person has to look."""
    first, second = keys_on(scene, "r2")[:2]
    scene.replace_object("r2", first, scene.read("r2", second), like=second)
    [fault] = scene.verify(share=1.0, repair=True).piece_faults
    assert (fault.kind, fault.is_removed) == (FaultKind.REPLACED, False)
    assert fault.message == (
        f"r2: object '{first}' says that it is bytes 8192 to 16384 of '{OPEN}' of system identifier {SYSTEM_IDENTIFIER}"
    )
    assert first in keys_on(scene, "r2")


def test_a_piece_with_metadata_that_cannot_be_read_is_named_and_stays(scene: UpkeepScene) -> None:
    """A newer version may have written it."""
    key = keys_on(scene, "b2")[0]
    inner = scene.stores["b2"].inner
    data = scene.read("b2", key)
    inner.delete(key)
    inner.put_if_absent(key, Body.of(data), {"wal-format": "7"})
    [fault] = scene.verify(share=1.0, repair=True).piece_faults
    assert (fault.kind, fault.is_removed, key in keys_on(scene, "b2")) == (FaultKind.UNREADABLE, False, True)
