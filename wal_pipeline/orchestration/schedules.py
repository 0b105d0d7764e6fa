"""Builds the schedules from their settings. A schedule is on unless its setting says ``off``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import dagster as dg
from dagster._core.errors import DagsterInvalidDefinitionError

from wal_pipeline.orchestration.jobs import verify as verification_job
from wal_pipeline.orchestration.jobs.backup import INCREMENTAL_OR_FULL
from wal_pipeline.orchestration.keys import (
    BACKUP_JOB,
    CHECK_JOB,
    COST_JOB,
    DRILL_JOB,
    EXPIRE_JOB,
    RELATIONS_JOB,
    VERIFY_JOB,
    Keys,
)
from wal_pipeline.settings import Settings, variable_names
from wal_pipeline.wiring.settings_check import OFF, cron_error, cron_of, minutes_of


@dataclass(frozen=True)
class Timing:
    """One schedule. ``setting`` is the field of the settings that holds its cron expression."""

    name: str
    job_name: str
    setting: str
    description: str
    run_config: Mapping[str, Any] = field(default_factory=dict)


TIMINGS: Final = (
    Timing("base_backup_schedule", BACKUP_JOB, "base_backup_full_cron", "Takes a full base backup onto every store."),
    Timing(
        "incremental_base_backup_schedule",
        BACKUP_JOB,
        "base_backup_incremental_cron",
        "Takes an incremental base backup onto every store; a full one where the server cannot, or where as many as "
        "WAL_PIPELINE_BASE_BACKUP_MAX_CHAIN build on each other.",
        INCREMENTAL_OR_FULL,
    ),
    Timing("keep_relations_schedule", RELATIONS_JOB, "relations_cron", "Keeps a list of the cluster's relations."),
    Timing("recovery_drill_schedule", DRILL_JOB, "drill_cron", "Runs a recovery drill from every store."),
    Timing("check_archive_schedule", CHECK_JOB, "check_cron", "Evaluates the asset checks from the records."),
    Timing("cost_schedule", COST_JOB, "cost_cron", "Reports the cost of the archive."),
    Timing("expire_archive_schedule", EXPIRE_JOB, "retention_cron", "Expires every store."),
    Timing("verify_archive_schedule", VERIFY_JOB, "verify_cron", "Verifies every store by names and sizes."),
    Timing(
        "deep_verify_archive_schedule",
        VERIFY_JOB,
        "deep_verify_cron",
        "Verifies the content of a share, WAL_PIPELINE_DEEP_VERIFY_SHARE, so that all is read every month.",
        {"ops": {verification_job.OP_NAME: {"config": {"deep": True}}}},
    ),
)


def build_schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """Return the schedules that are on. Raises: SettingsError where a setting is no cron expression."""
    crons = [(timing, cron_of(settings, timing.setting)) for timing in TIMINGS]
    return [_schedule(settings, timing, cron) for timing, cron in crons if cron.lower() != OFF]


def _schedule(settings: Settings, timing: Timing, cron: str) -> dg.ScheduleDefinition:
    variable, keys = variable_names()[timing.setting][0], Keys(settings.cluster)
    try:
        return dg.ScheduleDefinition(
            job_name=timing.job_name,
            name=timing.name,
            cron_schedule=cron,
            execution_timezone="UTC",
            run_config=dict(timing.run_config),
            default_status=dg.DefaultScheduleStatus.RUNNING,
            tags=keys.tags,
            description=keys.described(
                f"{timing.description} {variable} sets when, else the usual time and {minutes_of(keys.cluster)} "
                f"minutes, from the cluster's name. '{OFF}' switches it off."
            ),
        )
    except DagsterInvalidDefinitionError as error:
        raise cron_error(variable, cron) from error
