"""Asks Dagster's GraphQL what the UI shows, in this process, over code locations in processes of their own."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget

from testbed.dagster_instance import PROJECT, clean_environment
from testbed.ports import LOOPBACK, free_ports, listens
from testbed.processes import ChildProcess
from wal_pipeline_tests.support.dagster_graphql import DagsterUi

REPOSITORY = "__repository__"
_LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on RunConfigValidationInvalid { errors { message } }
    ... on PythonError { message }
  }
}"""
_METADATA = """
  metadataEntries {
    label
    ... on TextMetadataEntry { text }
    ... on TimestampMetadataEntry { timestamp }
  }"""
_RUN = """
query Run($id: ID!) {
  runOrError(runId: $id) {
    ... on Run {
      status
      tags { key value }
      eventConnection {
        events {
          __typename
          ... on ExecutionStepFailureEvent { error { message stack } failureMetadata { METADATA } }
          ... on ExecutionStepOutputEvent { METADATA }
        }
      }
    }
  }
}""".replace("METADATA", _METADATA)


@dataclass
class FleetUi(DagsterUi):
    """What the UI asks and starts in a workspace whose code locations are processes of their own."""

    def launch(self, location: str, job: str, config: Mapping[str, object] | None = None, **tags: str) -> str:
        """Start a run as the launchpad does, and return its id."""
        selector = {"repositoryLocationName": location, "repositoryName": REPOSITORY, "jobName": job}
        pairs = [{"key": name, "value": value} for name, value in tags.items()]
        params = {"selector": selector, "runConfigData": config or {}, "executionMetadata": {"tags": pairs}}
        answer = self.ask(_LAUNCH, params=params)["launchRun"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return str(answer["run"]["runId"])

    def ended(self, run_id: str) -> Any:
        """Wait until a run ended, and return it with its events."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            run = self.ask(_RUN, id=run_id)["runOrError"]
            if run["status"] in ("SUCCESS", "FAILURE", "CANCELED"):
                return run
            time.sleep(0.5)
        raise TimeoutError(f"run {run_id} did not end: {run}")


@contextmanager
def open_ui(folder: Path, clusters: Mapping[str, Mapping[str, str]]) -> Iterator[FleetUi]:
    """Serve one code location for each cluster, with its own settings file, as hosts of a fleet do.

    ``clusters``: the settings by the name of the code location.
    """
    home = folder / "home"
    home.mkdir(parents=True)
    (home / "dagster.yaml").write_text((PROJECT / "dagster.yaml").read_text())
    entries = []
    with ExitStack() as stack:
        # It makes the records before a second process does: two that make them at once can break them.
        instance = stack.enter_context(dg.DagsterInstance.from_config(str(home)))
        for port, (location, settings) in zip(free_ports(len(clusters)), clusters.items(), strict=True):
            stack.enter_context(_code_server(folder, home, location, settings, port))
            entries.append(
                f"  - grpc_server:\n      host: {LOOPBACK}\n      port: {port}\n      location_name: {location}\n"
            )
        (folder / "workspace.yaml").write_text("load_from:\n" + "".join(entries))
        target = WorkspaceFileTarget([str(folder / "workspace.yaml")])
        yield FleetUi(stack.enter_context(WorkspaceProcessContext(instance, target)))


@contextmanager
def _code_server(
    folder: Path, home: Path, location: str, settings: Mapping[str, str], port: int
) -> Iterator[ChildProcess]:
    env_file = folder / f"{location}.env"
    env_file.write_text("".join(f"{name}='{value}'\n" for name, value in settings.items()))
    environment = {**clean_environment(), "WAL_PIPELINE_ENV_FILE": str(env_file), "DAGSTER_HOME": str(home)}
    python = (sys.executable, "-m", "dagster", "api", "grpc", "--module-name", "wal_pipeline.definitions")
    command = (*python, "--location-name", location, "--host", LOOPBACK, "--port", str(port))
    server = ChildProcess(f"code-{location}", command, log=folder / f"{location}.log", env=environment, cwd=PROJECT)
    server.start()
    try:
        server.wait_until(lambda: listens(port), timeout_seconds=120)
        yield server
    finally:
        server.kill()
