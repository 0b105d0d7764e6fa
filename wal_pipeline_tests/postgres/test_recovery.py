"""Recovery settings in postgresql.auto.conf, and a recovery's progress read from the server's log."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.recovery import RecoverySettings, TargetAction, quoted, write_recovery_settings
from wal_pipeline.postgres.recovery_server import RecoveryProgress, RecoveryState
from wal_pipeline.wal.lsn import Lsn

TO_TIME = RecoverySettings(
    "mv '/a b/%f' \"%p\"", ("recovery_target_time", "2026-11-22 17:45:00+00:00"), False, "3", TargetAction.PAUSE
)
LOG = """\
2026-11-22 18:35:33.336 UTC [15139] LOG:  database system was interrupted; last known up at 2026-11-22 18:35:24 UTC
2026-11-22 18:35:34.170 UTC [15139] LOG:  restored log file "000000010000000000000015" from archive
2026-11-22 18:35:35.072 UTC [15139] LOG:  redo starts at 0/1500028
2026-11-22 18:35:36.413 UTC [15139] LOG:  consistent recovery state reached at 0/1500120
2026-11-22 18:35:36.413 UTC [15131] LOG:  database system is ready to accept read-only connections
2026-11-22 18:35:36.413 UTC [15139] LOG:  recovery stopping before commit of transaction 6, time 2026-11-22 18:35:27+00
2026-11-22 18:35:36.413 UTC [15139] LOG:  redo done at 0/161F340 system usage: CPU: user: 0.00 s
2026-11-22 18:35:36.413 UTC [15139] LOG:  last completed transaction was at log time 2026-11-22 19:35:27.57309+01
2026-11-22 18:35:37.925 UTC [15139] LOG:  selected new timeline ID: 2
2026-11-22 18:35:39.732 UTC [15131] LOG:  database system is ready to accept connections
"""


def test_settings_replace_those_that_the_base_backup_brought(tmp_path: Path) -> None:
    """Old recovery settings and standby.signal go, other lines stay, and a second restore leaves the same file."""
    auto = tmp_path / "postgresql.auto.conf"
    auto.write_text(
        "# kept\nwork_mem = '64MB'\nRestore_Command = 'old'\nprimary_conninfo='host=x'\nrecovery_target_xid 7\n"
    )
    (tmp_path / "standby.signal").touch()
    write_recovery_settings(tmp_path, TO_TIME)
    first = auto.read_text()
    assert first.splitlines() == [
        "# kept",
        "work_mem = '64MB'",
        "# Recovery settings of wal-pipeline restore",
        "restore_command = 'mv ''/a b/%f'' \"%p\"'",
        "recovery_end_command = ''",
        "archive_cleanup_command = ''",
        "recovery_target = ''",
        "recovery_target_lsn = ''",
        "recovery_target_xid = ''",
        "recovery_target_name = ''",
        "recovery_target_timeline = '3'",
        "recovery_target_action = 'pause'",
        "recovery_target_inclusive = 'off'",
        "recovery_target_time = '2026-11-22 17:45:00+00:00'",
    ]
    assert (tmp_path / "recovery.signal").exists()
    assert not (tmp_path / "standby.signal").exists()
    write_recovery_settings(tmp_path, TO_TIME)
    kept = ["# kept", "work_mem = '64MB'", "# Recovery settings of wal-pipeline restore"]
    assert [line for line in auto.read_text().splitlines() if line not in kept] == first.splitlines()[3:]


def test_every_target_is_written_and_only_the_last_has_a_value() -> None:
    """An old target in postgresql.conf is overruled, and an empty one after the chosen one would be a second one."""
    end = RecoverySettings("x", None, True, "latest", TargetAction.PROMOTE, (("archive_mode", "off"),))
    unset = [f"recovery_target{kind} = ''" for kind in ("", "_time", "_lsn", "_xid", "_name")]
    commands = ["recovery_end_command = ''", "archive_cleanup_command = ''"]
    assert end.lines() == [
        "restore_command = 'x'",
        *commands,
        *unset,
        "recovery_target_timeline = 'latest'",
        "recovery_target_action = 'promote'",
        "recovery_target_inclusive = 'on'",
        "archive_mode = 'off'",
    ]
    immediate = RecoverySettings("x", ("recovery_target", "immediate"), True, "1", TargetAction.SHUTDOWN).lines()
    assert [line for line in immediate if line.startswith("recovery_target") and line.endswith("''")] == unset[1:]
    assert immediate[-1] == "recovery_target = 'immediate'"


def test_values_are_quoted_for_postgresql_conf() -> None:
    """Quotes are doubled and backslashes escaped; a line break is refused."""
    assert quoted("a'b\\c") == "'a''b\\\\c'"
    with pytest.raises(PostgresError) as caught:
        quoted("a\nb")
    assert caught.value.message == (
        "value 'a\\nb' cannot stand in 'postgresql.auto.conf': it has a line break or a null character"
    )


def test_progress_is_read_from_the_log() -> None:
    """Each state and what was reached, in whatever zone the server writes times."""
    progress = RecoveryProgress()
    states = []
    for seconds, line in enumerate(LOG.splitlines()):
        progress.read(line, seconds)
        states.append(progress.state)
    assert states == [
        RecoveryState.STARTING,
        RecoveryState.STARTING,
        RecoveryState.REPLAYING,
        *[RecoveryState.CONSISTENT] * 6,
        RecoveryState.OPEN,
    ]
    assert (progress.redo_lsn, progress.consistent_lsn) == (Lsn.parse("0/1500028"), Lsn.parse("0/1500120"))
    assert (progress.replayed_lsn, progress.timeline, progress.segments) == (Lsn.parse("0/161F340"), 2, 1)
    assert progress.last_commit_at == datetime(2026, 11, 22, 18, 35, 27, 573090, tzinfo=UTC)
    assert progress.stopped == "recovery stopping before commit of transaction 6, time 2026-11-22 18:35:27+00"
    assert progress.seconds == {"starting": 1, "replaying": 2, "consistent": 3, "open": 9}


def test_errors_are_kept() -> None:
    """A fatal line is kept in the server's words."""
    progress = RecoveryProgress()
    progress.read("x FATAL:  recovery ended before configured recovery target was reached", 1)
    assert progress.errors == ["FATAL:  recovery ended before configured recovery target was reached"]
