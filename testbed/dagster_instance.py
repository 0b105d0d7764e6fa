"""Runs a real Dagster instance on loopback: code server, daemon and web server, each a process of its own."""

import json
import os
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

from testbed.ports import LOOPBACK, free_ports, listens
from testbed.processes import ChildProcess, ServerError
from wal_pipeline.settings import PREFIX, Settings

PROJECT = Path(__file__).parents[1]
LOCATION = "wal_pipeline"
REPOSITORY = "__repository__"
_OURS = ("WAL_PIPELINE_", "R2_", "B2_", "PG", "DAGSTER_", "AWS_")
_REQUEST_SECONDS = 60
_NO_SCHEDULES = {f"{PREFIX}{name.upper()}": "off" for name in Settings.model_fields if name.endswith("_cron")}
_LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}"""


class DagsterInstance:
    """The project's dagster.yaml in a home of its own. One code server loads the code; all others ask it."""

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        *,
        instance_file: Path = PROJECT / "dagster.yaml",
        schedules: bool = False,
    ) -> None:
        """``environment``: the program's settings, for the code server and its runs.

        Without ``schedules`` nothing runs at a fixed hour, such as retention, which may remove WAL that a test expects.
        """
        self.folder = folder
        self._instance_file = instance_file
        self.home = folder / "home"
        self._code_port, self._web_port = free_ports(2)
        off = {} if schedules else _NO_SCHEDULES
        self.environment = {**clean_environment(), **off, **environment, "DAGSTER_HOME": str(self.home)}
        python = sys.executable
        workspace = str(folder / "workspace.yaml")
        self.code_server = self._process(
            "code-server",
            *(python, "-m", "dagster", "api", "grpc", "--module-name", "wal_pipeline.definitions"),
            *("--location-name", LOCATION, "--host", LOOPBACK, "--port", str(self._code_port)),
        )
        self.daemon = self._process("daemon", python, "-m", "dagster._daemon", "run", "--workspace", workspace)
        self.web_server = self._process(
            "web-server",
            *(python, "-m", "dagster_webserver", "--workspace", workspace),
            *("--host", LOOPBACK, "--port", str(self._web_port)),
        )
        self._write_files()

    @property
    def url(self) -> str:
        """The address of the UI."""
        return f"http://{LOOPBACK}:{self._web_port}"

    def start(self) -> Self:
        """Start all three processes and return when they work."""
        self.start_code_server()
        with ThreadPoolExecutor(2) as pool:
            for started in (pool.submit(self.start_daemon), pool.submit(self.start_web_server)):
                started.result()
        return self

    def start_code_server(self) -> None:
        """Start the code server; it listens once the code is loaded."""
        self.code_server.start()
        self.code_server.wait_until(lambda: listens(self._code_port), timeout_seconds=120)

    def start_daemon(self) -> None:
        """Start the daemon, which evaluates the sensors."""
        self.daemon.start()

    def start_web_server(self) -> None:
        """Start the web server and return when it answers."""
        self.web_server.start()
        self.web_server.wait_until(self._answers, timeout_seconds=120)

    def lose_home(self) -> None:
        """Remove DAGSTER_HOME with all its records while processes run, and put its dagster.yaml back."""
        while self.home.exists():  # running processes create files meanwhile
            shutil.rmtree(self.home, ignore_errors=True)
        self._write_files()

    def stop(self) -> None:
        """End all three processes and the runs, in an order in which none starts a new run."""
        for process in (self.daemon, self.web_server, self.code_server):
            process.kill()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def graphql(self, query: str, **variables: object) -> dict[str, Any]:
        """Send a query to the web server and return its data. Raises: ServerError where the answer has errors."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/graphql", body, headers)  # noqa: S310  our own URL
        try:
            with urllib.request.urlopen(request, timeout=_REQUEST_SECONDS) as response:  # noqa: S310  our own URL
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            raise ServerError(f"GraphQL answered {error.code}: {error.read().decode(errors='replace')}") from error
        if answer.get("errors"):
            raise ServerError(f"GraphQL answered {answer['errors']}")
        data: dict[str, Any] = answer["data"]
        return data

    def launch_job(self, name: str) -> str:
        """Start a run of a job, as a person does in the UI, and return its id. Raises: ServerError."""
        selector = {"repositoryLocationName": LOCATION, "repositoryName": REPOSITORY, "jobName": name}
        answer = self.graphql(_LAUNCH, params={"selector": selector, "runConfigData": {}})["launchRun"]
        if answer["__typename"] != "LaunchRunSuccess":
            raise ServerError(f"job '{name}' was not started: {answer}")
        return str(answer["run"]["runId"])

    def _process(self, name: str, *command: str) -> ChildProcess:
        return ChildProcess(name, command, log=self.folder / f"{name}.log", env=self.environment, cwd=PROJECT)

    def _write_files(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self._instance_file, self.home / "dagster.yaml")
        (self.folder / "workspace.yaml").write_text(
            "load_from:\n  - grpc_server:\n"
            f"      host: {LOOPBACK}\n      port: {self._code_port}\n      location_name: {LOCATION}\n"
        )

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/server_info", timeout=5):  # noqa: S310  our own URL
                return True
        except OSError:
            return False


def clean_environment() -> dict[str, str]:
    """Return this process's environment without any setting of ours, PostgreSQL's, Dagster's or AWS's."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
