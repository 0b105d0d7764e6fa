"""Tests the settings of the base backups' schedules and of the objective for a restore's time."""

from pathlib import Path

import pytest

from wal_pipeline.archive.records import FileComparison
from wal_pipeline.errors import SettingsError
from wal_pipeline.settings import Settings, load_settings


def settings(folder: Path, **given: str) -> Settings:
    (file := folder / "settings.env").touch()
    return load_settings({f"WAL_PIPELINE_{name}": value for name, value in given.items()}, file)


def test_a_full_one_each_week_and_an_incremental_one_on_the_other_days(tmp_path: Path) -> None:
    """Without a setting no day has two base backups, and none has no one."""
    made = settings(tmp_path)
    assert (made.base_backup_full_cron, made.base_backup_incremental_cron) == ("15 2 * * 0", "15 2 * * 1-6")


@pytest.mark.parametrize("cron", ["15 2 * * *", "off"])
def test_the_older_name_means_what_it_meant(tmp_path: Path, cron: str) -> None:
    """Full base backups at these times, and no others: also where it switched all of them off."""
    made = settings(tmp_path, BASE_BACKUP_CRON=cron)
    assert (made.base_backup_full_cron, made.base_backup_incremental_cron) == (cron, "off")


def test_the_older_name_beside_the_new_ones(tmp_path: Path) -> None:
    """Incremental ones can be asked for beside it, and the newer name wins."""
    made = settings(tmp_path, BASE_BACKUP_CRON="1 2 * * *", BASE_BACKUP_INCREMENTAL_CRON="1 4 * * *")
    assert (made.base_backup_full_cron, made.base_backup_incremental_cron) == ("1 2 * * *", "1 4 * * *")
    made = settings(tmp_path, BASE_BACKUP_CRON="1 2 * * *", BASE_BACKUP_FULL_CRON="3 2 * * 0")
    assert (made.base_backup_full_cron, made.base_backup_incremental_cron) == ("3 2 * * 0", "15 2 * * 1-6")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1h", 3600.0), ("90m", 5400.0), ("1h30m", 5400.0), ("45", 45.0), ("1.5h", 5400.0), ("2D", 172800.0)],
)
def test_the_objective_is_a_length_of_time(tmp_path: Path, text: str, seconds: float) -> None:
    """Seconds, or a number with its unit."""
    assert settings(tmp_path, RTO_OBJECTIVE=text).rto_objective_seconds == seconds


def test_the_objective_can_be_switched_off(tmp_path: Path) -> None:
    """The word is that of the schedules."""
    assert settings(tmp_path, RTO_OBJECTIVE="OFF").rto_objective_seconds is None
    assert settings(tmp_path).rto_objective_seconds == 3600.0


@pytest.mark.parametrize("text", ["0", "-5", "soon", "1 fortnight", "h", "1h!"])
def test_what_is_no_length_is_refused(tmp_path: Path, text: str) -> None:
    """The error names the setting."""
    with pytest.raises(SettingsError, match="WAL_PIPELINE_RTO_OBJECTIVE"):
        settings(tmp_path, RTO_OBJECTIVE=text)


@pytest.mark.parametrize("text", ["0", "65", "many"])
def test_a_chain_has_at_least_its_full_base_backup(tmp_path: Path, text: str) -> None:
    """And a bound that nobody restores from is a mistake."""
    with pytest.raises(SettingsError, match="WAL_PIPELINE_BASE_BACKUP_MAX_CHAIN"):
        settings(tmp_path, BASE_BACKUP_MAX_CHAIN=text)


def test_files_are_compared_by_content_unless_a_person_trusts_their_times(tmp_path: Path) -> None:
    """Any other word is refused."""
    assert settings(tmp_path).incremental_compare is FileComparison.CONTENT
    assert settings(tmp_path, INCREMENTAL_COMPARE="time").incremental_compare is FileComparison.TIME
    with pytest.raises(SettingsError, match="WAL_PIPELINE_INCREMENTAL_COMPARE"):
        settings(tmp_path, INCREMENTAL_COMPARE="size")
