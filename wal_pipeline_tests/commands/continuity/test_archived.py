"""What the archive holds beside a segment is known from the catalog, else from a store, and never guessed."""

from wal_pipeline.commands.continuity.archived import (
    ArchivedWal,
    ClusterKnowledge,
    knowledge_from_json,
    knowledge_to_json,
    known_breaks,
    record_breaks,
)
from wal_pipeline.wal.joint import Joint, SegmentJoints
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline_tests.support.archive_scene import ArchiveScene, fail, layout
from wal_pipeline_tests.support.segments import SYSTEM_IDENTIFIER, name_of
from wal_pipeline_tests.support.wal_writer import MIB, WalWriter

HISTORY = b"1\t0/500000\tno recovery target specified\n"


def put(scene: ArchiveScene, *numbers: int) -> None:
    """Archive segments of one server."""
    writer = WalWriter()
    while writer.position < 6 * MIB:
        writer.record(3000)
    for number, data in writer.segments():
        if number in numbers:
            (scene.spool_folder / name_of(number)).write_bytes(data)
    scene.run()


def archived(scene: ArchiveScene) -> ArchivedWal:
    """Return what a new run knows."""
    return ArchivedWal(scene.stores, scene.catalog, layout)


def test_the_next_run_knows_the_last_segment_without_a_store(scene: ArchiveScene) -> None:
    """The catalog keeps its end, with its cluster's segment size."""
    put(scene, 1, 2)
    for store in scene.stores.values():
        store.before = fail(store.name)
    found = archived(scene)
    joints = found.joints(SYSTEM_IDENTIFIER, name_of(2))
    assert joints is not None
    assert joints.ends is not None
    assert found.segment_size(SYSTEM_IDENTIFIER) == MIB


def test_a_lost_catalog_is_answered_by_the_stores(scene: ArchiveScene) -> None:
    """The object's metadata has what the segment ends with; one store that fails does not matter."""
    put(scene, 1, 2)
    expected = archived(scene).joints(SYSTEM_IDENTIFIER, name_of(2))
    scene.lose_catalog()
    scene.stores["r2"].before = fail("r2")
    found = archived(scene)
    found.look_up(SYSTEM_IDENTIFIER, name_of(2))
    known = found.joints(SYSTEM_IDENTIFIER, name_of(2))
    assert known is not None
    assert expected is not None
    assert (known.begins, known.ends) == (expected.begins, expected.ends)
    assert found.segment_size(SYSTEM_IDENTIFIER) == MIB


def test_what_no_store_tells_is_unknown(scene: ArchiveScene) -> None:
    """No error, and nothing is made up."""
    found = archived(scene)
    found.look_up(SYSTEM_IDENTIFIER, name_of(2))
    found.look_up_history(SYSTEM_IDENTIFIER, 2)
    assert found.joints(SYSTEM_IDENTIFIER, name_of(2)) is None
    assert found.cluster(SYSTEM_IDENTIFIER).histories == {2: None}
    assert found.segment_size(SYSTEM_IDENTIFIER) is None


def test_a_history_that_the_catalog_keeps_damaged_stops_nothing(scene: ArchiveScene) -> None:
    """It is unknown until a store is asked."""
    kept = {"00000002.history": b"nonsense".hex(), "00000003.history": b"2\t0/600000\tx\n".hex()}
    scene.catalog.values.put(f"timeline_histories/{SYSTEM_IDENTIFIER}", kept)
    assert list(archived(scene).cluster(SYSTEM_IDENTIFIER).histories) == [3]


def test_a_history_is_fetched_from_a_store(scene: ArchiveScene) -> None:
    """Once it is archived, a run with another catalog finds it."""
    put(scene, 1, 2)
    (scene.spool_folder / "00000002.history").write_bytes(HISTORY)
    scene.run()
    scene.lose_catalog()
    found = archived(scene)
    found.look_up_history(SYSTEM_IDENTIFIER, 2)
    history = found.cluster(SYSTEM_IDENTIFIER).histories[2]
    assert history is not None
    assert history.switches[0].lsn == Lsn(0x500000)


def test_breaks_are_kept_until_they_are_compared_again(scene: ArchiveScene) -> None:
    """A verification replaces those of the segments that it compared, and no other."""
    record_breaks(scene.catalog, SYSTEM_IDENTIFIER, [], {"A": "one", "B": "two"})
    assert record_breaks(scene.catalog, SYSTEM_IDENTIFIER, ["A"], {}) == {"B": "two"}
    assert known_breaks(scene.catalog, SYSTEM_IDENTIFIER) == {"B": "two"}


def test_what_is_known_is_written_and_read() -> None:
    """As the catalog keeps it."""
    joints = SegmentJoints(1, begins=Joint(Lsn(8), None), ends=Joint(None, 5))
    known = ClusterKnowledge(newest={1: ("X", joints)}, breaks={"Y": "why"})
    assert knowledge_from_json(knowledge_to_json(known)) == known
    assert knowledge_from_json({}) == ClusterKnowledge()
