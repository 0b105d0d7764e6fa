"""Two timelines that are written to side by side are told from a failover, and neither is passed over."""

from collections.abc import Iterable
from datetime import datetime

import pytest

from wal_pipeline.archive.records import CommitTimes, WalFile
from wal_pipeline.archive.recovery.branches import Branch, branches_of, living_notes
from wal_pipeline.archive.recovery.coverage import ArchiveContents, HeldBackup
from wal_pipeline.archive.recovery.restore_plan import plan_restore, require_chosen_timeline
from wal_pipeline.archive.recovery.target import RecoveryTarget, TargetKind
from wal_pipeline.archive.retention.ages import Ages
from wal_pipeline.archive.retention.rules import live_paths
from wal_pipeline.errors import RecoveryTargetError
from wal_pipeline_tests.support.archive_worlds import (
    SYSTEM,
    backup,
    day,
    day_segments,
    history,
    lsn,
    name,
    other_file,
    segment,
)

WAY = history(2, 1, 5.3)


def archive(files: Iterable[WalFile], *, began_at: datetime | None) -> ArchiveContents:
    """Return an archive in which timeline 2 left timeline 1 at segment 5; its history file came ``began_at``."""
    records = [*files, *([] if began_at is None else [other_file("00000002.history", began_at)])]
    return ArchiveContents.of(
        SYSTEM,
        files=records,
        copies={"r2": {file.name for file in records} | {"00000002.history"}},
        backups=[HeldBackup(backup("one", 1, 2.1, 2.5), frozenset({"r2"}))],
        histories={2: WAY},
    )


def side_by_side(older_until: int = 9) -> ArchiveContents:
    """Return timeline 2 of days 5 to 8 beside timeline 1, which goes on."""
    segments = [*day_segments(1, range(1, older_until + 1)), *day_segments(2, range(5, 9))]
    return archive(segments, began_at=day(5.3))


def test_a_failover_whose_old_server_ended_is_no_second_server() -> None:
    """Its last commits came before the new timeline began, though they lie past the switch."""
    found = archive([*day_segments(1, range(1, 6)), *day_segments(2, range(6, 9))], began_at=day(5.9))
    assert branches_of(found) == ()
    assert plan_restore(found, RecoveryTarget()).rival is None


def test_where_nobody_knows_when_the_timeline_began_nothing_is_said() -> None:
    """The history file is recorded elsewhere, and no commit of the newer timeline is known."""
    unknown = [segment(2, n, day(n), times=CommitTimes.UNKNOWN) for n in (5, 6, 7)]
    assert branches_of(archive([*day_segments(1, range(1, 10)), *unknown], began_at=None)) == ()


def test_both_ends_are_told() -> None:
    """The segment of each end, the place where they part, and the times."""
    (found,) = branches_of(side_by_side())
    assert found == Branch(1, 2, lsn(5.3), 5, name(1, 9), day(9.75), day(8.75), day(5.3))
    assert (found.is_live, found.has_outlived) == (True, True)
    assert living_notes([found]) == (
        f"timeline 1 goes on until 2026-01-10 18:00:00Z ('{name(1, 9)}') past {lsn(5.3)}, where it parts from timeline "
        "2, which has commits until 2026-01-09 18:00:00Z: two servers archive side by side",
    )


def test_an_older_timeline_that_ended_long_ago_is_no_choice() -> None:
    """It stands in the plan, and the restore follows the newest one."""
    plan = plan_restore(side_by_side(older_until=6), RecoveryTarget())
    assert plan.rival is None
    assert [note.endswith("timeline 2 was chosen.") for note in plan.notes] == [True]
    require_chosen_timeline(plan)


def test_a_restore_does_not_choose_between_two_living_timelines() -> None:
    """It is refused with both names; a person's choice, and a moment before they parted, are none."""
    found = side_by_side()
    with pytest.raises(RecoveryTargetError, match="two servers archive side by side") as caught:
        require_chosen_timeline(plan_restore(found, RecoveryTarget()))
    assert caught.value.hint is not None
    assert "Choose with --timeline 1 or --timeline 2." in caught.value.hint
    before = RecoveryTarget(TargetKind.TIME, at=day(4.5))
    for target in (RecoveryTarget(timeline=1), RecoveryTarget(timeline=2), before):
        require_chosen_timeline(plan_restore(found, target))


def test_retention_keeps_both_ends() -> None:
    """What either of two living timelines needs lies on a path that is kept."""
    found = side_by_side()
    kept = live_paths(found, Ages.of(found, day(10)), day(7))
    assert {path.timeline for path in kept} == {1, 2}
