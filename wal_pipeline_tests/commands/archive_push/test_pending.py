"""Whether the spool holds work now, and how a sensor's tick says so."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from wal_pipeline.archive.records import CopyStatus
from wal_pipeline.catalog.store_states import StoreState
from wal_pipeline.commands.archive_push.backlog import look_up
from wal_pipeline.commands.archive_push.pending import PendingWork, pending_work
from wal_pipeline.commands.pause import pause
from wal_pipeline_tests.support.archive_scene import ArchiveScene, fill
from wal_pipeline_tests.support.catalog_records import copy_of, segment
from wal_pipeline_tests.support.restore_archive import describe_file
from wal_pipeline_tests.support.segments import SYSTEM_IDENTIFIER, name_of, spool_segments


def look(scene: ArchiveScene) -> PendingWork:
    return pending_work(scene.spool, scene.catalog, ("r2", "b2"), scene.clock())


def rest(scene: ArchiveScene, store: str) -> None:
    """Record that a store failed just now."""
    now = scene.clock()
    scene.catalog.stores.save_state(StoreState(store, 1, "down", now, None, now + timedelta(minutes=5)))


def record(scene: ArchiveScene, made: dict[str, bytes], *stores: str) -> None:
    for name, content in made.items():
        file = describe_file(name, content, SYSTEM_IDENTIFIER)
        scene.catalog.files.record_verified(file, [copy_of(file, store) for store in stores])
    scene.catalog.system_identifiers.add(SYSTEM_IDENTIFIER, "test", scene.clock())


def test_an_empty_spool(scene: ArchiveScene) -> None:
    """Nothing waits."""
    work = look(scene)
    assert (work.is_due, work.describe()) == (False, "the spool is empty")


def test_files_wait(scene: ArchiveScene) -> None:
    """Whole files are work; growing ones are told."""
    spool_segments(scene.spool_folder, [1, 2])
    (scene.spool_folder / name_of(3)).write_bytes(b"half")
    work = look(scene)
    assert work.is_due
    assert work.describe() == "2 files wait in the spool (2 MiB), 1 still growing"


def test_only_growing_files(scene: ArchiveScene) -> None:
    """Half a file is no work until it has settled."""
    (scene.spool_folder / name_of(3)).write_bytes(b"half")
    assert not look(scene).is_due
    scene.settle()
    assert look(scene).is_due


def test_files_that_wait_for_a_resting_store_alone(scene: ArchiveScene) -> None:
    """They are no work until it may be tried again; a file that another store lacks is."""
    made = spool_segments(scene.spool_folder, [1, 2])
    record(scene, made, "b2")
    rest(scene, "r2")
    work = look(scene)
    assert not work.is_due
    assert work.describe().startswith("2 files wait in the spool (2 MiB), r2 failed and is tried again at ")
    spool_segments(scene.spool_folder, [3])
    assert look(scene).is_due
    (scene.spool_folder / name_of(3)).unlink()
    scene.settle()
    assert look(scene).is_due


def test_files_that_every_store_holds(scene: ArchiveScene) -> None:
    """They only have to leave the spool: that is work, but not while a store rests, which has to confirm its copy."""
    record(scene, spool_segments(scene.spool_folder, [1]), "r2", "b2")
    assert look(scene).is_due
    rest(scene, "r2")
    assert not look(scene).is_due


def test_a_failed_copy_is_none(scene: ArchiveScene) -> None:
    """A record of a failed try does not count as a copy."""
    made = spool_segments(scene.spool_folder, [1])
    file = describe_file(name_of(1), made[name_of(1)], SYSTEM_IDENTIFIER)
    scene.catalog.files.record_failed(file, copy_of(file, "b2", CopyStatus.FAILED))
    rest(scene, "r2")
    assert look(scene).is_due


def test_a_pause(scene: ArchiveScene) -> None:
    """While archiving is paused nothing is due, and the tick says why."""
    spool_segments(scene.spool_folder, [1])
    pause(scene.catalog, scene.clock(), length=timedelta(hours=1), reason="move", by="anna")
    work = look(scene)
    assert not work.is_due
    assert "archiving is paused until " in work.describe()


def queries_of_a_look(scene: ArchiveScene) -> tuple[PendingWork, int]:
    """Look once; return what was seen, and how many statements the catalog's database ran for it."""
    statements: list[str] = []
    engine = scene.catalog.measures._database._engine

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        return look(scene), sum(not one.startswith("BEGIN") for one in statements)
    finally:
        event.remove(engine, "before_cursor_execute", note)


@pytest.mark.parametrize("owners", [(SYSTEM_IDENTIFIER,), (SYSTEM_IDENTIFIER, SYSTEM_IDENTIFIER + 1)])
def test_a_spool_that_is_ten_times_as_full_costs_no_more_queries(scene: ArchiveScene, owners: tuple[int, ...]) -> None:
    """While a store rests that lacks every file, a tick asks about all of them at once."""
    rest(scene, "r2")
    scene.catalog.system_identifiers.add(SYSTEM_IDENTIFIER, "test", scene.clock())
    asked = []
    for first, last in ((1, 2_000), (2_001, 20_000)):
        fill(scene.spool_folder, last)
        for number, owner in enumerate(owners):
            names = [name_of(one) for one in range(first, last + 1) if one % len(owners) == number]
            files = [replace(segment(), name=name, system_identifier=owner) for name in names]
            scene.catalog.files.record_found(files, [copy_of(file, "b2") for file in files])
        work, queries = queries_of_a_look(scene)
        assert (work.files, work.is_due) == (last, False)
        asked.append(queries)
    assert asked[0] == asked[1] <= 10


def test_the_oldest_of_many_files_is_not_overlooked(scene: ArchiveScene) -> None:
    """One file that the other store lacks is work, however many after it wait for the resting store alone."""
    fill(scene.spool_folder, 3_000)
    files = [replace(segment(), name=name_of(number)) for number in range(2, 3_001)]
    scene.catalog.files.record_found(files, [copy_of(file, "b2") for file in files])
    rest(scene, "r2")
    assert look(scene).is_due


HOLDERS = st.sampled_from([(), ("r2",), ("b2",), ("r2", "b2")])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(st.sampled_from([0, 1]), HOLDERS), min_size=1, max_size=8), st.integers(1, 3))
def test_asking_about_all_files_at_once_says_what_asking_one_by_one_says(
    tmp_path_factory: pytest.TempPathFactory, recorded: list[dict[int, tuple[str, ...]]], one_by_one: int
) -> None:
    """Files of the current cluster, of an earlier one under the same name, of both, of none."""
    scene = ArchiveScene(tmp_path_factory.mktemp("scene"))
    fill(scene.spool_folder, len(recorded))
    for number, owners in enumerate(recorded, start=1):
        for owner, stores in owners.items():
            file = replace(segment(), name=name_of(number), system_identifier=SYSTEM_IDENTIFIER + owner)
            scene.catalog.files.record_found([file], [copy_of(file, store) for store in stores])
    scene.catalog.system_identifiers.add(SYSTEM_IDENTIFIER, "test", scene.clock())
    rest(scene, "r2")
    names = [name_of(number) for number in range(1, len(recorded) + 1)]
    found = look_up(scene.catalog, names).values()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wal_pipeline.commands.archive_push.pending.LOOK_UP_NAMES", one_by_one)
        assert look(scene).is_due == any("b2" not in one.held_by(SYSTEM_IDENTIFIER) for one in found)
