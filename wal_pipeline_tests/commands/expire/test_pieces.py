"""Expiry of the pieces of open segments: superseded ones and left-over ones go, what may be needed stays."""

import json
import os
from datetime import datetime
from pathlib import Path

import pytest

from wal_pipeline.archive.format.piece import Piece, piece_from_metadata
from wal_pipeline.archive.records import CopyStatus
from wal_pipeline.archive.recovery.tail import HeldPiece
from wal_pipeline.archive.retention.plan import ObjectKind, Step
from wal_pipeline.commands.copies.pieces import describe_pieces, list_pieces
from wal_pipeline.commands.ship.records import RecordedPiece, ShippedTail, put_tail, read_tail
from wal_pipeline.errors import ObjectLockedError, StoreUnavailableError
from wal_pipeline.stores.base import Body
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.names import require_file_name
from wal_pipeline_tests.support.pieces import cut, put_pieces
from wal_pipeline_tests.support.segments import SEGMENT_BYTES, SYSTEM_IDENTIFIER, name_of, segment_bytes
from wal_pipeline_tests.support.upkeep_scene import DAY, LAYOUT, UpkeepScene
from wal_pipeline_tests.support.versioned_folder import VersionedFolder


@pytest.fixture
def scene(tmp_path: Path) -> UpkeepScene:
    return UpkeepScene(tmp_path)


def ship(scene: UpkeepScene, number: int, store: str, at: datetime) -> list[str]:
    """Put three pieces of a segment on a store, which says that it got them at a moment; return their keys."""
    keys = put_pieces(ClusterStore(scene.stores[store].inner, LAYOUT), pieces_of(number), segment_bytes(number))
    date(scene, store, keys, at)
    return keys


def pieces_of(number: int) -> list[Piece]:
    return cut(
        name_of(number),
        segment_bytes(number),
        [0, 8192, 16384, 500_000],
        system_identifier=SYSTEM_IDENTIFIER,
        wal_segment_size=SEGMENT_BYTES,
    )


def date(scene: UpkeepScene, store: str, keys: list[str], at: datetime) -> None:
    """Let a store say that it got objects at a moment."""
    for key in keys:
        os.utime(scene.folder / store / "objects" / key, (at.timestamp(), at.timestamp()))


def pieces_on(scene: UpkeepScene, store: str) -> set[str]:
    return {key for key in scene.keys(store) if key.startswith(LAYOUT.tail_root)}


def test_superseded_pieces_go_and_those_of_the_open_segment_stay(scene: UpkeepScene) -> None:
    """The plan names both with their reason; confirmed, only the superseded ones go, and what went is counted."""
    scene.run_for(24)
    old, open_ones = ship(scene, 24, "r2", scene.now), ship(scene, 25, "r2", scene.now)
    plan = scene.expirer().plan().stores[0].plan.plan
    assert plan is not None
    stored = sum(len(scene.read("r2", key)) for key in old)
    going = [one for one in plan.expire if one.step is Step.PIECES]
    assert [(one.name, one.pieces, one.stored_bytes, one.reason) for one in going] == [
        (f"tail/{name_of(24)}", 3, stored, "superseded: the whole segment is verified on this store")
    ]
    staying = [one for one in plan.keep if one.kind is ObjectKind.PIECES]
    assert [(one.name, one.pieces, one.reason) for one in staying] == [
        (f"tail/{name_of(25)}", 3, "younger than the window, and the whole segment is not verified on this store")
    ]
    assert pieces_on(scene, "r2") == {*old, *open_ones}
    done = scene.expirer().expire()
    assert done.is_complete
    assert pieces_on(scene, "r2") == set(open_ones)
    removed = done.stores[0].removed
    assert removed is not None
    assert (removed.pieces, removed.pieces_bytes) == (3, stored)
    lines = [json.loads(line) for line in scene.audit.path.read_text().splitlines()]
    assert [one["reason"] for one in lines if one["subject"] == f"tail/{name_of(24)}"] == [going[0].reason]


@pytest.mark.parametrize("doubt", ["absent", "on another store", "not recorded", "damaged", "another size"])
def test_pieces_of_a_segment_that_is_not_proven_on_their_store_stay(scene: UpkeepScene, doubt: str) -> None:
    """They are far older than the window, and the segment lies in it for all that a base backup needs."""
    scene.run_for(24)
    number, at = 20, scene.now - 400 * DAY
    keys = ship(scene, number, "b2", at)
    key = scene.key_of("b2", name_of(number))
    if doubt in ("absent", "on another store"):
        scene.stores["b2"].inner.delete(key)
        scene.catalog.files.remove_copy(SYSTEM_IDENTIFIER, [name_of(number)], "b2")
    if doubt == "absent":
        scene.stores["r2"].inner.delete(scene.key_of("r2", name_of(number)))
        scene.catalog.files.remove_copy(SYSTEM_IDENTIFIER, [name_of(number)], "r2")
    if doubt == "not recorded":
        scene.catalog.files.remove_copy(SYSTEM_IDENTIFIER, [name_of(number)], "b2")
    if doubt == "damaged":
        scene.catalog.files.set_status(SYSTEM_IDENTIFIER, [name_of(number)], "b2", CopyStatus.DAMAGED)
    if doubt == "another size":
        scene.replace_object("b2", key, b"short")
    scene.expirer().expire()
    assert pieces_on(scene, "b2") == set(keys)


def test_pieces_go_with_the_segments_that_the_window_does_not_need(scene: UpkeepScene) -> None:
    """They are before the oldest base backup that stays, and nothing of their segment was ever archived there."""
    scene.run_for(24)
    for store in ("r2", "b2"):
        scene.stores[store].inner.delete(scene.key_of(store, name_of(3)))
        scene.catalog.files.remove_copy(SYSTEM_IDENTIFIER, [name_of(3)], store)
    ship(scene, 3, "b2", scene.now - 22 * DAY)
    assert scene.expirer().expire().is_complete
    assert pieces_on(scene, "b2") == set()


def test_a_store_that_cannot_be_listed_keeps_its_pieces(scene: UpkeepScene) -> None:
    """It is left out, and no other store's listing says anything of it."""
    scene.run_for(24)
    keys = ship(scene, 24, "b2", scene.now)

    def refuse(_call: str, _key: str) -> None:
        raise StoreUnavailableError("b2", "no answer")

    scene.stores["b2"].before = refuse
    assert dict(scene.expirer().expire().silent) == {"b2": "b2: no answer"}
    assert pieces_on(scene, "b2") == set(keys)


def test_a_locked_piece_is_told_and_the_others_go(scene: UpkeepScene) -> None:
    """It stays what it is: superseded, and counted as not freed."""
    scene.run_for(24)
    keys = ship(scene, 24, "b2", scene.now)

    def lock(call: str, key: str) -> None:
        if (call, key) == ("delete", keys[1]):
            raise ObjectLockedError("b2", f"object '{key}' is locked")

    scene.stores["b2"].before = lock
    done = scene.expirer().expire()
    assert pieces_on(scene, "b2") == {keys[1]}
    removed = done.stores[1].removed
    assert removed is not None
    assert (removed.pieces, removed.pieces_bytes, removed.locked) == (2, 0, (f"b2: object '{keys[1]}' is locked",))


def test_the_record_of_a_tail_forgets_the_pieces_that_went(scene: UpkeepScene) -> None:
    """No window is worked out from them; what stays is still recorded."""
    scene.run_for(24)
    place = ClusterStore(scene.stores["r2"].inner, LAYOUT)
    recorded = []
    for number in (24, 25):
        date(scene, "r2", ship(scene, number, "r2", scene.now), scene.now)
        found, _ = describe_pieces(place, list_pieces(place, require_file_name(name_of(number))))
        recorded += [recorded_piece(place, one) for one in found]
    last = recorded[-1].piece
    put_tail(
        scene.catalog.values,
        ShippedTail("r2", SYSTEM_IDENTIFIER, 1, tuple(recorded), last.end_lsn, scene.now, None, 1.0, 2.0, 0.0),
    )
    scene.expirer().expire()
    tail = read_tail(scene.catalog.values, "r2")
    assert tail is not None
    assert [one.piece.segment.name for one in tail.pieces] == [name_of(25)] * 3


def recorded_piece(place: ClusterStore, held: HeldPiece) -> RecordedPiece:
    found = place.store.head(held.object_key)
    assert found is not None
    return RecordedPiece(*piece_from_metadata(held.object_key, found.metadata))


def test_hidden_versions_of_superseded_pieces_go_too(tmp_path: Path) -> None:
    """A delete without a version only hid them, and the store bills them."""
    scene = UpkeepScene(tmp_path)
    versioned = VersionedFolder("b2", tmp_path / "b2")
    scene.stores["b2"] = versioned
    scene.run_for(24)
    keys = ship(scene, 24, "b2", scene.now)
    versioned.hide(keys[0])
    versioned.hide(keys[1])
    done = scene.expirer().expire()
    assert versioned.hidden_keys() == set()
    assert pieces_on(scene, "b2") == set()
    removed = done.stores[1].removed
    assert removed is not None and removed.pieces == 3


def test_pieces_are_ours_and_what_only_looks_like_one_is_not(scene: UpkeepScene) -> None:
    """A key that is not exactly a piece's is named as not ours, and stays."""
    scene.run_for(24)
    ship(scene, 24, "r2", scene.now)
    strange = f"{LAYOUT.tail_root}00000001/{name_of(24)}/00002000-00001000.gz"
    scene.stores["r2"].inner.put_if_absent(strange, Body.of(b"x"), {})
    done = scene.expirer().expire()
    assert pieces_on(scene, "r2") == {strange}
    assert done.stores[0].plan.notes == (
        f"r2: 1 objects below '{LAYOUT.root}' are not ours and stay, first '{strange}'",
    )


def test_a_young_piece_proves_the_clock(scene: UpkeepScene) -> None:
    """No segment was finished for longer than the window, as archive_timeout is long: the server still writes."""
    scene.run_for(24)
    scene.now += 30 * DAY
    assert scene.expirer().expire().doubt is not None
    ship(scene, 25, "r2", scene.now - DAY)
    assert scene.expirer().expire().doubt is None
