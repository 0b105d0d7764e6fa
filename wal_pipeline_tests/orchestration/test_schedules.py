"""Tests when each schedule runs, how it is changed and switched off, and the error of a wrong setting."""

from pathlib import Path

import dagster as dg
import pytest

from wal_pipeline.errors import SettingsError
from wal_pipeline.orchestration.schedules import TIMINGS, Timing, build_schedules
from wal_pipeline.settings import Settings, load_settings, variable_names


def settings(folder: Path, **given: str) -> Settings:
    (file := folder / "settings.env").touch()
    return load_settings(given, file)


@pytest.mark.parametrize("timing", TIMINGS, ids=lambda timing: timing.name)
def test_each_can_be_changed_and_switched_off(tmp_path: Path, timing: Timing) -> None:
    """The schedule's own setting changes it, and no other schedule changes with it."""
    variable = variable_names()[timing.setting][0]
    before = {one.name: one.cron_schedule for one in build_schedules(settings(tmp_path))}
    changed = {one.name: one.cron_schedule for one in build_schedules(settings(tmp_path, **{variable: "1 2 3 4 5"}))}
    assert changed == before | {timing.name: "1 2 3 4 5"}
    for off in ("off", "OFF"):
        left = {one.name: one.cron_schedule for one in build_schedules(settings(tmp_path, **{variable: off}))}
        assert left == {name: cron for name, cron in before.items() if name != timing.name}


def test_how_often(tmp_path: Path) -> None:
    """A full base backup and deep verification each week, a drill each month, cost each quarter, all else each day."""
    found = {one.name: str(one.cron_schedule).split(" ", 2)[2] for one in build_schedules(settings(tmp_path))}
    assert found == {
        "base_backup_schedule": "* * 0",
        "incremental_base_backup_schedule": "* * 1-6",
        "expire_archive_schedule": "* * *",
        "verify_archive_schedule": "* * *",
        "check_archive_schedule": "* * *",
        "deep_verify_archive_schedule": "* * 0",
        "keep_relations_schedule": "* * *",
        "recovery_drill_schedule": "1 * *",
        "cost_schedule": "1 1,4,7,10 *",
    }


def test_expiry_never_runs_before_verification(tmp_path: Path) -> None:
    """By default: what is damaged is healed, or known to be lost, before anything goes."""
    crons = {one.name: str(one.cron_schedule).split() for one in build_schedules(settings(tmp_path))}
    at = {name: (int(fields[1]), int(fields[0])) for name, fields in crons.items()}
    assert at["verify_archive_schedule"] < at["expire_archive_schedule"]


def test_the_weekly_verification_is_deep(tmp_path: Path) -> None:
    """The weekly verification reads content, and the daily one does not."""
    by_name = {one.name: one for one in build_schedules(settings(tmp_path))}
    configs = {}
    for name in ("verify_archive_schedule", "deep_verify_archive_schedule"):
        with dg.build_schedule_context() as context:
            [request] = by_name[name].evaluate_tick(context).run_requests or []
        configs[name] = request.run_config
    assert configs == {
        "verify_archive_schedule": {},
        "deep_verify_archive_schedule": {"ops": {"verification": {"config": {"deep": True}}}},
    }


def test_what_is_no_cron_expression(tmp_path: Path) -> None:
    """The message names the setting."""
    with pytest.raises(SettingsError) as caught:
        build_schedules(settings(tmp_path, WAL_PIPELINE_DRILL_CRON="monthly"))
    assert caught.value.message == (
        "WAL_PIPELINE_DRILL_CRON is 'monthly', expected five fields in cron's form, such as '15 2 * * *', or 'off'"
    )


def test_the_daily_base_backup_is_incremental_where_it_can_be(tmp_path: Path) -> None:
    """Else it is a full one: a day without a base backup would be worse. The weekly one is always full."""
    by_name = {one.name: one for one in build_schedules(settings(tmp_path))}
    configs = {}
    for name in ("base_backup_schedule", "incremental_base_backup_schedule"):
        with dg.build_schedule_context() as context:
            [request] = by_name[name].evaluate_tick(context).run_requests or []
        configs[name] = request.run_config
    assert configs == {
        "base_backup_schedule": {},
        "incremental_base_backup_schedule": {
            "ops": {"stream_base_backup": {"config": {"incremental": True, "or_full": True}}}
        },
    }
