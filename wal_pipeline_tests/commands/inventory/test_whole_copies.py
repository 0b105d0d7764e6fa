"""Whole segments in a plan: a copy that a store has damaged is not the segment, and one that is not known is."""

from collections.abc import Callable
from pathlib import Path

import pyrage
import pytest

from wal_pipeline.archive.records import Codec
from wal_pipeline.archive.recovery.window import WindowEnd
from wal_pipeline.codec.encoder import Encoder
from wal_pipeline.commands.archive_get.tail_wal import limits_of
from wal_pipeline.errors import RecoveryTargetError
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline_tests.support.planned_wal import (
    END,
    NAMES,
    inventory,
    plan_of,
    put_whole,
    ship,
    two_stores,
    written,
)
from wal_pipeline_tests.support.restore_archive import WatchedStore
from wal_pipeline_tests.support.wal_writer import MIB

Damage = Callable[[WatchedStore, str], None]


def cut_short(store: WatchedStore, key: str) -> None:
    """Keep half of an object."""
    path = store.path_of(key)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(store: WatchedStore, key: str) -> None:
    """Change a byte of an object; its size stays."""
    path = store.path_of(key)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


def lose_sidecar(store: WatchedStore, key: str) -> None:
    """Lose an object's metadata, as only a folder can."""
    (store.folder / "metadata" / f"{key}.json").unlink()


def copy_half_without_metadata(store: WatchedStore, key: str) -> None:
    """Keep half of an object, and no metadata."""
    stored = store.path_of(key).read_bytes()
    store.delete(key)
    store.add_bare(key, stored[: len(stored) // 2])


KINDS = pytest.mark.parametrize("damage", [cut_short, flip, lose_sidecar, copy_half_without_metadata])


@pytest.fixture
def stores(tmp_path: Path) -> dict[str, WatchedStore]:
    """Two stores with segments 1 and 2."""
    return two_stores(tmp_path)


@KINDS
def test_pieces_count_where_the_only_whole_copy_is_damaged(stores: dict[str, WatchedStore], damage: Damage) -> None:
    """The plan uses them, and its recovery may; the note names the copy."""
    key = put_whole([stores["b2"]], 3)
    ship(stores["r2"], written(100)[3], 0, 100_000, END)
    damage(stores["b2"], key)
    plan = plan_of(inventory(stores))
    assert plan.window.latest_lsn == Lsn(3 * MIB + END)
    assert limits_of(plan).words() == ["--tail=1", f"--tail-reach={NAMES[3]}+{END}"]
    said = [note for note in plan.notes if note.endswith(": this copy is left out of the plan")]
    assert len(said) == 1
    assert said[0].startswith(f"b2: object '{key}' ")


@KINDS
def test_a_plan_ends_before_a_damaged_segment_that_nothing_replaces(
    stores: dict[str, WatchedStore], damage: Damage
) -> None:
    """The recovery is bound there: it would stop with an error if it asked for the segment."""
    key = put_whole([stores["b2"]], 3)
    damage(stores["b2"], key)
    plan = plan_of(inventory(stores))
    assert (plan.window.latest_lsn, plan.bound, plan.window.ended_by) == (Lsn(3 * MIB), NAMES[2], WindowEnd.BREAK)
    assert any(
        note.startswith(f"The recovery ends before '{NAMES[3]}', which is there and cannot be replayed: b2: object")
        for note in plan.notes
    )


def test_pieces_that_do_not_begin_the_segment_are_nothing(stores: dict[str, WatchedStore]) -> None:
    """The plan ends before it, and recovery does not ask."""
    cut_short(stores["b2"], put_whole([stores["b2"]], 3))
    ship(stores["r2"], written(100)[3], 100_000, END)
    plan = plan_of(inventory(stores))
    assert (plan.tails, plan.window.latest_lsn, plan.bound) == ((), Lsn(3 * MIB), NAMES[2])


def test_a_damaged_piece_in_place_of_a_damaged_copy_ends_the_plan(stores: dict[str, WatchedStore]) -> None:
    """Both are named."""
    cut_short(stores["b2"], put_whole([stores["b2"]], 3))
    keys = ship(stores["r2"], written(100)[3], 0, END)
    flip(stores["r2"], keys[0])
    plan = plan_of(inventory(stores))
    assert (plan.tails, plan.window.latest_lsn, plan.bound) == ((), Lsn(3 * MIB), NAMES[2])
    assert {note[:2] for note in plan.notes if "left out of the plan" in note} == {"b2", "r2"}


def test_another_stores_good_copy_is_the_segment(stores: dict[str, WatchedStore]) -> None:
    """The damaged one is no copy of it, and pieces are not needed."""
    key = put_whole(stores.values(), 3)
    ship(stores["r2"], written(100)[3], 0, END)
    cut_short(stores["b2"], key)
    plan = plan_of(inventory(stores))
    assert (plan.tails, plan.window.latest_lsn) == ((), Lsn(4 * MIB))
    assert plan.wal[-1].stores == ("r2",)


def test_a_store_that_does_not_answer_has_its_copy(stores: dict[str, WatchedStore]) -> None:
    """Nobody looked at it: the recovery stops with an error where it does not come."""
    put_whole([stores["b2"]], 3)
    ship(stores["r2"], written(100)[3], 0, END)
    found = inventory(stores)
    stores["b2"].down = True
    plan = plan_of(found)
    assert (plan.tails, plan.window.latest_lsn) == ((), Lsn(4 * MIB))


@pytest.mark.parametrize(("end", "reached"), [(MIB, 4 * MIB), (END, 2 * MIB + END), (None, 2 * MIB)])
def test_a_damaged_segment_in_the_middle(stores: dict[str, WatchedStore], end: int | None, reached: int) -> None:
    """Pieces that are all of it lead on, though each store seemed to have it whole; else the plan ends there."""
    key = put_whole(stores.values(), 2)
    put_whole(stores.values(), 3)
    for store in stores.values():
        cut_short(store, key)
    if end is not None:
        ship(stores["r2"], written(100)[2], 0, 100_000, end, number=2)
    plan = plan_of(inventory(stores))
    assert plan.window.latest_lsn == Lsn(reached)
    assert [tail.segment.name for tail in plan.tails] == ([] if end is None else [NAMES[2]])
    assert plan.bound == (NAMES[1] if end is None else None)


def test_a_base_backup_whose_own_wal_is_damaged_is_not_restorable(stores: dict[str, WatchedStore]) -> None:
    """The error says which objects were left out."""
    key = put_whole(stores.values(), 1)
    for store in stores.values():
        flip(store, key)
    with pytest.raises(RecoveryTargetError) as refused:
        plan_of(inventory(stores))
    for name in stores:
        assert f"{name}: object '{key}' has SHA-256" in (refused.value.hint or "")


def test_a_second_plan_does_not_look_again(stores: dict[str, WatchedStore]) -> None:
    """It leaves out the same copy, and asks for no copy again."""
    key = put_whole([stores["b2"]], 3)
    ship(stores["r2"], written(100)[3], 0, END)
    cut_short(stores["b2"], key)
    found = inventory(stores)
    first = plan_of(found)
    stores["b2"].calls.clear()
    assert plan_of(found) == first
    assert stores["b2"].calls == []


def test_encrypted_copies_are_proven_without_an_identity(stores: dict[str, WatchedStore]) -> None:
    """By their stored bytes. Where their metadata are lost too, nobody knows: they count."""
    encoder = Encoder(Codec.ZSTD, recipients=[str(pyrage.x25519.Identity.generate().to_public())])
    key = put_whole([stores["b2"]], 3, encoder=encoder)
    assert plan_of(inventory(stores)).window.latest_lsn == Lsn(4 * MIB)
    stored = stores["b2"].path_of(key).read_bytes()
    flip(stores["b2"], key)
    assert plan_of(inventory(stores)).window.latest_lsn == Lsn(3 * MIB)
    stores["b2"].delete(key)
    stores["b2"].add_bare(key, stored)
    assert plan_of(inventory(stores)).window.latest_lsn == Lsn(4 * MIB)


def test_metadata_of_a_later_version_are_no_damage(stores: dict[str, WatchedStore]) -> None:
    """A newer program can read them: the recovery stops rather than end before the segment."""
    key = put_whole([stores["b2"]], 3)
    stored, metadata = stores["b2"].path_of(key).read_bytes(), dict(stores["b2"].metadata_of(key))
    stores["b2"].delete(key)
    stores["b2"].add_bare(key, stored, {**metadata, "wal-format": "2"})
    assert plan_of(inventory(stores)).window.latest_lsn == Lsn(4 * MIB)
