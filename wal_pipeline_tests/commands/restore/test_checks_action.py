"""What the server shall do at its target, where it has none."""

from datetime import UTC, datetime

import pytest

from wal_pipeline.archive.recovery.target import RecoveryTarget, TargetKind
from wal_pipeline.commands.restore.checks import require_action
from wal_pipeline.errors import RestoreError
from wal_pipeline.postgres.recovery import TargetAction

END = RecoveryTarget()
TIME = RecoveryTarget(kind=TargetKind.TIME, at=datetime(2026, 11, 1, 10, tzinfo=UTC))


def test_a_promotion_and_a_true_target_pass() -> None:
    """PostgreSQL opens at the end by itself, and does what it is told at a target."""
    require_action(END, END, TargetAction.PROMOTE)
    require_action(TIME, END, TargetAction.PROMOTE)
    require_action(TIME, TIME, TargetAction.PAUSE)


@pytest.mark.parametrize("action", [TargetAction.PAUSE, TargetAction.SHUTDOWN])
def test_a_pause_or_shutdown_at_the_end_is_refused(action: TargetAction) -> None:
    """PostgreSQL would ignore it and open."""
    with pytest.raises(RestoreError) as caught:
        require_action(END, END, action)
    assert str(caught.value) == (
        f"PostgreSQL cannot {action} at the end of the archive: it opens the cluster there\n"
        "HINT: Name a target before the end, or leave the action at promote."
    )


def test_a_pause_at_the_last_commit_is_refused_with_a_way_out() -> None:
    """The plan makes the end of it."""
    with pytest.raises(RestoreError) as caught:
        require_action(TIME, END, TargetAction.PAUSE)
    assert str(caught.value) == (
        "PostgreSQL cannot pause at time 2026-11-01 10:00:00+00:00, the last commit that is archived: it stops at a "
        "time only where a later commit follows\n"
        "HINT: Name an earlier time, add --exclusive to stop just before this commit, or leave the action at promote."
    )
