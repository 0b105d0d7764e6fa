"""Health in Dagster: the sensor's tick, a failed run's alert, the checks, the window asset and the cost."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from wal_pipeline.archive.alerts import AlertKind, Observation
from wal_pipeline.commands.health.facts import look_at_everything
from wal_pipeline.orchestration.assets.archive_checks import build_archive_checks, build_check_job
from wal_pipeline.orchestration.assets.cost import build_cost_asset
from wal_pipeline.orchestration.assets.recovery_window import build_window_asset
from wal_pipeline.orchestration.assets.segments import build_segment_assets, build_spool_asset
from wal_pipeline.orchestration.keys import Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.sensors.health import build_health_sensor, build_run_failure_sensor
from wal_pipeline.wiring.pipeline import Pipeline, utc_now
from wal_pipeline_tests.support.health_scene import STORES, SYSTEM, HealthScene, name

KEYS = Keys("main")
SENSOR = build_health_sensor(KEYS, interval_seconds=60)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HealthScene:
    """The archive that Dagster's code sees, now, and a server that is not there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WAL_PIPELINE_CATALOG_URL", f"sqlite:///{tmp_path}/catalog.sqlite")
    monkeypatch.setenv("WAL_PIPELINE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("PG_WAL_ARCHIVE_DIR", str(tmp_path / "spool"))
    monkeypatch.setenv("WAL_PIPELINE_CONNINFO", f"host={tmp_path} port=1")
    monkeypatch.setenv("WAL_PIPELINE_DISK_LOW_SHARE", "0")
    made = HealthScene(tmp_path, now=utc_now())
    made.archive(*range(1, 11))
    made.back_up(2)
    return made


@pytest.fixture
def resource(tmp_path: Path) -> WalPipelineResource:
    """A resource of this test alone: what it opens is kept by its settings file's name."""
    (tmp_path / "empty.env").write_text("")
    return WalPipelineResource(env_file=str(tmp_path / "empty.env"))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as made:
        yield made


def tick(instance: dg.DagsterInstance, resource: WalPipelineResource, cursor: str | None) -> dg.SensorResult:
    with dg.build_sensor_context(instance=instance, cursor=cursor, resources={"wal_pipeline": resource}) as context:
        result = SENSOR(context)
    assert isinstance(result, dg.SensorResult)
    return result


def test_sensor_starts_no_run(scene: HealthScene, resource: WalPipelineResource, instance: dg.DagsterInstance) -> None:
    """A tick observes the spool with numbers, and only says how it is."""
    result = tick(instance, resource, None)
    assert not result.run_requests
    assert result.skip_reason is not None
    assert result.skip_reason.skip_message == "nothing needs a person"
    [event] = result.asset_events
    assert event.asset_key == KEYS.spool
    looked_at = look_at_everything(scene.sources).sensor_looked_at
    assert looked_at is not None
    assert looked_at >= scene.now
    assert {key: event.metadata[key].value for key in ("spool_files", "lag_seconds", "problems", "verdict")} == {
        "spool_files": 0,
        "lag_seconds": 2.0,
        "problems": 0,
        "verdict": "ok",
    }


def test_sensor_observes_what_changed(
    scene: HealthScene, resource: WalPipelineResource, instance: dg.DagsterInstance
) -> None:
    """A quiet tick leaves no observation; a new problem leaves one, and opens its alert."""
    first = tick(instance, resource, None)
    assert tick(instance, resource, first.cursor).asset_events == []
    scene.quarantine(3)
    assert len(tick(instance, resource, first.cursor).asset_events) == 1
    assert [alert.kind for alert in scene.catalog.alerts.active()] == [AlertKind.QUARANTINE]


def test_sensor_without_the_catalog(
    scene: HealthScene, resource: WalPipelineResource, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A catalog that cannot be opened is told by the tick, which keeps in its cursor that it was, and until when."""
    (scene.folder / "other.env").touch()
    (scene.folder / "folder").mkdir()
    with monkeypatch.context() as broken:
        broken.setenv("WAL_PIPELINE_CATALOG_URL", f"sqlite:///{scene.folder}/folder")
        result = tick(instance, WalPipelineResource(env_file=str(scene.folder / "other.env")), None)
    assert result.skip_reason is not None
    assert result.skip_reason.skip_message == "1 catalog_down"
    assert result.asset_events == []
    after = tick(instance, resource, result.cursor)
    assert after.skip_reason is not None
    assert after.skip_reason.skip_message == "nothing needs a person"
    assert json.loads(result.cursor or "")["outage"] is not None
    assert json.loads(after.cursor or "")["outage"] is None


@dg.op
def breaks(wal_pipeline: WalPipelineResource) -> None:
    """Fail while a file lies in the current folder."""
    if Path("broken").exists():
        raise dg.Failure("the store said no", allow_retries=False)


@dg.job(name="some_job", tags={"wal_pipeline/cluster": "main"})
def some_job() -> None:
    """One op."""
    breaks()


def test_failed_run(
    scene: HealthScene, resource: WalPipelineResource, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """A failed run opens an alert in its own words; the job's next success resolves it."""
    (tmp_path / "broken").touch()
    resources = {"wal_pipeline": resource}
    failed = some_job.execute_in_process(instance=instance, resources=resources, raise_on_error=False)
    event = failed.get_run_failure_event()
    with dg.build_run_status_sensor_context(
        "run_failure_sensor", event, instance, failed.dagster_run, resources=resources
    ) as context:
        build_run_failure_sensor(KEYS)(context.for_run_failure())
    [alert] = scene.catalog.alerts.active()
    assert (alert.kind, alert.subject) == (AlertKind.RUN_FAILED, "some_job")
    assert alert.message == f"run {failed.run_id} failed: breaks: the store said no"
    tick(instance, resource, None)
    assert len(scene.catalog.alerts.active()) == 1
    (tmp_path / "broken").unlink()
    some_job.execute_in_process(instance=instance, resources=resources)
    tick(instance, resource, None)
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
    """It is told by its assets: no success of another asset or cluster ends it, and one of the same assets does."""

    @dg.asset(key=["main", "one"])
    def one() -> None:
        """Fail while a file lies in the current folder."""
        if Path("broken").exists():
            raise dg.Failure("the store said no", allow_retries=False)

    @dg.asset(key=["main", "two"])
    def two() -> None:
        """Do nothing."""

    (tmp_path / "broken").touch()
    failed = materialize(instance, one, raises=False)
    event = failed.get_run_failure_event()
    with dg.build_run_status_sensor_context(
        "run_failure_sensor", event, instance, failed.dagster_run, resources={"wal_pipeline": resource}
    ) as context:
        build_run_failure_sensor(KEYS)(context.for_run_failure())
    [alert] = scene.catalog.alerts.active()
    assert (alert.subject, alert.details["by_hand"]) == ("main/one", True)
    assert alert.message == (
        f"run {failed.run_id} failed: main__one: the store said no; it was started by hand: this alert ends after a "
        "success of the same, after 7 days, or with 'wal-pipeline alerts close'"
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
    """Nobody need restore again: its alert ends after a week; that of a job with a schedule does not."""
    for subject, days in (("restore_cluster", 8), ("main/one", 8), ("main/two", 6), ("expire_archive", 60)):
        by_hand = {} if subject == "restore_cluster" else {"by_hand": subject.startswith("main/")}
        seen = Observation(subject, "run x failed", details=by_hand)
        scene.catalog.alerts.observe(AlertKind.RUN_FAILED, seen, scene.now - timedelta(days=days))
    tick(instance, resource, None)
    assert {alert.subject for alert in scene.catalog.alerts.active()} == {"main/two", "expire_archive"}


def test_checks(scene: HealthScene, resource: WalPipelineResource, instance: dg.DagsterInstance) -> None:
    """Each check looks at its own asset: a file that one store lacks fails two checks of that store."""
    scene.catalog.files.remove_copy(SYSTEM, [name(5)], "b2")
    checks = build_archive_checks(KEYS, STORES)
    spec_keys = [KEYS.base_backup(store) for store in STORES]
    definitions = dg.Definitions(
        assets=[
            build_spool_asset(KEYS),
            build_segment_assets(KEYS, STORES),
            build_window_asset(KEYS, STORES),
            *(dg.AssetSpec(key) for key in spec_keys),
        ],
        asset_checks=[checks],
        jobs=[build_check_job(KEYS, checks)],
        resources={"wal_pipeline": resource},
    )
    result = definitions.resolve_job_def("check_archive").execute_in_process(instance=instance)
    verdicts = {(one.asset_key.path[-1], one.check_name): one.passed for one in result.get_asset_check_evaluations()}
    assert {key for key, passed in verdicts.items() if not passed} == {
        ("b2", "no_gap"),
        ("b2", "every_file"),
        ("recovery_window", "last_drill_r2"),
        ("recovery_window", "last_drill_b2"),
    }
    assert verdicts["spool", "under_limit"]
    assert verdicts["r2", "newest_fresh"]


def test_window_asset(scene: HealthScene, resource: WalPipelineResource, instance: dg.DagsterInstance) -> None:
    """It says what can be recovered, with a picture that the UI shows inline."""
    asset = build_window_asset(KEYS, STORES)
    result = dg.materialize([asset], resources={"wal_pipeline": resource}, instance=instance)
    [event] = result.asset_materializations_for_node("main__recovery_window")
    metadata = event.metadata
    assert str(metadata["picture"].value).startswith("![recovery windows](data:image/svg+xml;base64,")
    assert metadata["can_recover"].value is True
    assert metadata["b2/last_segment"].value == name(10)
    assert (metadata["b2/files"].value, metadata["b2/wal_bytes"].value) == (10, 10 * 200_000)
    assert metadata["r2/base_backup_bytes"].value == 3 * 10**8
    latest_at = scene.now - timedelta(seconds=90)
    assert metadata["all/latest_commit_at"].value == pytest.approx(latest_at.timestamp())


def test_cost_asset(scene: HealthScene, resource: WalPipelineResource, instance: dg.DagsterInstance) -> None:
    """Its numbers are numeric metadata, which the UI plots."""
    result = dg.materialize([build_cost_asset(KEYS, STORES)], resources={"wal_pipeline": resource}, instance=instance)
    [event] = result.asset_materializations_for_node("main__cost")
    assert event.metadata["r2/stored_bytes"].value == 10 * 200_000 + 3 * 10**8
    assert isinstance(event.metadata["month_usd"].value, float)


def test_requests_are_counted_at_the_end_of_a_run(
    scene: HealthScene, resource: WalPipelineResource, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the run did: the resource's end is the one place."""
    told: list[Pipeline] = []

    def note(pipeline: Pipeline) -> None:
        told.append(pipeline)

    monkeypatch.setattr(Pipeline, "record_requests", note)
    assert some_job.execute_in_process(instance=instance, resources={"wal_pipeline": resource}).success
    resource.open()
    assert some_job.execute_in_process(instance=instance, resources={"wal_pipeline": resource}).success
    assert told
