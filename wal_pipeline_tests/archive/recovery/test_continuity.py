"""A recovery window ends before a segment that does not continue the one before it, and no window joins the two."""

from dataclasses import replace

import pytest

from wal_pipeline.archive.records import WalFile
from wal_pipeline.archive.recovery.continuity import history_fault, joint_fault, split_runs, switch_fits
from wal_pipeline.archive.recovery.coverage import ArchiveContents
from wal_pipeline.archive.recovery.gaps import find_breaks, find_gaps
from wal_pipeline.archive.recovery.restore_plan import plan_restore
from wal_pipeline.archive.recovery.target import RecoveryTarget
from wal_pipeline.archive.recovery.window import WindowEnd, recovery_windows
from wal_pipeline.wal.joint import Joint, SegmentJoints
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline_tests.support.archive_worlds import backup, contents, day_segments, history, lsn, name, segment

BACKUP = backup("one", 1, 2.1, 2.5)


def joined(files: list[WalFile], *, broken: int | None = None) -> list[WalFile]:
    """Return the segments with joints that fit, but for the one with the number ``broken``."""
    found = []
    for number, file in enumerate(files, 1):
        begins = Joint(lsn(number - 0.01), 0 if number != broken else 7)
        found.append(replace(file, joints=SegmentJoints(1, begins=begins, ends=Joint(lsn(number + 0.99), 0))))
    return found


def test_segments_that_fit_make_one_window() -> None:
    """No break, no gap."""
    found = contents(joined(day_segments(1, range(1, 8))), [BACKUP])
    assert found.breaks == {}
    assert [window.last_segment for window in recovery_windows(found)] == [name(1, 7)]


def test_no_window_passes_into_a_segment_that_continues_nothing() -> None:
    """It is named with the reason, in the window, in the plan, and beside the gaps, of which it is none."""
    found = contents(joined(day_segments(1, range(1, 8)), broken=5), [BACKUP])
    assert list(found.breaks) == [name(1, 5)]
    (window,) = recovery_windows(found)
    assert (window.last_segment, window.ended_by, window.first_missing) == (name(1, 4), WindowEnd.BREAK, name(1, 5))
    plan = plan_restore(found, RecoveryTarget())
    assert plan.bound == name(1, 4)
    assert any(f"ends before '{name(1, 5)}', which is there and cannot be replayed" in note for note in plan.notes)
    assert find_gaps(found) == ()
    assert [(one.segment, one.closed_by) for one in find_breaks(found)] == [(name(1, 5), None)]


def test_a_later_base_backup_closes_a_break() -> None:
    """It begins a window that needs nothing from before."""
    files = joined(day_segments(1, range(1, 9)), broken=5)
    found = contents(files, [BACKUP, backup("two", 1, 6.1, 6.5)])
    assert [one.closed_by for one in find_breaks(found)] == ["two"]


def test_segments_without_joints_are_not_compared() -> None:
    """Archives of earlier versions have none."""
    files = day_segments(1, range(1, 8))
    files[3] = joined(files, broken=4)[3]
    assert contents(files, [BACKUP]).breaks == {}


@pytest.mark.parametrize(
    ("joints", "fault"),
    [
        (SegmentJoints(1, own_from=lsn(5.3)), None),
        (SegmentJoints(2), "it begins on timeline 2, but by '00000002.history' timeline 1 ends at "),
        (SegmentJoints(1, own_from=lsn(5.9)), "timeline 2 begins in it before "),
    ],
)
def test_a_segment_of_another_servers_timeline_is_told_by_its_pages(joints: SegmentJoints, fault: str | None) -> None:
    """Two servers are promoted at different places: the pages say where, and the archived history where it must be."""
    file = replace(segment(2, 5, day_segments(1, [5])[0].spooled_at), joints=joints)
    found = history_fault(file, history(2, 1, 5.3))
    assert found == fault if fault is None else (found or "").startswith(fault)


def test_wal_that_was_begun_anew_continues_nothing() -> None:
    """As after pg_resetwal."""
    anew = SegmentJoints(1, begins=Joint(Lsn(0), 0))
    before = SegmentJoints(1, ends=Joint(Lsn(100), 0))
    assert joint_fault("X", before, anew) == "its WAL was begun anew, as pg_resetwal does: it does not continue 'X'"
    assert joint_fault("X", None, SegmentJoints(1)) is None


def test_runs_are_cut_before_each_break() -> None:
    """Also where several breaks lie in one run, and where one is its first segment."""
    assert split_runs([(1, 9), (12, 14)], [1, 4, 7, 13]) == [(1, 3), (4, 6), (7, 9), (12, 12), (13, 14)]


def test_a_switch_lies_on_the_page_before_the_first_own_one() -> None:
    """Only pages of the usual size tell it."""
    assert switch_fits(SegmentJoints(1, own_from=Lsn(lsn(5.3) + 100)), history(2, 1, 5.3))
    assert not switch_fits(SegmentJoints(1, own_from=Lsn(lsn(5.3) + 9000)), history(2, 1, 5.3))
    assert not switch_fits(SegmentJoints(1), history(2, 1, 5.3))


def test_breaks_that_are_known_from_elsewhere_count() -> None:
    """The catalog keeps them, since its records have no joints."""
    plain = contents(day_segments(1, range(1, 8)), [BACKUP])
    found = ArchiveContents.of(
        plain.system_identifier,
        files=plain.files.values(),
        copies=plain.copies,
        backups=plain.backups.values(),
        breaks={name(1, 5): "because"},
    )
    assert [window.last_segment for window in recovery_windows(found)] == [name(1, 4)]
