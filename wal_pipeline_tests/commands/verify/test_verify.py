"""Damage of each kind to real objects is found, told, and healed from the other store."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.archive.alerts import AlertKind, Severity
from wal_pipeline.archive.records import CopyStatus
from wal_pipeline.archive.retention.rules import RetentionRule
from wal_pipeline.commands.verify.results import Fault, FaultKind, Item, ItemKind, Verification
from wal_pipeline.commands.verify.verify import Candidate, choose_share
from wal_pipeline.errors import StoreUnavailableError
from wal_pipeline_tests.support.damage import KINDS, damage
from wal_pipeline_tests.support.segments import SYSTEM_IDENTIFIER, name_of, segment_bytes
from wal_pipeline_tests.support.upkeep_scene import DAY, LAYOUT, UpkeepScene


@pytest.fixture
def scene(tmp_path: Path) -> UpkeepScene:
    """Six days of WAL, two base backups."""
    made = UpkeepScene(tmp_path)
    made.run_for(6, backup_every=3)
    return made


def faults(done: Verification) -> list[tuple[str, str, FaultKind]]:
    return [(fault.store, fault.item.name, fault.kind) for fault in done.faults]


def test_a_sound_archive_is_right(scene: UpkeepScene) -> None:
    """Nothing is read by the shallow one, everything by the deep one; that is recorded."""
    done = scene.verify()
    assert done.is_right
    assert (done.faults, done.tallies["r2"].items, done.tallies["r2"].read) == ((), 8, 0)
    deep = scene.verify(share=1.0)
    assert deep.is_right
    assert [deep.tallies[store].read for store in ("r2", "b2")] == [8, 8]
    assert set(scene.catalog.files.read_moments().values()) == {scene.now}
    assert {copy.last_deep_verified_at for copy in scene.catalog.base_backups.copies()} == {scene.now}


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_found_told_and_healed(scene: UpkeepScene, kind: str) -> None:
    """The good bytes come from the other store; the alert opens and resolves; the other store is not touched."""
    name = name_of(3)
    good = scene.read("b2", scene.key_of("b2", name))
    damage(scene, "b2", name, kind)
    found = scene.verify(share=1.0)
    assert faults(found) == [("b2", name, KINDS[kind])]
    assert not found.is_right
    assert found.lost == frozenset()
    expected = CopyStatus.MISSING if kind == "deleted" else CopyStatus.DAMAGED
    assert scene.recorded("b2")[name] is expected
    [alert] = scene.catalog.alerts.active()
    assert (alert.kind, alert.subject, alert.severity) == (AlertKind.DAMAGE, "b2", Severity.WARNING)
    healed = scene.verify(repair=True)
    assert [(repair.source, repair.error) for repair in healed.repairs] == [("r2", None)]
    assert [event.file.name for event in healed.refilled] == [name]
    assert healed.is_right
    assert scene.read("b2", scene.key_of("b2", name)) == good
    assert scene.recorded("b2")[name] is CopyStatus.VERIFIED
    assert scene.catalog.alerts.active() == []
    assert scene.stores["r2"].created == []
    assert scene.verify(share=1.0).is_right


@pytest.mark.parametrize("kind", ["deleted", "truncated"])
def test_names_and_sizes_alone_show_what_is_absent_or_short(scene: UpkeepScene, kind: str) -> None:
    """The shallow verification reads just the suspect and its counterpart."""
    damage(scene, "r2", name_of(2), kind)
    done = scene.verify()
    assert faults(done) == [("r2", name_of(2), KINDS[kind])]
    assert (done.tallies["b2"].read, done.tallies["r2"].read) == (1, 0 if kind == "deleted" else 1)


def test_known_damage_stays_told_by_later_shallow_verifications(scene: UpkeepScene) -> None:
    """A turned bit has the right size: the daily run must not resolve what the weekly one found."""
    damage(scene, "r2", name_of(2), "bit turned")
    scene.verify(share=1.0)
    assert faults(scene.verify()) == [("r2", name_of(2), FaultKind.CORRUPT)]
    assert len(scene.catalog.alerts.active()) == 1


def test_what_is_bad_on_every_store_is_told_and_never_touched(scene: UpkeepScene) -> None:
    """A critical alert names it; repair changes no byte of it."""
    name = name_of(3)
    damage(scene, "r2", name, "bit turned")
    damage(scene, "b2", name, "truncated")
    before = [scene.read(store, scene.key_of(store, name)) for store in scene.stores]
    done = scene.verify(share=1.0, repair=True)
    assert sorted(faults(done)) == [("b2", name, FaultKind.TRUNCATED), ("r2", name, FaultKind.CORRUPT)]
    assert done.lost == {Item(SYSTEM_IDENTIFIER, ItemKind.WAL_FILE, name)}
    assert done.repairs == ()
    assert [scene.read(store, scene.key_of(store, name)) for store in scene.stores] == before
    [alert] = scene.catalog.alerts.active()
    assert alert.severity is Severity.CRITICAL
    assert alert.message == f"no store has a good copy of '{name}'"


def test_what_was_recorded_and_is_on_no_store_is_lost(scene: UpkeepScene) -> None:
    """The catalog still knows of it."""
    for store in scene.stores:
        damage(scene, store, name_of(6), "deleted")
    done = scene.verify()
    assert sorted(faults(done)) == [(store, name_of(6), FaultKind.MISSING) for store in ("b2", "r2")]
    assert [item.name for item in done.lost] == [name_of(6)]


def test_what_lies_under_a_wrong_name_is_kept_aside(scene: UpkeepScene) -> None:
    """It may be the only copy of something else: its bytes stay on this machine."""
    damage(scene, "b2", name_of(3), "replaced")
    moved = scene.read("b2", scene.key_of("b2", name_of(3)))
    assert scene.verify(share=1.0, repair=True).is_right
    [kept] = [path for path in (scene.folder / "set-aside").rglob("*") if path.is_file()]
    assert kept.read_bytes() == moved
    assert kept.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("recorded", [True, False])
def test_a_whole_copy_of_other_content_is_a_matter_for_a_person(scene: UpkeepScene, recorded: bool) -> None:
    """It is found, by the catalog or by the other store's copy, told, and no repair touches either."""
    name = name_of(3)
    scene.stores["b2"].inner.delete(scene.key_of("b2", name))
    scene.store_file(name, segment_bytes(3, variant=1), scene.now, ["b2"], recorded=False)
    if not recorded:
        for one in scene.stores:
            scene.catalog.files.remove_copy(SYSTEM_IDENTIFIER, [name], one)
    before = {one: scene.read(one, scene.key_of(one, name)) for one in scene.stores}
    done = scene.verify(share=1.0, repair=True)
    [(store, *what)] = faults(done)
    assert what == [name, FaultKind.OTHER_CONTENT]
    assert store == "b2" or not recorded  # without a record neither is the right one
    assert [repair.error for repair in done.repairs] == [
        "whole copies with different content are never replaced: a person has to say which is right"
    ]
    assert not done.is_right
    assert {one: scene.read(one, scene.key_of(one, name)) for one in scene.stores} == before
    alerts = {alert.subject: alert for alert in scene.catalog.alerts.active() if alert.kind is AlertKind.DAMAGE}
    [alert] = alerts.values()
    assert (alert.subject, alert.severity) == (f"{store}/{SYSTEM_IDENTIFIER}/{name}", Severity.CRITICAL)
    assert ": both copies are whole, so a person has to say which one is right; " in alert.message
    [other] = scene.stores.keys() - {store}
    scene.stores[store].inner.delete(scene.key_of(store, name))
    scene.verify(repair=True)
    assert scene.verify(share=1.0).faults == ()
    assert scene.read(store, scene.key_of(store, name)) == before[other]


def test_what_expired_on_one_store_is_missing_on_none(scene: UpkeepScene) -> None:
    """r2 did not answer when b2 was expired: a repair must not bring back what may go."""
    scene.run_for(16, begin=7)

    def refuse(_call: str, _key: str) -> None:
        raise StoreUnavailableError("r2", "no answer")

    scene.stores["r2"].before = refuse
    scene.expirer().expire()
    scene.stores["r2"].before = lambda _call, _key: None
    assert len(scene.files("r2")) > len(scene.files("b2"))
    done = scene.verify(share=1.0, repair=True)
    assert done.is_right
    assert done.faults == ()


def test_a_file_that_waits_in_the_spool_is_not_missing(scene: UpkeepScene) -> None:
    """Its copy is on its way to the store that lacks it."""
    scene.in_spool = frozenset({scene.archive(9, scene.now, ["r2"])})
    done = scene.verify()
    assert done.is_right
    assert done.tallies["b2"].pending == 1


def test_a_copy_that_was_never_made_is_refilled(scene: UpkeepScene) -> None:
    """It left the spool, though only one store has it."""
    name = scene.archive(9, scene.now, ["r2"])
    done = scene.verify(repair=True)
    assert faults(done) == [("b2", name, FaultKind.MISSING)]
    assert done.is_right
    assert scene.recorded("b2")[name] is CopyStatus.VERIFIED


def test_a_store_that_does_not_answer_keeps_its_alerts(scene: UpkeepScene) -> None:
    """Nothing is known of it now; the verification is not right, and says why."""
    damage(scene, "b2", name_of(2), "truncated")
    scene.verify()

    def refuse(_call: str, _key: str) -> None:
        raise StoreUnavailableError("b2", "no answer")

    scene.stores["b2"].before = refuse
    done = scene.verify()
    assert dict(done.silent) == {"b2": "b2: no answer"}
    assert not done.is_right
    assert [alert.subject for alert in scene.catalog.alerts.active()] == ["b2"]


def test_copies_that_the_catalog_does_not_know_are_told(scene: UpkeepScene) -> None:
    """With the way to make the records again."""
    name = scene.archive(9, scene.now, recorded=False)
    done = scene.verify(share=1.0)
    assert done.tallies["r2"].unrecorded == [name]
    assert not done.is_right
    alerts = {alert.kind: alert.message for alert in scene.catalog.alerts.active() if alert.subject == "r2"}
    assert alerts == {
        AlertKind.CATALOG_BEHIND: "1 copies on r2 are not in the catalog; 'wal-pipeline catalog rebuild' makes the "
        "records again"
    }


@pytest.mark.parametrize(
    ("part", "data", "kind"),
    [
        ("base.000000.tar", None, FaultKind.MISSING),
        ("base.000000.tar", b"short", FaultKind.TRUNCATED),
        ("backup_manifest", b"a lisp", FaultKind.CORRUPT),
        ("manifest.json", b"{}", FaultKind.UNREADABLE),
        ("manifest.json", None, FaultKind.MISSING),
    ],
)
def test_base_backups_are_verified_and_healed(
    scene: UpkeepScene, part: str, data: bytes | None, kind: FaultKind
) -> None:
    """Objects against the manifest, the manifest by itself; an absent manifest is an absent base backup."""
    backup_id = max(scene.backups("b2"))
    key = LAYOUT.base_key(backup_id, part)
    good = scene.read("b2", key)
    if data is None:
        scene.stores["b2"].inner.delete(key)
    else:
        scene.replace_object("b2", key, data)
    found = scene.verify(share=1.0)
    assert faults(found) == [("b2", backup_id, kind)]
    done = scene.verify(share=1.0, repair=True)
    assert [(repair.source, repair.error) for repair in done.repairs] == [("r2", None)]
    assert done.is_right
    assert scene.read("b2", key) == good
    copies = {(copy.store, copy.backup_id): copy for copy in scene.catalog.base_backups.copies()}
    assert copies["b2", backup_id].status is CopyStatus.VERIFIED
    assert copies["b2", backup_id].restorable_at == scene.now
    assert scene.verify(share=1.0).is_right


def test_four_quarters_read_everything(scene: UpkeepScene) -> None:
    """Each deep verification reads what was read longest ago."""
    scene.rule = RetentionRule(300 * DAY)
    read = 0
    for _ in range(4):
        scene.now += 7 * DAY
        done = scene.verify(share=0.25)
        read += sum(tally.read for tally in done.tallies.values())
    moments = scene.catalog.files.read_moments().values()
    assert all(at is not None and scene.now - at < 28 * DAY for at in moments)
    assert all(
        copy.last_deep_verified_at is not None and scene.now - copy.last_deep_verified_at < 28 * DAY
        for copy in scene.catalog.base_backups.copies()
    )
    assert read <= 16 + 4


@given(
    st.lists(st.tuples(st.integers(0, 1000), st.none() | st.datetimes(timezones=st.just(UTC))), max_size=30),
    st.floats(0.01, 1.0),
)
def test_a_share_is_the_oldest_part_of_the_bytes(sizes: list[tuple[int, datetime | None]], share: float) -> None:
    """Nothing that is left out was read longer ago than what is chosen, and one less would be too few."""
    candidates = [
        Candidate("r2", Item(1, ItemKind.WAL_FILE, f"{number:04}"), size, at) for number, (size, at) in enumerate(sizes)
    ]
    chosen = choose_share(candidates, share)
    total = sum(one.size_bytes for one in candidates)
    left = [one for one in candidates if one not in chosen]
    assert not any(older(one, other) for one in left for other in chosen)
    assert sum(one.size_bytes for one in chosen) >= share * total or not left
    if left:
        assert sum(one.size_bytes for one in chosen[:-1]) < share * total or not chosen


def older(one: Candidate, other: Candidate) -> bool:
    if one.read_at is None or other.read_at is None:
        return one.read_at is None and other.read_at is not None
    return one.read_at < other.read_at


def test_a_fault_says_where_what_and_how(scene: UpkeepScene) -> None:
    """The message begins with the store, and has both numbers."""
    damage(scene, "b2", name_of(3), "truncated")
    [fault] = scene.verify().faults
    size = len(scene.read("b2", scene.key_of("b2", name_of(3))))
    assert fault == Fault(
        Item(SYSTEM_IDENTIFIER, ItemKind.WAL_FILE, name_of(3)),
        "b2",
        FaultKind.TRUNCATED,
        f"b2: object '{scene.key_of('b2', name_of(3))}' has {size} bytes, expected {size + 7}",
    )
