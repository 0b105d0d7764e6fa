"""Tests what the UI shows of the tail of the open segment."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from wal_pipeline.orchestration.assets.wal.tail import build_tail_assets, tail_observations
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline_tests.support.dagster_graphql import DagsterUi, dagster_ui
from wal_pipeline_tests.support.health_pipeline import KEYS, tick_and_report
from wal_pipeline_tests.support.health_scene import STORES, HealthScene
from wal_pipeline_tests.support.tail_records import record_shipping, record_tail, ship_well

_NEWEST = "assetObservations(limit: 1) { metadataEntries { label ... on TextMetadataEntry { text } } }"
_CHECKS = """
assetChecksOrError {
  ... on AssetChecks { checks { name executionForLatestMaterialization { status evaluation { severity } } } }
}"""


@pytest.fixture
def scene(scene: HealthScene, monkeypatch: pytest.MonkeyPatch) -> HealthScene:
    """The archive that Dagster's code sees, whose open segment is shipped as promised."""
    monkeypatch.setenv("WAL_PIPELINE_SHIP_INTERVAL_SECONDS", "5")
    ship_well(scene)
    return scene


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance whose storage is SQLite, as in an installation: GraphQL asks no other."""
    (tmp_path / "home").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "home")) as made:
        yield made


@pytest.fixture
def ui(scene: HealthScene, instance: dg.DagsterInstance) -> Iterator[DagsterUi]:
    with dagster_ui(instance) as made:
        yield made


def rows(ui: DagsterUi, store: str) -> dict[str, Any]:
    """Return the rows of the newest observation of a tail."""
    [found] = ui.asset(KEYS.wal_tail(store), _NEWEST)["assetObservations"]
    return {entry["label"]: entry.get("text") for entry in found["metadataEntries"]}


def check(ui: DagsterUi, store: str) -> tuple[str, str]:
    """Return status and severity of a tail's check."""
    [found] = ui.asset(KEYS.wal_tail(store), _CHECKS)["assetChecksOrError"]["checks"]
    done = found["executionForLatestMaterialization"]
    return done["status"], done["evaluation"]["severity"]


def test_a_tail_says_first_how_far_it_is_behind(scene: HealthScene) -> None:
    """Then what is plotted, then how much lies there and to which position and commit it leads."""
    found = tail_observations(KEYS, scene.facts())
    assert [one.asset_key for one in found] == [KEYS.wal_tail(store) for store in STORES]
    metadata = {name: value.value for name, value in found[0].metadata.items()}
    assert list(metadata) == [
        "answer",
        "seconds_behind",
        "seconds_behind_p50",
        "seconds_behind_p99",
        "pieces",
        "stored_kib",
        "holds",
        "shipped_to",
        "last_commit_at",
        "complete_at",
    ]
    assert metadata["answer"] == "r2 is 0.4 s behind; in the last hour p50 2.6 s, p99 5.2 s; promised 6.0 s"
    assert metadata["holds"] == "4.0 KiB of WAL in 2 pieces, 1.4 KiB as stored"
    assert metadata["shipped_to"] == "0/B01000 on timeline 1"


def test_each_look_of_the_health_sensor_observes_the_tails(
    scene: HealthScene, resource: WalPipelineResource, instance: dg.DagsterInstance, ui: DagsterUi
) -> None:
    """One event a store and look, with a check that is green where the promise is kept."""
    cursor = tick_and_report(instance, resource, None).cursor
    assert rows(ui, "b2")["answer"].startswith("b2 is 0.4 s behind")
    assert check(ui, "b2") == ("SUCCEEDED", "ERROR")
    record_shipping(scene, seen_at=scene.now - timedelta(minutes=20))
    tick_and_report(instance, resource, cursor)
    assert "stopped: nothing ships since " in rows(ui, "b2")["answer"]
    assert check(ui, "b2") == ("FAILED", "ERROR")


def test_a_tail_of_which_nothing_is_known_shows_no_numbers(scene: HealthScene) -> None:
    """A zero would be said of something that nobody looked at."""
    record_tail(scene, "r2", system_identifier=1)
    first, _ = tail_observations(KEYS, scene.facts())
    assert {name: value.value for name, value in first.metadata.items()} == {
        "answer": "nothing is shipped to r2 (running): nothing was shipped there yet"
    }


def test_observing_by_hand_reads_the_records(
    scene: HealthScene, resource: WalPipelineResource, instance: dg.DagsterInstance
) -> None:
    """A run of one store's asset observes that one alone."""
    assets = build_tail_assets(KEYS, STORES)
    job = dg.define_asset_job("by_hand", dg.AssetSelection.assets(KEYS.wal_tail("r2")))
    made = dg.Definitions(assets=[assets], jobs=[job], resources={"wal_pipeline": resource})
    done = made.get_job_def("by_hand").execute_in_process(instance=instance)
    assert done.success
    seen = [event.asset_observation_data.asset_observation for event in done.get_asset_observation_events()]
    assert [one.asset_key for one in seen] == [KEYS.wal_tail("r2")]
    assert "promised 6.0 s" in str(seen[0].metadata["answer"].value)
