"""Reads Dagster's records from its web server, as the UI does."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from demo.scene import CLUSTER
from testbed.dagster_instance import DagsterInstance

SENSOR: Final = "spool_sensor"
_SENSOR_TAG: Final = "dagster/sensor_name"
_RUNS = """
query Runs($filter: RunsFilter!) {
  runsOrError(filter: $filter) {
    __typename
    ... on Runs { results { runId status } }
  }
}"""
_MATERIALIZATIONS = """
query Materializations($key: AssetKeyInput!) {
  assetOrError(assetKey: $key) {
    ... on Asset {
      assetMaterializations {
        partition
        runId
        metadataEntries { label ... on FloatMetadataEntry { floatValue } }
      }
    }
  }
}"""


@dataclass(frozen=True, slots=True)
class Materialization:
    """One recorded copy: the file, the run that stored it, and the seconds from the spool to verified."""

    file: str
    store: str
    run_id: str
    lag_seconds: float | None


def sensor_runs(dagster: DagsterInstance) -> dict[str, str]:
    """Return the status of each run that the spool sensor started, by run id."""
    wanted = {"tags": [{"key": _SENSOR_TAG, "value": SENSOR}]}
    runs = dagster.graphql(_RUNS, filter=wanted)["runsOrError"]["results"]
    return {run["runId"]: run["status"] for run in runs}


def materializations(dagster: DagsterInstance, store: str) -> list[Materialization]:
    """Return the materializations of one store's segment asset."""
    key = {"path": [CLUSTER, "wal_segment", store]}
    found = dagster.graphql(_MATERIALIZATIONS, key=key)["assetOrError"].get("assetMaterializations", [])
    return [
        Materialization(item["partition"], store, item["runId"], _number(item["metadataEntries"], "lag_seconds"))
        for item in found
    ]


def archived_by_sensor(dagster: DagsterInstance, stores: Sequence[str]) -> dict[str, list[Materialization]]:
    """Return the files that the sensor's runs stored on **every** store, each with its materializations."""
    runs = sensor_runs(dagster)
    by_file: dict[str, list[Materialization]] = {}
    for store in stores:
        for item in materializations(dagster, store):
            if item.run_id in runs:
                by_file.setdefault(item.file, []).append(item)
    return {file: items for file, items in by_file.items() if {item.store for item in items} == set(stores)}


def _number(entries: list[dict[str, Any]], label: str) -> float | None:
    return next((entry.get("floatValue") for entry in entries if entry["label"] == label), None)
