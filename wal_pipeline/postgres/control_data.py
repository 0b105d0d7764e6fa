"""Reads where the recovery of a data directory begins, by pg_controldata of its own version and its backup_label."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.binaries import Binaries
from wal_pipeline.postgres.control_file import ClusterState, read_control_file, run_pg_controldata
from wal_pipeline.wal.backup_label import parse_backup_label
from wal_pipeline.wal.lsn import Lsn

_LABEL: Final = "backup_label"
_REDO: Final = "Latest checkpoint's REDO location"
_CHECKPOINT: Final = "Latest checkpoint location"
_TIMELINE: Final = "Latest checkpoint's TimeLineID"
_MINIMUM: Final = "Minimum recovery ending location"
_SEGMENT: Final = "Bytes per WAL segment"
_HINT: Final = "Use the programs of the cluster's own major version."
_STOPPED: Final = (ClusterState.SHUT_DOWN, ClusterState.SHUT_DOWN_IN_RECOVERY, ClusterState.IN_ARCHIVE_RECOVERY)


@dataclass(frozen=True, slots=True)
class RecoveryStart:
    """Where the recovery of a data directory begins.

    Replay begins at ``redo_lsn`` on ``timeline``, and the directory is consistent at ``consistent_lsn``; None: only the
    WAL tells that. ``ended_at``: its server was shut down then, as a primary; None: it was not.
    """

    system_identifier: int
    timeline: int
    redo_lsn: Lsn
    consistent_lsn: Lsn | None
    wal_segment_size: int
    ended_at: datetime | None


def read_recovery_start(pgdata: Path, binaries: Binaries) -> RecoveryStart:
    """Read it from a data directory whose server does not run.

    Raises: PostgresError; also where the server was neither shut down nor a standby, and no ``backup_label`` is there:
    nothing tells which WAL its files have seen.
    """
    control = read_control_file(pgdata)
    values = _control_values(pgdata, binaries)
    size = int(values[_SEGMENT])
    label = _read_label(pgdata / _LABEL)
    if label is not None:
        found = parse_backup_label(label)
        return RecoveryStart(control.system_identifier, found.timeline, found.start_lsn, None, size, None)
    if control.state not in _STOPPED:
        raise PostgresError(
            f"the cluster in '{pgdata}' was not shut down, and is no base backup: which WAL its files have seen is not "
            "known",
            hint="Restore a base backup instead, without --wal-only.",
        )
    is_primary = control.state == ClusterState.SHUT_DOWN
    ended_at = datetime.fromtimestamp(control.written_epoch + 1, UTC) if is_primary else None
    end = Lsn(Lsn.parse(values[_CHECKPOINT]) + 1) if is_primary else Lsn.parse(values[_MINIMUM])
    redo = Lsn.parse(values[_REDO])
    return RecoveryStart(control.system_identifier, int(values[_TIMELINE]), redo, max(redo, end), size, ended_at)


def _read_label(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PostgresError(f"'{path}' cannot be read: {error.strerror}") from error


def _control_values(pgdata: Path, binaries: Binaries) -> dict[str, str]:
    done = run_pg_controldata(pgdata, binaries)
    program = done.args[0]
    if done.returncode != 0 or "WARNING" in done.stdout + done.stderr:
        words = (done.stderr or done.stdout).strip().splitlines()[:1]
        raise PostgresError(f"'{program}' cannot read '{pgdata}': {''.join(words)}", hint=_HINT)
    values = dict(re.findall(r"^([^:\n]+): +(.*)$", done.stdout, re.MULTILINE))
    missing = {_REDO, _CHECKPOINT, _TIMELINE, _MINIMUM, _SEGMENT} - values.keys()
    if missing:
        raise PostgresError(f"'{program}' does not print '{min(missing)}' of '{pgdata}'", hint=_HINT)
    return values
