"""The intake: which waiting file begins next, which may be passed, and which must wait."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from wal_pipeline.catalog.store_states import StoreState
from wal_pipeline.commands.archive_push.backlog import Backlog, Recorded
from wal_pipeline.commands.archive_push.flow_control import FlowControl
from wal_pipeline.commands.archive_push.intake import Intake
from wal_pipeline.commands.archive_push.job import FileJob
from wal_pipeline.commands.archive_push.uploader import StoreUploader
from wal_pipeline_tests.support.archive_scene import ArchiveScene
from wal_pipeline_tests.support.segments import SYSTEM_IDENTIFIER, name_of, spool_segments

NONE: frozenset[str] = frozenset()


@dataclass
class Desk:
    """An intake over a real spool and catalog; ``begin`` begins each job as a run does."""

    scene: ArchiveScene
    backlog: Backlog
    uploaders: dict[str, StoreUploader]
    flow: FlowControl
    jobs: dict[str, FileJob] = field(default_factory=dict)

    @property
    def intake(self) -> Intake:
        return Intake(self.backlog, self.uploaders, self.flow, self.jobs, concurrency=1)

    def begin(self, intake: Intake, held: frozenset[str] = NONE) -> list[tuple[str, frozenset[str]]]:
        self.backlog.mark_stale()
        self.backlog._scanned_at = float("-inf")
        self.backlog.refresh(self.jobs)
        begun = []
        for job in intake.jobs(SYSTEM_IDENTIFIER, held):
            self.jobs[job.name] = job
            job.waiting = set(job.wanted)
            self.flow.begin(job)
            begun.append((job.name, job.wanted))
        return begun


@pytest.fixture
def desk(scene: ArchiveScene) -> Iterator[Desk]:
    stores = {
        name: StoreUploader(store, StoreState(name), width=1, read_back=True, max_backoff_seconds=300.0)
        for name, store in scene.stores.items()
    }
    backlog = Backlog(scene.archiver()._spool, scene.catalog, scene.clock)
    yield Desk(scene, backlog, stores, FlowControl(stores, 1 << 30))
    for uploader in stores.values():
        uploader.close()


def names(*numbers: int) -> list[str]:
    return [name_of(number) for number in numbers]


def test_files_begin_in_order_until_there_is_no_room(desk: Desk) -> None:
    """Every store takes each, as many as a store has room for; the rest stays in the backlog in its order."""
    spool_segments(desk.scene.spool_folder, range(1, 7))
    begun = desk.begin(desk.intake)
    assert begun == [(name, frozenset({"r2", "b2"})) for name in names(1, 2, 3)]
    assert [desk.backlog.waiting.pop().name.name for _ in range(len(desk.backlog.waiting))] == names(4, 5, 6)


def test_a_file_that_only_resting_stores_lack_is_left_for_later(desk: Desk) -> None:
    """It is taken off the list; when the store may be tried again, the spool is listed again and the file begins."""
    spool_segments(desk.scene.spool_folder, [1])
    intake, now = desk.intake, desk.scene.clock()
    for uploader in desk.uploaders.values():
        uploader.failed(now, "it is down")
    intake.note_resting(now)
    assert intake.has_open_store(NONE) is False
    assert desk.begin(intake) == []
    assert len(desk.backlog.waiting) == 0
    desk.backlog._stale = False
    intake.note_resting(now + timedelta(minutes=10))
    assert desk.backlog.is_unsure
    assert desk.begin(intake) == [(names(1)[0], frozenset({"r2", "b2"}))]


def test_a_held_store_gets_nothing(desk: Desk) -> None:
    """A run whose time is over gives the store that it still waits for no new file; the other one goes on."""
    spool_segments(desk.scene.spool_folder, [1, 2])
    assert desk.begin(desk.intake, frozenset({"r2"})) == [(name, frozenset({"b2"})) for name in names(1, 2)]
    assert desk.intake.has_open_store(frozenset({"r2", "b2"})) is False


def test_a_file_that_only_a_store_behind_lacks_is_passed(desk: Desk) -> None:
    """It waits among the postponed; files after it, which other stores lack too, begin before it."""
    spool_segments(desk.scene.spool_folder, range(1, 4))
    desk.scene.run()
    spool_segments(desk.scene.spool_folder, range(1, 6))
    for name in names(1, 2, 3):
        desk.scene.catalog.files.remove_copy(SYSTEM_IDENTIFIER, [name], "r2")
    desk.flow.begin(_slow_job(desk))
    desk.flow.behind.add("r2")
    assert desk.begin(desk.intake) == [(name, frozenset({"b2"})) for name in names(4, 5)]
    assert len(desk.backlog.postponed) == 3


def _slow_job(desk: Desk) -> FileJob:
    """A job that fills the store ``r2`` as three files do."""
    [spooled, *_] = desk.scene.archiver()._spool.scan(desk.scene.clock()).ready
    job = FileJob(spooled, Recorded(), frozenset({"r2"}), 0)
    job.waiting = {"r2"}
    desk.uploaders["r2"].in_flight = 2
    return job


def test_many_files_that_wait_for_confirmation_keep_no_new_file_waiting(desk: Desk) -> None:
    """Files that every store has are only confirmed: beyond four times the concurrency they wait, new ones begin."""
    spool_segments(desk.scene.spool_folder, range(1, 9))
    desk.scene.run()
    spool_segments(desk.scene.spool_folder, range(1, 10))
    begun = desk.begin(desk.intake)
    assert begun[:4] == [(name, NONE) for name in names(1, 2, 3, 4)]
    assert begun[4:] == [(names(9)[0], frozenset({"r2", "b2"}))]
    assert len(desk.backlog.postponed) == 4
