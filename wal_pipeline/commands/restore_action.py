"""Whether PostgreSQL can do at the target of a plan what it shall do there."""

from wal_pipeline.archive.recovery_target import RecoveryTarget, TargetKind
from wal_pipeline.errors import RestoreError
from wal_pipeline.postgres.recovery import TargetAction


def require_action(asked: RecoveryTarget, target: RecoveryTarget, action: TargetAction) -> None:
    """Return where the action can be done; ``asked`` is what the plan was made for, ``target`` what is written.

    Raises: RestoreError for a pause or a shutdown at the end of the archive: without a target PostgreSQL ignores
    recovery_target_action and opens.
    """
    if target.kind is not TargetKind.END or action is TargetAction.PROMOTE:
        return
    if asked.kind is TargetKind.END:
        raise RestoreError(
            f"PostgreSQL cannot {action.value} at the end of the archive: it opens the cluster there",
            hint="Name a target before the end, or leave the action at promote.",
        )
    raise RestoreError(
        f"PostgreSQL cannot {action.value} at {asked}, the last commit that is archived: it stops at a time only "
        "where a later commit follows",
        hint="Name an earlier time, add --exclusive to stop just before this commit, or leave the action at promote.",
    )
