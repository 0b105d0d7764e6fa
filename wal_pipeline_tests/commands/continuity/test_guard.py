"""WAL of another server, or of another segment size, is not archived under a name that belongs to other WAL."""

import re
import shutil
from pathlib import Path

import pytest

from wal_pipeline.commands.archive_push.events import FileQuarantined, FileReleased, FileSkipped, QuarantineReason
from wal_pipeline.commands.continuity.archived import known_breaks
from wal_pipeline_tests.support.archive_scene import ArchiveScene, WatchedStore, contents, fail, folder_store, names
from wal_pipeline_tests.support.segments import SYSTEM_IDENTIFIER, name_of, segment_bytes
from wal_pipeline_tests.support.wal_writer import MIB, WalWriter


@pytest.fixture
def primary() -> WalWriter:
    """The WAL of a primary: segments 1 to 4 are whole, and 5 has begun."""
    writer = WalWriter()
    write(writer, until=5)
    return writer


def write(writer: WalWriter, *, until: int, length: int = 3000) -> None:
    """Write records until segment ``until`` has begun."""
    while writer.position < until * MIB + 100_000:
        writer.record(length)


def put(scene: ArchiveScene, writer: WalWriter, *numbers: int) -> list[str]:
    """Put a server's segments into the spool and return their names."""
    found = dict(writer.segments())
    for number in numbers:
        (scene.spool_folder / name_of(number, timeline=writer.timeline)).write_bytes(found[number])
    return [name_of(number, timeline=writer.timeline) for number in numbers]


def promote(scene: ArchiveScene, writer: WalWriter, timeline: int = 2) -> WalWriter:
    """Return a standby that has the same WAL so far and is promoted, with its history file in the spool."""
    promoted = writer.fork(timeline)
    (scene.spool_folder / f"{timeline:08X}.history").write_text(f"1\t{writer.position}\tno recovery target specified\n")
    return promoted


def host(folder: Path, scene: ArchiveScene) -> ArchiveScene:
    """Return another host with a spool and a catalog of its own, which archives to the same stores."""
    folder.mkdir()
    stores = {name: WatchedStore(folder_store(name, scene.folder / name)) for name in scene.stores}
    return ArchiveScene(folder, stores)


def archived(scene: ArchiveScene) -> set[str]:
    """Return the names on the stores, which must be the same on each."""
    (held,) = {frozenset(contents(store)) for store in scene.stores.values()}
    return set(held)


def test_a_promoted_server_is_archived(scene: ArchiveScene, primary: WalWriter) -> None:
    """History file, the segment of the switch with its parent's start, and what comes after."""
    put(scene, primary, 1, 2, 3, 4)
    scene.run()
    standby = promote(scene, primary)
    write(standby, until=9)
    made = put(scene, standby, 5, 6, 7, 8)
    assert sorted(names(scene.run(), FileReleased)) == ["00000002.history", *made]
    assert scene.spooled() == []


@pytest.mark.parametrize("shared", [False, True], ids=["own spool", "one spool"])
def test_two_servers_on_one_timeline_make_no_joined_archive(
    scene: ArchiveScene, tmp_path: Path, primary: WalWriter, shared: bool
) -> None:
    """The second one's history file is refused, and with it all of its segments; they stay in its spool."""
    put(scene, primary, 1, 2, 3, 4)
    one = promote(scene, primary)
    write(one, until=8)
    put(scene, one, 5, 6)
    scene.run()
    write(primary, until=7, length=500)
    other_scene = scene if shared else host(tmp_path / "other", scene)
    other = promote(other_scene, primary)
    write(other, until=12, length=700)
    held = put(other_scene, other, 7, 8, 9, 10, 11)
    before = archived(scene)
    events = other_scene.run()
    (refused,) = [event for event in events if isinstance(event, FileQuarantined)]
    assert (refused.name, refused.reason) == ("00000002.history", QuarantineReason.OTHER_CONTENT)
    left = {event.name: event.message for event in events if isinstance(event, FileSkipped)}
    assert sorted(left) == held
    assert all("WAL_PIPELINE_CLUSTER" in message for message in left.values())
    assert archived(scene) == before
    assert sorted(names(other_scene.run(), FileSkipped)) == held, "and not in the next run either"
    assert archived(scene) == before


def test_the_first_server_goes_on_where_anothers_history_was_refused(scene: ArchiveScene, primary: WalWriter) -> None:
    """Both archive into one spool: what continues the archive's own segments is the archive's."""
    put(scene, primary, 1, 2, 3, 4)
    one = promote(scene, primary)
    write(one, until=9)
    put(scene, one, 5, 6)
    scene.run()
    write(primary, until=6, length=500)
    other = promote(scene, primary)
    write(other, until=12)
    scene.run()
    mine = put(scene, one, 7, 8)
    theirs = put(scene, other, 9, 10)
    events = scene.run()
    assert sorted(names(events, FileReleased)) == mine
    assert names(events, FileSkipped) == theirs


def test_two_servers_with_one_history_are_told_apart(scene: ArchiveScene, tmp_path: Path, primary: WalWriter) -> None:
    """Both left at the same place for the same reason; the first segment's name is taken, and what follows is held."""
    put(scene, primary, 1, 2, 3, 4)
    one = promote(scene, primary)
    write(one, until=8)
    put(scene, one, 5, 6)
    scene.run()
    other_scene = host(tmp_path / "other", scene)
    other = promote(other_scene, primary)
    write(other, until=10, length=700)
    put(other_scene, other, 5, 6, 7, 8, 9)
    before = archived(scene)
    events = other_scene.run()
    assert names(events, FileQuarantined) == [name_of(5, timeline=2)] or set(names(events, FileQuarantined)) <= {
        name_of(number, timeline=2) for number in (5, 6)
    }
    assert archived(scene) == before
    other_scene.settle()
    other_scene.run()
    assert archived(scene) == before


@pytest.mark.parametrize("catalog_lost", [False, True])
def test_a_server_that_was_set_back_is_held(scene: ArchiveScene, primary: WalWriter, catalog_lost: bool) -> None:
    """A machine goes back to a snapshot and writes the same names again: nothing of it follows the old segments."""
    put(scene, primary, 1, 2)
    scene.run()
    back = primary.fork(1)
    put(scene, primary, 3, 4)
    scene.run()
    back = WalWriter()
    write(back, until=3)
    write(back, until=8, length=777)
    if catalog_lost:
        scene.lose_catalog()
    before = archived(scene)
    put(scene, back, 3, 4)
    events = scene.run()
    held = sorted([*names(events, FileQuarantined), *names(events, FileSkipped)])
    assert held == [name_of(3), name_of(4)]
    assert name_of(3) in names(events, FileQuarantined)
    later = put(scene, back, 5, 6)
    assert set(later) <= set(names(scene.run(), FileSkipped))
    assert archived(scene) == before


@pytest.mark.parametrize("known", [0, 2], ids=["catalog lost", "catalog set back"])
def test_all_files_of_a_server_that_was_set_back_are_held_in_one_run(
    scene: ArchiveScene, primary: WalWriter, known: int
) -> None:
    """The catalog does not know the archive's last segments: the next name is free, and nothing continues there."""
    put(scene, primary, 1, 2)
    scene.run()
    older = scene.folder / "older"
    scene.catalog.close()
    shutil.copytree(scene.folder, older, ignore=lambda folder, found: [*found] if Path(folder) != scene.folder else [])
    scene.catalog = scene.open_catalog()
    put(scene, primary, 3, 4)
    scene.run()
    scene.lose_catalog()
    if known:
        scene.catalog.close()
        for path in older.glob("catalog.sqlite*"):
            shutil.copy(path, scene.folder)
        scene.catalog = scene.open_catalog()
    back = WalWriter()
    write(back, until=3)
    write(back, until=9, length=777)
    before = archived(scene)
    put(scene, back, 3, 4, 5, 6, 7)
    scene.run()
    assert archived(scene) == before
    scene.settle()
    scene.run()
    assert archived(scene) == before


def test_wal_that_was_begun_anew_is_archived_and_recorded(scene: ArchiveScene, primary: WalWriter) -> None:
    """After pg_resetwal the next name may be the next number; a base backup after it can be restored."""
    put(scene, primary, 1, 2, 3)
    scene.run()
    anew = WalWriter(first=4)
    write(anew, until=7)
    made = put(scene, anew, 4, 5, 6)
    assert sorted(names(scene.run(), FileReleased)) == made
    assert list(known_breaks(scene.catalog, SYSTEM_IDENTIFIER)) == [name_of(4)]


@pytest.mark.parametrize("catalog_lost", [False, True])
def test_another_segment_size_stays_in_the_spool(scene: ArchiveScene, catalog_lost: bool) -> None:
    """Not archived, since its names stand for other positions, and not in quarantine: nothing else would keep it."""
    for number in (1, 2):
        (scene.spool_folder / name_of(number)).write_bytes(segment_bytes(number))
    scene.run()
    if catalog_lost:
        scene.lose_catalog()
    size = 2 * MIB
    for number in (1, 2, 3):
        name = name_of(number, size=size)
        (scene.spool_folder / name).write_bytes(segment_bytes(number, size=size))
    before = archived(scene)
    events = scene.run()
    assert names(events, FileQuarantined) == []
    left = {event.name: event.message for event in events if isinstance(event, FileSkipped)}
    assert sorted(left) == [name_of(number, size=size) for number in (1, 2, 3)]
    assert all("a segment of 2" in message and "WAL_PIPELINE_CLUSTER" in message for message in left.values())
    assert archived(scene) == before


def test_one_dead_store_holds_no_promotion_back(scene: ArchiveScene, primary: WalWriter) -> None:
    """The other store gets history file and segments."""
    put(scene, primary, 1, 2, 3, 4)
    scene.run()
    scene.stores["b2"].before = fail("b2")
    standby = promote(scene, primary)
    write(standby, until=8)
    made = put(scene, standby, 5, 6, 7)
    scene.run()
    assert set(made) <= set(contents(scene.stores["r2"].inner))


def make_older(scene: ArchiveScene) -> None:
    """Make the archive one of an earlier version: neither objects nor catalog say what a segment continues."""
    words = re.compile(r" (?:first-timeline|own-from|begins|ends)=[^ \"]*")
    for name in scene.stores:
        for path in (scene.folder / name / "metadata").rglob("*.json"):
            path.write_text(words.sub("", path.read_text()))
    scene.catalog.values.remove(f"continuity/{SYSTEM_IDENTIFIER}")


def quarantine(scene: ArchiveScene, name: str, data: bytes) -> None:
    """Put a file into quarantine, as an earlier version did."""
    scene.quarantine_folder.mkdir(exist_ok=True)
    (scene.quarantine_folder / f"{name}.20261101T000000.000000Z").write_bytes(data)


@pytest.mark.parametrize("catalog_lost", [False, True])
@pytest.mark.parametrize("promoted", [False, True])
def test_an_archive_of_an_earlier_version_goes_on(
    scene: ArchiveScene, primary: WalWriter, catalog_lost: bool, promoted: bool
) -> None:
    """Its objects do not say what they continue, and that holds nothing back."""
    put(scene, primary, 1, 2, 3, 4)
    scene.run()
    make_older(scene)
    if catalog_lost:
        scene.lose_catalog()
    server = promote(scene, primary) if promoted else primary
    write(server, until=9)
    made = put(scene, server, 5, 6, 7, 8)
    events = scene.run()
    assert sorted(name for name in names(events, FileReleased) if not name.endswith(".history")) == made
    assert names(events, FileSkipped) == []
    assert known_breaks(scene.catalog, SYSTEM_IDENTIFIER) == {}


@pytest.mark.parametrize("kind", ["half a file", "the same with a changed byte", "the same with zeros at its end"])
@pytest.mark.parametrize("is_older", [False, True])
def test_what_lies_in_quarantine_holds_no_good_file_back(
    scene: ArchiveScene, primary: WalWriter, kind: str, is_older: bool
) -> None:
    """A crash leaves half a file, and a second writer another content; the archive's own WAL goes on all the same."""
    put(scene, primary, 1, 2, 3, 4)
    scene.run()
    if is_older:
        make_older(scene)
    data = dict(primary.segments())[4]
    changed = bytearray(data)
    changed[300_000] ^= 1
    left = {
        "half a file": data[:400_000],
        "the same with a changed byte": bytes(changed),
        "the same with zeros at its end": data[:800_000] + bytes(MIB - 800_000),
    }[kind]
    quarantine(scene, name_of(4), left)
    write(primary, until=7)
    made = put(scene, primary, 5, 6)
    assert sorted(names(scene.run(), FileReleased)) == made


def test_a_history_that_no_store_has_refuses_nothing(scene: ArchiveScene, primary: WalWriter) -> None:
    """Earlier versions moved the history of a recovery to a time to quarantine, as if it were half a copy."""
    put(scene, primary, 1, 2, 3, 4)
    scene.run()
    history = f"1\t{primary.position}\tbefore 2026-11-29 07:51:21.413006+00\n\n"
    quarantine(scene, "00000002.history", history.encode())
    standby = primary.fork(2)
    write(standby, until=8)
    made = put(scene, standby, 5, 6, 7)
    assert sorted(names(scene.run(), FileReleased)) == made


def test_files_out_of_order_and_twice_are_archived(scene: ArchiveScene, primary: WalWriter) -> None:
    """A held back file comes after the next ones, and an archived one comes again."""
    for numbers in ((1, 4), (3,), (4, 2), (2, 3)):
        events = (put(scene, primary, *numbers), scene.run())[1]
        assert names(events, FileSkipped) == names(events, FileQuarantined) == []
    assert archived(scene) == {name_of(number) for number in (1, 2, 3, 4)}
    assert known_breaks(scene.catalog, SYSTEM_IDENTIFIER) == {}


def test_a_standby_that_archives_too_is_not_refused(scene: ArchiveScene, tmp_path: Path, primary: WalWriter) -> None:
    """With archive_mode=always both have the same files; after a promotion the standby goes on alone."""
    other = host(tmp_path / "other", scene)
    for numbers in ((1, 2), (3, 4)):
        for one in (scene, other):
            put(one, primary, *numbers)
            assert names(one.run(), FileSkipped) == []
    standby = promote(other, primary)
    write(standby, until=8)
    made = put(other, standby, 5, 6, 7)
    assert sorted(names(other.run(), FileReleased)) == ["00000002.history", *made]


def test_the_checks_ask_no_store_in_the_normal_case(scene: ArchiveScene, primary: WalWriter) -> None:
    """What the segment before ends with is known: only the uploader asks, for an earlier copy of the file itself."""
    put(scene, primary, 1, 2)
    scene.run()
    before = {name: len(store.calls) for name, store in scene.stores.items()}
    (name,) = put(scene, primary, 3)
    assert names(scene.run(), FileReleased) == [name]
    for store, inner in scene.stores.items():
        others = [call for call, key in inner.calls[before[store] :] if name not in key]
        assert others == ["list"]
