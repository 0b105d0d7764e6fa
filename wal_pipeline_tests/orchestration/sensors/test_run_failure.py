"""Tests that a failed run opens an alert, which a success of the same job or assets resolves."""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent, RunFailureReason
from dagster._core.utils import make_new_run_id
from dagster._utils.error import serializable_error_info_from_exc_info

from wal_pipeline.archive.alerts import AlertKind, Observation
from wal_pipeline.catalog.store_states import StoreState
from wal_pipeline.errors import SettingsError, StoreUnavailableError
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.failures import ALERT_OF_STORE, with_plain_errors
from wal_pipeline.orchestration.sensors.run_failure import build_run_failure_sensor, resolve_run_failures
from wal_pipeline_tests.support.health_pipeline import KEYS, some_job, tick
from wal_pipeline_tests.support.health_scene import HealthScene

KEY = "AKIA0123456789ABCDEF" * 2


def tell_of_failure(
    instance: dg.DagsterInstance, resource: WalPipelineResource, failed: dg.ExecuteInProcessResult
) -> None:
    """Evaluate the run failure sensor for a failed run, as the daemon does."""
    event, resources = failed.get_run_failure_event(), {"wal_pipeline": resource}
    with dg.build_run_status_sensor_context(
        "run_failure_sensor", event, instance, failed.dagster_run, resources=resources
    ) as context:
        build_run_failure_sensor(KEYS)(context.for_run_failure())


def test_failed_run(
    scene: HealthScene, resource: WalPipelineResource, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """A failed run opens an alert in its own words; the job's next success resolves it."""
    (tmp_path / "broken").touch()
    resources = {"wal_pipeline": resource}
    failed = some_job.execute_in_process(instance=instance, resources=resources, raise_on_error=False)
    tell_of_failure(instance, resource, failed)
    [alert] = scene.catalog.alerts.active()
    assert (alert.kind, alert.subject) == (AlertKind.RUN_FAILED, "some_job")
    assert alert.message == f"the store said no (run {failed.run_id})"
    tick(instance, resource, None)
    assert len(scene.catalog.alerts.active()) == 1
    (tmp_path / "broken").unlink()
    some_job.execute_in_process(instance=instance, resources=resources)
    tick(instance, resource, None)
    assert scene.catalog.alerts.active() == []


@dg.op
def shows_a_key() -> None:
    """Fail with the text of a library that repeats a key, which ends in a line feed, and goes on for long."""
    raise ValueError(f"Invalid header value {KEY[:20]}\n" * 40 + KEY)


@dg.job(name="some_job", tags={"wal_pipeline/cluster": "main"})
def showing_job() -> None:
    """Run the one op."""
    shows_a_key()


def test_no_part_of_a_key_stays_in_the_alert_of_a_failed_run(
    scene: HealthScene, resource: WalPipelineResource, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is taken out before the text is joined and cut."""
    monkeypatch.setenv("R2_SECRET_ACCESS_KEY", KEY)
    monkeypatch.setenv("R2_ACCESS_KEY_ID", KEY[:20])
    failed = showing_job.execute_in_process(
        instance=instance, resources={"wal_pipeline": resource}, raise_on_error=False
    )
    tell_of_failure(instance, resource, failed)
    [alert] = scene.catalog.alerts.active()
    assert KEY[:8] not in alert.message
    assert "Invalid header value *** Invalid header" in alert.message


SCHEDULED = {"dagster/schedule_name": "some_schedule"}


def job_that(raises: Callable[[], Exception]) -> dg.JobDefinition:
    """Return a job of this cluster, whose op fails with an error as our ops do."""

    @dg.op
    @with_plain_errors
    def fails() -> None:
        """Raise the error."""
        raise raises()

    @dg.job(name="some_job", tags={"wal_pipeline/cluster": "main"})
    def made() -> None:
        """Run the one op."""
        fails()

    return made


def alerts_after(
    scene: HealthScene,
    resource: WalPipelineResource,
    instance: dg.DagsterInstance,
    raises: Callable[[], Exception],
    tags: dict[str, str] | None = None,
) -> list[str]:
    """Return the texts of the alerts after a failed run, without the run's id."""
    failed = job_that(raises).execute_in_process(instance=instance, tags=tags, raise_on_error=False)
    tell_of_failure(instance, resource, failed)
    return [alert.message.replace(failed.run_id, "X") for alert in scene.catalog.alerts.active()]


def test_a_mistyped_run_of_a_person_opens_no_alert(
    scene: HealthScene, resource: WalPipelineResource, instance: dg.DagsterInstance
) -> None:
    """Who started it is looking at its page. The same error of a schedule opens one, in the page's words."""

    def mistyped() -> Exception:
        return SettingsError("'two hours' is not a length of time", hint="Write 30m, 2h or 1d.")

    assert alerts_after(scene, resource, instance, mistyped) == []
    assert alerts_after(scene, resource, instance, mistyped, SCHEDULED) == [
        "'two hours' is not a length of time. HINT: Write 30m, 2h or 1d. (run X)"
    ]


def test_a_run_that_a_person_started_and_that_failed_on_the_way_opens_one(
    scene: HealthScene, resource: WalPipelineResource, instance: dg.DagsterInstance
) -> None:
    """A store that is down is not the person's doing, and neither is a defect of ours."""
    down = alerts_after(scene, resource, instance, lambda: StoreUnavailableError("r2", "cannot put", hint="Wait."))
    assert down == ["r2: cannot put. HINT: Wait. (run X)"]
    [defect] = alerts_after(scene, resource, instance, lambda: KeyError("size"))
    assert defect == "unexpected: 'size' (KeyError); the run's page has the stack (run X)"


def test_a_run_that_only_a_store_let_fail_opens_none(
    scene: HealthScene, resource: WalPipelineResource, instance: dg.DagsterInstance
) -> None:
    """The alert about the store tells it; this one would stand before it, and say less."""

    def failed() -> Exception:
        return dg.Failure("r2: no answer", {ALERT_OF_STORE: dg.MetadataValue.text("the store has one")})

    assert alerts_after(scene, resource, instance, failed, SCHEDULED) == []


def test_a_configuration_that_dagster_refuses_opens_none(
    scene: HealthScene, resource: WalPipelineResource, instance: dg.DagsterInstance
) -> None:
    """The launchpad refuses it before the run; what starts runs without it makes a failed one."""
    failed = instance.create_run_for_job(some_job)
    try:
        dg.validate_run_config(job_that(lambda: KeyError("never")), {"ops": {"mistyped": {}}})
    except dg.DagsterInvalidConfigError:
        error = serializable_error_info_from_exc_info(sys.exc_info())
    event = DagsterEvent.job_failure("some_job", "the run failed", RunFailureReason.RUN_EXCEPTION, error)
    resources = {"wal_pipeline": resource}
    with dg.build_run_status_sensor_context(
        "run_failure_sensor", event, instance, failed, resources=resources
    ) as context:
        build_run_failure_sensor(KEYS)(context.for_run_failure())
    assert scene.catalog.alerts.active() == []


def materialize(
    instance: dg.DagsterInstance, asset: dg.AssetsDefinition, *, raises: bool = True
) -> dg.ExecuteInProcessResult:
    """Materialize an asset without a job, as the UI does."""
    job = dg.Definitions(assets=[asset]).resolve_implicit_global_asset_job_def()
    return job.execute_in_process(instance=instance, asset_selection=[asset.key], raise_on_error=raises)


def test_failed_run_without_a_job(
    scene: HealthScene, resource: WalPipelineResource, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """Its alert names its assets, and only a success of the same assets resolves it."""

    @dg.asset(key=["main", "one"])
    def one() -> None:
        """Fail while the file ``broken`` lies in the current folder."""
        if Path("broken").exists():
            raise dg.Failure("the store said no", allow_retries=False)

    @dg.asset(key=["main", "two"])
    def two() -> None:
        """Do nothing."""

    (tmp_path / "broken").touch()
    failed = materialize(instance, one, raises=False)
    tell_of_failure(instance, resource, failed)
    [alert] = scene.catalog.alerts.active()
    assert (alert.subject, alert.details["by_hand"]) == ("main/one", True)
    assert alert.message == (
        f"the store said no (run {failed.run_id}; a person started it: this alert ends after a success of the same, "
        "after 7 days, or with 'wal-pipeline alerts close')"
    )
    (tmp_path / "broken").unlink()
    materialize(instance, two)
    tick(instance, resource, None)
    assert len(scene.catalog.alerts.active()) == 1
    materialize(instance, one)
    tick(instance, resource, None)
    assert scene.catalog.alerts.active() == []


def test_failed_run_that_was_started_by_hand_ends_after_days(
    scene: HealthScene, resource: WalPipelineResource, instance: dg.DagsterInstance
) -> None:
    """The alert of a run by hand ends after a week, and that of a scheduled job does not."""
    for subject, days in (("restore_cluster", 8), ("main/one", 8), ("main/two", 6), ("expire_archive", 60)):
        by_hand = {} if subject == "restore_cluster" else {"by_hand": subject.startswith("main/")}
        seen = Observation(subject, "run x failed", details=by_hand)
        scene.catalog.alerts.observe(AlertKind.RUN_FAILED, seen, scene.now - timedelta(days=days))
    tick(instance, resource, None)
    assert {alert.subject for alert in scene.catalog.alerts.active()} == {"main/two", "expire_archive"}


def test_the_alert_of_a_lost_run_does_not_stay_while_the_next_one_works_for_hours(
    scene: HealthScene, resource: WalPipelineResource, instance: dg.DagsterInstance
) -> None:
    """A host that was restarted leaves a failed run; the next one lingers, and succeeds only much later."""
    now = datetime.now(UTC)
    seen = Observation("archive_wal", "run x failed", details={"job_name": "archive_wal"})
    scene.catalog.alerts.observe(AlertKind.RUN_FAILED, seen, now - timedelta(minutes=5))
    run = dg.DagsterRun(
        job_name="archive_wal", run_id=make_new_run_id(), status=dg.DagsterRunStatus.STARTED, tags=KEYS.tags
    )
    instance.add_run(run)
    pipeline = resource.open()

    def resolve(seconds: float) -> list[str]:
        """Look at the alerts, so long after the run began."""
        later = replace(pipeline, clock=lambda: datetime.now(UTC) + timedelta(seconds=seconds))
        resolve_run_failures(instance, KEYS, later)
        return [alert.subject for alert in scene.catalog.alerts.active()]

    assert resolve(600) == ["archive_wal"]  # it was not seen to begin
    instance.handle_new_event(run_started(run))
    assert resolve(30) == ["archive_wal"]
    scene.catalog.stores.save_state(StoreState("r2", 1, "down", now, None, now + timedelta(minutes=5)))
    assert resolve(600) == ["archive_wal"]
    scene.catalog.stores.save_state(StoreState("r2"))
    assert resolve(600) == []


def run_started(run: dg.DagsterRun) -> dg.EventLogEntry:
    """Return the event with which Dagster notes that a run began."""
    return dg.EventLogEntry(
        error_info=None,
        level=10,
        user_message="",
        run_id=run.run_id,
        timestamp=time.time(),
        job_name=run.job_name,
        dagster_event=DagsterEvent("PIPELINE_START", run.job_name),
    )
