"""Tests that the schedules of many clusters do not begin in one minute, and that a setting counts as it is."""

from itertools import pairwise
from pathlib import Path

from wal_pipeline.settings import Settings, load_settings
from wal_pipeline.wiring.settings_check import cron_of, describe_crons, minutes_of

DAILY = ("base_backup_incremental_cron", "verify_cron", "retention_cron", "check_cron")


def settings(folder: Path, **given: str) -> Settings:
    (file := folder / "settings.env").touch()
    return load_settings(given, file)


def minute_of_day(cron: str) -> int:
    """Return the minutes since midnight of a daily cron expression."""
    minute, hour, *_days = cron.split()
    return 60 * int(hour) + int(minute)


def test_clusters_are_spread_over_the_hour() -> None:
    """A name always has the same minutes, and a hundred clusters do not meet in a few of them."""
    found = [minutes_of(f"db{number}") for number in range(100)]
    assert found == [minutes_of(f"db{number}") for number in range(100)]
    assert set(found) <= set(range(60))
    assert max(found.count(minute) for minute in range(60)) <= 6


def test_the_schedules_of_a_cluster_keep_their_distance(tmp_path: Path) -> None:
    """Expiry follows verification by the same minutes for every cluster, and none passes midnight."""
    for number in range(100):
        made = settings(tmp_path, WAL_PIPELINE_CLUSTER=f"db{number}")
        at = [minute_of_day(cron_of(made, name)) for name in DAILY]
        assert at[0] == 135 + minutes_of(f"db{number}")
        assert [later - earlier for earlier, later in pairwise(at)] == [135, 40, 30]


def test_a_setting_counts_as_it_is(tmp_path: Path) -> None:
    """Also where it says what the default says, and where it switches the schedule off."""
    given = {"WAL_PIPELINE_CLUSTER": "orders", "WAL_PIPELINE_BASE_BACKUP_FULL_CRON": "15 2 * * 0"}
    assert cron_of(settings(tmp_path, **given), "base_backup_full_cron") == "15 2 * * 0"
    older = settings(tmp_path, WAL_PIPELINE_CLUSTER="orders", WAL_PIPELINE_BASE_BACKUP_CRON="15 2 * * *")
    assert cron_of(older, "base_backup_full_cron") == "15 2 * * *"
    assert cron_of(older, "base_backup_incremental_cron") == "off"
    assert cron_of(settings(tmp_path, WAL_PIPELINE_BASE_BACKUP_FULL_CRON="off"), "base_backup_full_cron") == "off"
    assert cron_of(settings(tmp_path, WAL_PIPELINE_CLUSTER="orders"), "base_backup_full_cron") == "43 2 * * 0"


def test_an_empty_setting_is_none(tmp_path: Path) -> None:
    """A line of .env without a value leaves the usual time."""
    given = {"WAL_PIPELINE_CLUSTER": "orders", "WAL_PIPELINE_BASE_BACKUP_CRON": ""}
    made = settings(tmp_path, **given)
    assert cron_of(made, "base_backup_full_cron") == "43 2 * * 0"
    assert cron_of(made, "base_backup_incremental_cron") == "43 2 * * 1-6"


def test_the_check_says_when(tmp_path: Path) -> None:
    """Each schedule has its place in the line."""
    made = settings(tmp_path, WAL_PIPELINE_CLUSTER="orders", WAL_PIPELINE_DRILL_CRON="off")
    assert describe_crons(made) == (
        "cron in UTC: base backup full '43 2 * * 0', base backup incremental '43 2 * * 1-6', "
        "relations '43 14 * * *', drill 'off', "
        "retention '38 5 * * *', verify '58 4 * * *', "
        "deep verify '48 6 * * 0', check '8 6 * * *', cost '28 7 1 1,4,7,10 *'"
    )
