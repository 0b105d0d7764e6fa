"""Says which command mends the cause of each kind of alert, or shows what it is."""

from collections.abc import Mapping
from typing import Final

from wal_pipeline.archive.alerts import AlertKind

_REMEDIES: Final[Mapping[AlertKind, str]] = {
    AlertKind.COPY_FAILED: "wal-pipeline check",
    AlertKind.STORE_DOWN: "wal-pipeline check",
    AlertKind.SPOOL_GROWING: "wal-pipeline status; wal-pipeline archive",
    AlertKind.SPOOL_NEAR_FULL: "wal-pipeline status; wal-pipeline archive",
    AlertKind.ARCHIVER_FAILING: "wal-pipeline setup",
    AlertKind.NO_NEW_WAL: "wal-pipeline setup",
    AlertKind.GAP: "wal-pipeline verify --repair; where nobody has the segment: wal-pipeline backup",
    AlertKind.QUARANTINE: "wal-pipeline check",
    AlertKind.BASE_BACKUP_FAILED: "wal-pipeline backup",
    AlertKind.BASE_BACKUP_OLD: "wal-pipeline backup",
    AlertKind.BASE_BACKUP_WAITING: "wal-pipeline archive",
    AlertKind.BASE_BACKUP_WARNING: "wal-pipeline backup",
    AlertKind.PAGES_DAMAGED: "pg_amcheck on the server; then wal-pipeline backup",
    AlertKind.DRILL_FAILED: "wal-pipeline drill",
    AlertKind.DRILL_OLD: "wal-pipeline drill",
    AlertKind.DAMAGE: "wal-pipeline verify --repair",
    AlertKind.RETENTION_FAILED: "wal-pipeline expire",
    AlertKind.DISK_LOW: "df -h; wal-pipeline status",
    AlertKind.RUN_FAILED: "open the run; then launch it again, or wal-pipeline alerts close",
    AlertKind.PAUSED: "wal-pipeline resume",
    AlertKind.CATALOG_BEHIND: "wal-pipeline catalog rebuild",
    AlertKind.SENSOR_SILENT: "systemctl restart wal-pipeline-daemon",
    AlertKind.OLDER_TIMELINE: "stop the server that is not wanted; wal-pipeline status names both",
    AlertKind.NOT_SHIPPING: "wal-pipeline check; wal-pipeline ship",
    AlertKind.TAIL_OLD: "wal-pipeline check",
    AlertKind.TAIL_CONFLICT: "stop the server that is not wanted; then wal-pipeline verify",
    AlertKind.SLOT_HOLDS_WAL: "wal-pipeline slot check; wal-pipeline ship",
    AlertKind.RESTORE_SLOW: "wal-pipeline backup, where it says that this helps; wal-pipeline drill measures again",
    AlertKind.CATALOG_DOWN: "wal-pipeline status",
    AlertKind.CLONE_ENDED: "wal-pipeline clone makes it anew, with --for for longer",
    AlertKind.WRONG_CLUSTER: "wal-pipeline setup",
}


def remedy(kind: AlertKind) -> str:
    """Return the command to type first; for some kinds what a person has to do before."""
    return _REMEDIES[kind]
