"""Recovery settings in postgresql.auto.conf."""

from pathlib import Path

import pytest

from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.recovery import RecoverySettings, TargetAction, drop_setting, quoted, write_recovery_settings

TO_TIME = RecoverySettings(
    "mv '/a b/%f' \"%p\"", ("recovery_target_time", "2026-11-22 17:45:00+00:00"), False, "3", TargetAction.PAUSE
)


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
        "hot_standby = 'on'",
        "recovery_min_apply_delay = '0'",
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
        "hot_standby = 'off'",
        "recovery_min_apply_delay = '0'",
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


def test_a_setting_is_taken_out_and_nothing_else(tmp_path: Path) -> None:
    """The other lines, the mode and the owner stay."""
    auto = tmp_path / "postgresql.auto.conf"
    auto.write_text("# kept\nhot_standby = 'off'\nwork_mem = '64MB'\n")
    drop_setting(tmp_path, "hot_standby")
    assert auto.read_text() == "# kept\nwork_mem = '64MB'\n"
    assert auto.stat().st_mode & 0o777 == 0o600


def test_no_link_of_the_servers_user_is_written_through(tmp_path: Path) -> None:
    """Root takes a setting out of a file in a folder of another user."""
    precious = tmp_path / "precious"
    precious.write_text("root's\n")
    (tmp_path / "postgresql.auto.conf").write_text("hot_standby = 'off'\n")
    (tmp_path / "postgresql.auto.conf.wal-pipeline").symlink_to(precious)
    with pytest.raises(PostgresError, match="cannot be written: File exists"):
        drop_setting(tmp_path, "hot_standby")
    assert precious.read_text() == "root's\n"
