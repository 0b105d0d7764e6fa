"""Runs a real Dagster instance on loopback: code servers, daemon and web server, each a process of its own."""

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
_BY_ITSELF = [name for name in Settings.model_fields if name.endswith("_cron") or name == "ship_interval_seconds"]
_NO_SCHEDULES = {f"{PREFIX}{name.upper()}": "off" for name in _BY_ITSELF}
_LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}"""


class DagsterInstance:
    """The project's dagster.yaml in a home of its own. Code servers load the code; all others ask them."""

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        *,
        instance_file: Path = PROJECT / "dagster.yaml",
        schedules: bool = False,
        location: str = LOCATION,
        fleet: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        """``environment``: the program's settings, for the code server and its runs.

        ``fleet``: further code locations by name, each with the settings of a cluster of its own.

        Without ``schedules`` nothing runs at a fixed hour, such as retention, which may remove WAL that a test expects,
        and the open segment is not shipped unless ``environment`` says so.
        """
        self.folder = folder
        self._instance_file = instance_file
        self.home = folder / "home"
        self.location = location
        (self._web_port,) = free_ports(1)
        off = {} if schedules else _NO_SCHEDULES
        self.environment = {**clean_environment(), **off, **environment, "DAGSTER_HOME": str(self.home)}
        python = sys.executable
        workspace = str(folder / "workspace.yaml")
        others = {name: {**self.environment, **settings} for name, settings in (fleet or {}).items()}
        self._ports = dict(zip([location, *others], free_ports(1 + len(others)), strict=True))
        self.code_server = self._code_server(location, self.environment)
        self.other_code_servers = {name: self._code_server(name, own) for name, own in others.items()}
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
        """Start all processes and return when they work."""
        self.start_code_server()
        for name, server in self.other_code_servers.items():  # one by one: the first makes the records' files
            self._start_code_server(name, server)
        with ThreadPoolExecutor(2) as pool:
            for started in (pool.submit(self.start_daemon), pool.submit(self.start_web_server)):
                started.result()
        return self

    def start_code_server(self) -> None:
        """Start the code server; it listens once the code is loaded."""
        self._start_code_server(self.location, self.code_server)

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
        """End all processes and the runs, in an order in which none starts a new run."""
        for process in (self.daemon, self.web_server, self.code_server, *self.other_code_servers.values()):
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

    def launch_job(self, name: str, config: Mapping[str, Any] | None = None) -> str:
        """Start a run of a job, as a person does in the UI, and return its id. Raises: ServerError."""
        selector = {"repositoryLocationName": self.location, "repositoryName": REPOSITORY, "jobName": name}
        answer = self.graphql(_LAUNCH, params={"selector": selector, "runConfigData": config or {}})["launchRun"]
        if answer["__typename"] != "LaunchRunSuccess":
            raise ServerError(f"job '{name}' was not started: {answer}")
        return str(answer["run"]["runId"])

    def _code_server(self, location: str, environment: Mapping[str, str]) -> ChildProcess:
        command = [sys.executable, "-m", "dagster", "api", "grpc", "--module-name", "wal_pipeline.definitions"]
        command += ["--location-name", location, "--host", LOOPBACK, "--port", str(self._ports[location])]
        name = "code-server" if location == self.location else f"code-server-{location}"
        return ChildProcess(name, command, log=self.folder / f"{name}.log", env=environment, cwd=PROJECT)

    def _start_code_server(self, location: str, server: ChildProcess) -> None:
        server.start()
        server.wait_until(lambda: listens(self._ports[location]), timeout_seconds=120)

    def _process(self, name: str, *command: str) -> ChildProcess:
        return ChildProcess(name, command, log=self.folder / f"{name}.log", env=self.environment, cwd=PROJECT)

    def _write_files(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self._instance_file, self.home / "dagster.yaml")
        entries = [
            f"  - grpc_server:\n      host: {LOOPBACK}\n      port: {port}\n      location_name: {location}\n"
            for location, port in self._ports.items()
        ]
        (self.folder / "workspace.yaml").write_text("".join(["load_from:\n", *entries]))

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/server_info", timeout=5):  # noqa: S310  our own URL
                return True
        except OSError:
            return False


def clean_environment() -> dict[str, str]:
    """Return this process's environment without any setting of ours, PostgreSQL's, Dagster's or AWS's."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
