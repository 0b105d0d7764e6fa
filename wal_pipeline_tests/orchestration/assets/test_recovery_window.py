"""Tests that the first rows of the recovery window answer a person on call, and that only what changes is plotted."""

from datetime import timedelta

import dagster as dg

from wal_pipeline.orchestration.assets.recovery_window import build_window_asset
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.text import moment_text
from wal_pipeline_tests.support.health_pipeline import KEYS
from wal_pipeline_tests.support.health_scene import STORES, HealthScene, name


def rows(resource: WalPipelineResource, instance: dg.DagsterInstance) -> dict[str, dg.MetadataValue]:
    """Materialize the asset, and return its metadata in the order of the UI's rows."""
    asset = build_window_asset(KEYS, STORES)
    result = dg.materialize([asset], resources={"wal_pipeline": resource}, instance=instance)
    [event] = result.asset_materializations_for_node("main__recovery_window")
    return dict(event.metadata)


def test_the_first_rows_are_answer_table_and_picture(
    scene: HealthScene, resource: WalPipelineResource, instance: dg.DagsterInstance
) -> None:
    """The UI shows rows in this order, and a picture without a click where its text has less than 1,000 characters."""
    found = rows(resource, instance)
    assert list(found)[:3] == ["answer", "windows", "picture"]
    latest = moment_text(scene.now - timedelta(seconds=90))
    assert str(found["answer"].value).startswith(f"main can be recovered to {latest} UTC from r2 and b2, ")
    table = found["windows"]
    assert isinstance(table, dg.TableMetadataValue)
    assert [column.name for column in table.schema.columns][:4] == ["store", "from", "to", "RPO"]
    stores = [record.data["store"] for record in table.records]
    assert stores == ["any store", "r2", "b2"]
    assert [record.data["bytes"] for record in table.records] == ["576.0 MiB", "288.0 MiB", "288.0 MiB"]
    picture = str(found["picture"].value)
    assert picture.startswith("![windows](data:image/svg+xml;base64,")
    assert len(picture) < 1000
    assert str(found["b2: ends at"].value).endswith(f" on timeline 1, the end of '{name(10)}'")


def test_numbers_are_rounded_and_none_is_a_constant(
    scene: HealthScene, resource: WalPipelineResource, instance: dg.DagsterInstance
) -> None:
    """Eighteen digits tell nobody more than one, and a plot of a constant tells nothing."""
    found = rows(resource, instance)
    numbers = {key: one.value for key, one in found.items() if one.value is not None and is_number(one)}
    assert {key.partition(": ")[2] for key in numbers} <= {"RPO seconds", "window hours", "WAL MiB", "base backup MiB"}
    assert numbers["r2: WAL MiB"] == 1.9
    assert all(round(float(value), 1) == value for value in numbers.values())


def is_number(value: dg.MetadataValue) -> bool:
    return isinstance(value, dg.IntMetadataValue | dg.FloatMetadataValue)


def test_an_empty_archive_says_what_was_not_looked_at(
    scene: HealthScene, resource: WalPipelineResource, instance: dg.DagsterInstance
) -> None:
    """Without any record the answer claims nothing, and the rows are there all the same."""
    scene.catalog.close()
    (scene.folder / "catalog.sqlite").unlink()
    found = rows(resource, instance)
    assert list(found)[:3] == ["answer", "windows", "picture"]
    assert "whether it can be recovered was not looked at" in str(found["answer"].value)
