"""Tests the shipping run: how it ends, and what it says of what it did."""

from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from wal_pipeline.archive.records import Codec, Encoding
from wal_pipeline.commands.pause import pause
from wal_pipeline.commands.ship.events import PieceShipped, ShippingFailed, ShippingRecovered
from wal_pipeline.commands.ship.records import read_shipping
from wal_pipeline.commands.shipper_lock import ShipLock
from wal_pipeline.orchestration.jobs.ship import Shipped, build_ship_job
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline_tests.support.health_pipeline import KEYS
from wal_pipeline_tests.support.health_scene import HealthScene
from wal_pipeline_tests.support.tail_records import ship_well


@pytest.fixture
def scene(scene: HealthScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HealthScene:
    """An archive in a folder, a server that is not there, and runs that last for a second."""
    (tmp_path / "store").mkdir()
    monkeypatch.setenv("WAL_PIPELINE_STORES", "local")
    monkeypatch.setenv("WAL_PIPELINE_LOCAL_STORE_FOLDER", str(tmp_path / "store"))
    monkeypatch.setenv("WAL_PIPELINE_SHIP_INTERVAL_SECONDS", "0.2")
    monkeypatch.setenv("WAL_PIPELINE_MAX_RUN_AGE_SECONDS", "1")
    return scene


def run(instance: dg.DagsterInstance, resource: WalPipelineResource) -> tuple[bool, str, list[str]]:
    """Run the job. Return whether it succeeded, its sentence, and what it logged as wrong."""
    done = build_ship_job(KEYS).execute_in_process(
        instance=instance, resources={"wal_pipeline": resource}, raise_on_error=False
    )
    outputs = [event.step_output_data for event in done.all_events if event.is_successful_output]
    sentence = str(outputs[0].metadata["answer"].value) if outputs else ""
    logged = [entry for entry in instance.all_logs(done.run_id) if entry.level == 40]
    return done.success, sentence, [entry.user_message for entry in logged]


def test_a_server_that_is_not_there_is_no_failure_of_the_run(
    scene: HealthScene, instance: dg.DagsterInstance, resource: WalPipelineResource
) -> None:
    """The run goes on trying until its time is over, says once what is wrong, and the records say it too."""
    success, sentence, logged = run(instance, resource)
    assert (success, sentence) == (True, "nothing was shipped: nothing was written, or nothing could be shipped")
    assert len(logged) == 1
    assert logged[0].startswith("nothing is shipped: ")
    shipping = read_shipping(scene.catalog.values)
    assert shipping is not None and shipping.error is not None


def test_a_run_beside_a_shipper_ends_well(
    scene: HealthScene, instance: dg.DagsterInstance, resource: WalPipelineResource
) -> None:
    """It waits for one that is about to end. One that goes on does its work."""
    with ShipLock(scene.folder / "state", "main").held():
        assert run(instance, resource)[:2] == (
            True,
            "nothing was shipped: nothing was written, or nothing could be shipped",
        )
    assert read_shipping(scene.catalog.values) is None


def test_a_pause_ends_the_run(
    scene: HealthScene, instance: dg.DagsterInstance, resource: WalPipelineResource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long before its time is over: the test would take hours."""
    monkeypatch.setenv("WAL_PIPELINE_MAX_RUN_AGE_SECONDS", "36000")
    pause(scene.catalog, scene.now, length=timedelta(hours=1), reason="", by="anna")
    assert run(instance, resource)[0]


def test_switched_off_is_refused_with_the_way_out(
    scene: HealthScene, instance: dg.DagsterInstance, resource: WalPipelineResource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where shipping is off the code location has no such job; one that was loaded before fails plainly."""
    monkeypatch.setenv("WAL_PIPELINE_SHIP_INTERVAL_SECONDS", "off")
    assert run(instance, resource)[0] is False


def test_the_end_says_what_was_shipped(scene: HealthScene) -> None:
    """Pieces and bytes of each store, and the slowest; errors are logged, and their end too."""
    ship_well(scene)
    tail = scene.facts().shipping.tails[0].tail
    assert tail is not None
    encoding = Encoding(Codec.GZIP, False, 2048, "d" * 64, "e" * 32)
    shipped = Shipped(dg.build_op_context())
    for behind in (None, 3.2, 1.1):
        shipped.note(PieceShipped("r2", tail.pieces[0].piece, encoding, behind, 0.2))
    shipped.note(PieceShipped("b2", tail.pieces[0].piece, encoding, 0.5, 0.2))
    shipped.note(ShippingFailed("b2", "b2: it is down", "Wait."))
    shipped.note(ShippingRecovered("b2"))
    assert shipped.sentence() == (
        "shipped b2 1 piece (2.0 KiB), r2 3 pieces (6.0 KiB); the slowest piece was verified 3.2 s after its commit"
    )
