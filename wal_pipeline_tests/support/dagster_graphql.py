"""Asks Dagster's own GraphQL in this process, as the UI does: the real definitions over a test's instance."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.test_utils import InProcessTestWorkspaceLoadTarget
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster_graphql.schema import create_schema
from graphene import Schema

_SCHEMA = create_schema()
_STATUSES = """
query Statuses($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) {
    ... on AssetNode {
      assetPartitionStatuses {
        ... on DefaultPartitionStatuses {
          materializedPartitions
          failedPartitions
          unmaterializedPartitions
        }
      }
    }
  }
}"""


def partitions_by_status(ask: Callable[..., Mapping[str, Any]], key: dg.AssetKey) -> dict[str, list[str]]:
    """Return the partitions of an asset by status, as the dialog of a backfill has them."""
    statuses = ask(_STATUSES, key={"path": list(key.path)})["assetNodeOrError"]["assetPartitionStatuses"]
    names = {"materialized": "materialized", "failed": "failed", "missing": "unmaterialized"}
    return {name: sorted(statuses[f"{found}Partitions"]) for name, found in names.items()}


@dataclass
class DagsterUi:
    """What the UI asks of a web server."""

    workspace: WorkspaceProcessContext
    schema: Schema = _SCHEMA

    def ask(self, query: str, **variables: object) -> dict[str, Any]:
        """Return the data of a query's answer; its errors fail the test."""
        request = self.workspace.create_request_context()  # one for each: what it has loaded it keeps
        found = asyncio.run(self.schema.execute_async(query, context_value=request, variable_values=variables))
        assert not found.errors, found.errors
        assert found.data is not None
        return dict(found.data)

    def asset(self, key: dg.AssetKey, fields: str) -> dict[str, Any]:
        """Return fields of an asset, such as ``groupName owners``."""
        query = "query One($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode { %s } } }"
        return dict(self.ask(query % fields, key={"path": list(key.path)})["assetNodeOrError"])

    def partitions(self, key: dg.AssetKey) -> dict[str, list[str]]:
        """Return the partitions of an asset by status: ``materialized``, ``failed`` and ``missing``."""
        return partitions_by_status(self.ask, key)


@contextmanager
def dagster_ui(instance: dg.DagsterInstance) -> Iterator[DagsterUi]:
    """Load the program's definitions by the settings of the environment, and give what answers the UI's queries."""
    origin = InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name="wal_pipeline.definitions"))
    with WorkspaceProcessContext(instance, InProcessTestWorkspaceLoadTarget(origin)) as workspace:
        yield DagsterUi(workspace)
