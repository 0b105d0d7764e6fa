"""Tests that the documents' commands work, block by block, and that named settings, commands and files exist."""

import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from benchmarks.measures import ship
from benchmarks.report import read_results, table
from testbed.dagster_instance import clean_environment
from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, owned_folder, postgres_user
from testbed.s3_pair import S3Pair
from wal_pipeline.archive.alerts import AlertKind, Observation
from wal_pipeline.cli.archive_get import parser as archive_get_parser
from wal_pipeline.cli.registry import COMMANDS, commands
from wal_pipeline.settings import load_settings, variable_names
from wal_pipeline.wiring.pipeline import Pipeline, utc_now

PROJECT = Path(__file__).parents[1]
DOCS = PROJECT / "docs"
RUN = ("operations.md", "security.md")
_FENCE = re.compile(r"^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_SETTING = re.compile(r"\b(WAL_PIPELINE_[A-Z][A-Z0-9_]*)\b")
_OTHER_VARIABLES = {"WAL_PIPELINE_ENV_FILE"}


@dataclass(frozen=True, slots=True)
class Block:
    """One block of commands."""

    document: str
    line: int
    text: str


def blocks(document: str, *kinds: str) -> list[Block]:
    """Return a document's blocks of some kinds."""
    text = (DOCS / document).read_text()
    return [
        Block(document, text.count("\n", 0, match.start()) + 1, match["text"])
        for match in _FENCE.finditer(text)
        if match["kind"] in kinds
    ]


def documents() -> list[Path]:
    """Return the project's documents."""
    return sorted([*DOCS.rglob("*.md"), *(path for path in PROJECT.glob("*.md"))])


class _Receiver(http.server.BaseHTTPRequestHandler):
    """Receives the requests of Apprise."""

    def do_POST(self) -> None:
        """Answer with success."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def receiver() -> Iterator[str]:
    """An address that takes notifications."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"json://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def shell(
    postgres18: PostgresInstall, s3_pair: S3Pair, receiver: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """The environment of an operator: a server with the fragment of deploy/, two stores, and an open alert."""
    folder, user = owned_folder("documents"), postgres_user()
    spool = folder / "spool"
    spool.mkdir(mode=0o700)
    os.chown(spool, user.uid, user.gid)
    cluster = PostgresCluster(postgres18, folder / "cluster").initdb(wal_segment_size_mb=1)
    fragment = (PROJECT / "deploy" / "postgresql.conf.d" / "wal-archiving.conf").read_text()
    with (cluster.pgdata / "postgresql.conf").open("a") as configuration:
        configuration.write(fragment.replace("/var/spool/wal-pipeline", str(spool)))
    buckets = s3_pair.fresh_buckets()
    work = tmp_path_factory.mktemp("work")
    environment = {
        **clean_environment(),
        **s3_pair.store_environment(buckets),
        **cluster.pg_environment,
        "PATH": f"{Path(sys.executable).parent}:{postgres18.bin_folder}:{os.environ['PATH']}",
        "PGDATA": str(cluster.pgdata),
        "PGBINDIR": str(postgres18.bin_folder),
        "PG_WAL_ARCHIVE_DIR": str(spool),
        "WAL_PIPELINE_CA_BUNDLE": str(s3_pair.r2.ca_bundle),
        "WAL_PIPELINE_STATE_DIR": str(work / "state"),
        "WAL_PIPELINE_DRILL_FOLDER": str(folder / "drill"),
        "WAL_PIPELINE_NOTIFICATION_URLS": receiver,
    }
    pipeline = Pipeline(load_settings(environment))
    pipeline.catalog.alerts.observe(AlertKind.RUN_FAILED, Observation("an example", "for the document"), utc_now())
    environment["ALERT"] = str(pipeline.catalog.alerts.active()[0].id)
    environment["WORK"] = str(work)
    try:
        cluster.start()
        yield environment
    finally:
        cluster.remove()
        shutil.rmtree(folder, ignore_errors=True)
        s3_pair.remove_buckets(buckets)


@pytest.mark.integration
@pytest.mark.left_out
@pytest.mark.parametrize(
    "block", [pytest.param(b, id=f"{b.document}:{b.line}") for document in RUN for b in blocks(document, "bash")]
)
def test_the_commands_work(block: Block, shell: dict[str, str]) -> None:
    """A reader who types a block, after those before it, gets no error."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.text],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=shell["WORK"],
        env=shell,
    )
    with Path(shell["WORK"], "output").open("a") as output:
        output.write(done.stdout + done.stderr)
    assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"


@pytest.mark.integration
@pytest.mark.left_out
def test_none_of_the_commands_wrote_a_secret(shell: dict[str, str]) -> None:
    """Neither output nor catalog, audit log, metrics, report or the server's log holds a secret's value."""
    secrets = [value.encode() for value in load_settings(shell).secret_values() if len(value) > 6]
    assert len(secrets) >= 5
    folders = [Path(shell["WORK"]), Path(shell["PGDATA"]).parent]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and "pgdata" not in path.parts]
    assert {"output", "catalog.sqlite", "audit.jsonl", "report.html", "server.log"} <= {path.name for path in files}
    assert [(path.name, secret) for path in files for secret in secrets if secret in path.read_bytes()] == []


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_every_command_and_option_exists(document: Path) -> None:
    """No document names a command or an option that the program does not know."""
    known = commands()
    for line in document.read_text().replace("\\\n", " ").splitlines():
        for call in re.findall(r"(?<![\w/-])wal-pipeline((?: --env-file \S+)? [a-z][a-z-]*(?:[^`|;&#\n']*))", line):
            words = call.split()
            name = next((word for word in words if not word.startswith("--") and "/" not in word), "")
            if name not in known and name != "archive-get":
                assert name not in COMMANDS
                continue  # a sentence that continues after the program's name
            options = set(re.findall(r"--[a-z][a-z-]*", call)) - {"--env-file"}
            assert options <= _options(known, words[words.index(name) :]), f"{document.name}: {line}"


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_every_setting_exists(document: Path) -> None:
    """No document names a setting that would be refused."""
    known = {name for names in variable_names().values() for name in names} | _OTHER_VARIABLES
    assert {name for name in _SETTING.findall(document.read_text()) if name not in known} == set()


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    """Links to files and headings of the project are not broken."""
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", document.read_text()):
        path, _, anchor = target.partition("#")
        linked = (document.parent / path) if path else document
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_every_path_of_the_repository_exists(document: Path) -> None:
    """A file that a document names with its folder is in the repository."""
    named = re.findall(
        r"`((?:deploy|docs|scripts|wal_pipeline|wal_pipeline_tests|benchmarks)/[\w./-]+)`", document.read_text()
    )
    assert [path for path in named if not (PROJECT / path).exists()] == []


def test_the_page_on_performance_quotes_the_results() -> None:
    """The table is that of benchmarks/results, and has the figures of shipping."""
    results = read_results()
    assert table(results) in (DOCS / "performance.md").read_text(), 'run: make bench ARGS="--document"'
    figures = {figure["key"]: figure["value"] for figure in results["sections"]["ship"]["figures"]}
    assert figures.keys() == set(ship.KEYS)
    assert {key: results[key] for key in figures} == figures
    assert None not in figures.values()


def test_the_ten_points_of_the_checklist_are_there() -> None:
    """The production checklist has ten points, each with what to type or where to read."""
    text = (DOCS / "operations.md").read_text()
    section = text[text.index("## Production checklist") : text.index("## Every day")]
    assert [int(number) for number in re.findall(r"^\*\*(\d+)\.", section, re.MULTILINE)] == list(range(1, 11))


def test_the_audit_log_holds_json_lines(tmp_path: Path) -> None:
    """Each line of the audit log is JSON, as the document says."""
    environment = {"WAL_PIPELINE_STATE_DIR": str(tmp_path)}
    Pipeline(load_settings(environment)).audit.write("pause", "main", "paused")
    (line,) = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert json.loads(line)["action"] == "pause"


def _options(known: dict[str, click.Command], words: list[str]) -> set[str]:
    """The options of the command that ``words`` call, with those of its group."""
    if words[0] == "archive-get":
        return {option for action in archive_get_parser()._actions for option in action.option_strings}
    command, found = known[words[0]], {"--help", "--version"}
    found |= {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    if isinstance(command, click.Group) and len(words) > 1 and words[1] in command.commands:
        below = command.commands[words[1]]
        found |= {option for parameter in below.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return found
