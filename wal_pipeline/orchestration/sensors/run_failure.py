"""Opens an alert for a failed run, and resolves it after a success of the same job or assets."""

from datetime import timedelta
from typing import Final

import dagster as dg
from dagster._core.errors import DagsterInvalidConfigError
from dagster._core.events import JobFailureData
from dagster_shared.error import SerializableErrorInfo

from wal_pipeline.archive.alerts import Alert, AlertKind, Observation
from wal_pipeline.commands.archive_push.skipped_files import stuck_files
from wal_pipeline.orchestration.keys import ARCHIVE_JOB, BAD_COPIES_JOB, SHIP_JOB, Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.failures import ALERT_OF_STORE, NOTHING_CHANGED, one_line
from wal_pipeline.orchestration.runs.in_flight import run_in_flight
from wal_pipeline.orchestration.runs.subject import (
    alert_is_by_hand,
    is_by_hand,
    is_of,
    subject_of,
    was_started_by_a_person,
)
from wal_pipeline.text import on_one_line
from wal_pipeline.wiring.pipeline import Pipeline

ALERT_LASTS: Final = timedelta(days=7)
_AT_WORK_SECONDS: Final = 120.0
_MOST_TEXT: Final = 500
_MOST_RUNS: Final = 500
_BY_HAND = (
    f"; a person started it: this alert ends after a success of the same, after {ALERT_LASTS.days} days, or with "
    "'wal-pipeline alerts close'"
)


def build_run_failure_sensor(keys: Keys) -> dg.SensorDefinition:
    """Return the sensor that opens an alert for a failed run of this cluster."""

    @dg.run_failure_sensor(
        name="run_failure_sensor",
        default_status=dg.DefaultSensorStatus.RUNNING,
        tags=keys.tags,
        description=keys.described(
            "Opens an alert for a job whose last run failed or, where a run has no job, for its assets. The "
            "health sensor resolves the alert after a success of the same job or assets. A run that a person "
            "started with what cannot be done, and that changed nothing, opens none: its page says why."
        ),
    )
    def run_failure_sensor(context: dg.RunFailureSensorContext, wal_pipeline: WalPipelineResource) -> None:
        run = context.dagster_run
        if not is_of(run, keys) or run.job_name == BAD_COPIES_JOB:  # its findings have alerts of their own
            return
        if was_started_by_a_person(run) and _changed_nothing(context):
            context.log.info(f"no alert: a person started run {run.run_id} with what cannot be done; its page says why")
            return
        if _has_row(context, ALERT_OF_STORE):
            context.log.info(f"no alert of its own for run {run.run_id}: the one about the store tells it")
            return
        pipeline = wal_pipeline.open()
        reason = on_one_line(_why(context), pipeline.settings.secret_values(), most=_MOST_TEXT)
        message = f"{reason} (run {run.run_id}{_BY_HAND if is_by_hand(run) else ''})"
        details = {"run_id": run.run_id, "job_name": run.job_name, "by_hand": is_by_hand(run)}
        seen = Observation(subject_of(run), message, details=details)
        pipeline.catalog.alerts.observe(AlertKind.RUN_FAILED, seen, pipeline.clock())

    return run_failure_sensor


def resolve_run_failures(instance: dg.DagsterInstance, keys: Keys, pipeline: Pipeline) -> None:
    """Resolve the alerts whose job or assets succeeded since, and those of runs by hand after a week."""
    for alert in pipeline.catalog.alerts.active():
        if alert.kind is not AlertKind.RUN_FAILED:
            continue
        is_over = alert_is_by_hand(alert.subject, alert.details) and (
            pipeline.clock() - alert.last_seen_at >= ALERT_LASTS
        )
        if is_over or _succeeded_since(instance, keys, alert) or _works_again(instance, keys, pipeline, alert):
            pipeline.catalog.alerts.resolve(alert.kind, alert.subject, pipeline.clock())


def _succeeded_since(instance: dg.DagsterInstance, keys: Keys, alert: Alert) -> bool:
    """Whether a later run of the same job, or of the same assets and partitions, succeeded."""
    since = alert.last_seen_at
    wanted = dg.RunsFilter(
        job_name=alert.details.get("job_name", alert.subject),
        statuses=[dg.DagsterRunStatus.SUCCESS],
        created_after=since - timedelta(days=1),
    )
    return any(
        record.end_time is not None and record.end_time > since.timestamp()
        for record in instance.get_run_records(wanted, limit=_MOST_RUNS)
        if subject_of(record.dagster_run) == alert.subject and is_of(record.dagster_run, keys)
    )


def _works_again(instance: dg.DagsterInstance, keys: Keys, pipeline: Pipeline, alert: Alert) -> bool:
    """Whether a later archiving or shipping run has been at work for a while, and nothing stands in its way.

    Such a run may last for hours before it succeeds, and what failed may have been a restart of the machine.
    """
    if alert.subject not in (ARCHIVE_JOB, SHIP_JOB):
        return False
    run = run_in_flight(instance, alert.subject, keys.tags, since=alert.last_seen_at)
    record = None if run is None else instance.get_run_record_by_id(run.run_id)
    if record is None or record.start_time is None:
        return False
    if pipeline.clock().timestamp() - record.start_time < _AT_WORK_SECONDS:
        return False
    if alert.subject == SHIP_JOB:
        from wal_pipeline.commands.ship.records import read_shipping

        shipping = read_shipping(pipeline.catalog.values)
        return shipping is not None and shipping.error is None and shipping.seen_at > alert.last_seen_at
    fails = any(state.consecutive_failures for state in pipeline.catalog.stores.states().values())
    return not fails and not stuck_files(pipeline.catalog)


def _changed_nothing(context: dg.RunFailureSensorContext) -> bool:
    """Whether the run was refused before it did anything, so that its error is an answer to who started it."""
    error = _error_of_run(context)
    if error is not None and error.cls_name == DagsterInvalidConfigError.__name__:
        return True
    return _has_row(context, NOTHING_CHANGED)


def _has_row(context: dg.RunFailureSensorContext, name: str) -> bool:
    """Whether each failed step has this row in its metadata."""
    found = [event.step_failure_data.user_failure_data for event in context.get_step_failure_events()]
    return bool(found) and all(one is not None and name in one.metadata for one in found)


def _why(context: dg.RunFailureSensorContext) -> str:
    """Return the reason: our own line, with its hint, where we know what is wrong, else the unexpected error."""
    for event in context.get_step_failure_events():
        data = event.step_failure_data
        if data.user_failure_data is not None and data.user_failure_data.description:
            return one_line(data.user_failure_data.description)
        if data.error is not None:
            return _unexpected(data.error.cause or data.error)
    error = _error_of_run(context)
    return _unexpected(error) if error is not None else context.failure_event.message or "no reason was given"


def _error_of_run(context: dg.RunFailureSensorContext) -> SerializableErrorInfo | None:
    """Return the error that ended the run outside of a step; None where a step failed, or the run's process is gone."""
    data = context.failure_event.event_specific_data
    return data.error if isinstance(data, JobFailureData) else None


def _unexpected(error: SerializableErrorInfo) -> str:
    """Return an error that nobody expected without its module: which class it has is the half of its text."""
    text = error.message.strip()
    name, _, rest = text.partition(": ")
    if error.cls_name is not None and name.rpartition(".")[2] == error.cls_name:
        text = f"{rest} ({error.cls_name})" if rest else error.cls_name
    return f"unexpected: {one_line(text)}; the run's page has the stack"
