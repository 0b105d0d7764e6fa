"""Whether this host's clock can be trusted with an expiry: a clock that is months ahead makes all of an archive old."""

from datetime import datetime

from wal_pipeline.archive.retention_rules import RetentionRule
from wal_pipeline.commands.expire_survey import Survey

CLOCK_HINT = (
    "Set this host's clock right; if it is right and nothing was archived for so long, "
    "'wal-pipeline expire --confirm --trust-clock' goes on."
)


def clock_doubt(survey: Survey, rule: RetentionRule, now: datetime) -> str | None:
    """Say why the clock may be wrong: the newest thing in the whole archive is older than the window.

    Times later than ``now`` prove nothing: a clock was wrong then, or is now.
    """
    files = (file.spooled_at for cluster in survey.clusters for file in cluster.contents.files.values())
    backups = (held.backup.finished_at for cluster in survey.clusters for held in cluster.contents.backups.values())
    newest_at = max((at for times in (files, backups) for at in times if at <= now), default=None)
    if newest_at is None or newest_at >= rule.starts_at(now):
        return None
    return (
        f"nothing expires: it is {now:%Y-%m-%d %H:%M}Z by this host's clock, and the newest file of the whole archive "
        f"is from {newest_at:%Y-%m-%d %H:%M}Z, before the window of {rule.window.days} days began"
    )
