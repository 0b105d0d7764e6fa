"""Tests the files under deploy/ and scripts/, as far as that works without a Docker engine."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import venv
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.workspace.load import location_origins_from_yaml_paths

from testbed.postgres import DATABASE, SUPERUSER, PostgresCluster
from testbed.postgres_install import PostgresInstall
from wal_pipeline.commands.setup.plan import WantedArchiving
from wal_pipeline.commands.setup.setup import look_at_archiving
from wal_pipeline.postgres.server import PostgresServer

PROJECT = Path(__file__).parents[1]
DEPLOY = PROJECT / "deploy"
COMPOSE = DEPLOY / "docker-compose.yml"
SPOOL = "/var/spool/wal-pipeline"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The services of the compose file, with its anchors and merges resolved."""
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
    return found


def server_flags(services: dict[str, Any]) -> dict[str, str]:
    """The settings on the database server's command line."""
    words = services["db"]["command"]
    return dict(word.split("=", 1) for flag, word in zip(words[1::2], words[2::2], strict=True) if flag == "-c")


def test_docker_compose_accepts_the_file(tmp_path: Path) -> None:
    """The client parses the file, fills in its variables, and refuses it without a password."""
    if shutil.which("docker-compose") is None:
        pytest.skip("docker-compose is not installed: apt-get install -y docker-compose")
    (tmp_path / "deploy").mkdir()
    shutil.copy(COMPOSE, tmp_path / "deploy")
    (tmp_path / ".env").write_text("POSTGRES_PASSWORD=one\nRECORDS_PASSWORD=two\n")
    command = ["docker-compose", "--env-file", ".env", "--file", "deploy/docker-compose.yml", "config"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60, env=environment
    )
    assert done.returncode == 0, done.stderr
    code = yaml.safe_load(done.stdout)["services"]["code"]
    assert code["environment"]["WAL_PIPELINE_CATALOG_URL"] == "postgresql+psycopg://wal_pipeline:two@records/dagster"
    (tmp_path / ".env").write_text("POSTGRES_PASSWORD=one\n")
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60, env=environment
    )
    assert done.returncode != 0
    assert "RECORDS_PASSWORD" in done.stderr


_COMPOSE_LINE = re.compile(r"(?:docker[ -]compose|\$\{tool\[\*\]\}) (?P<options>.*deploy/docker-compose\.yml) [a-z]")


def compose_lines() -> list[str]:
    """The options of each compose line that a person may type, from documents, the script and the compose file."""
    files = [
        *(PROJECT / "docs").rglob("*.md"),
        PROJECT / "README.md",
        COMPOSE,
        PROJECT / "scripts/setup_wal_archiving.sh",
    ]
    found = [match["options"] for file in files for match in _COMPOSE_LINE.finditer(file.read_text())]
    return [options.replace("$env_file", ".env") for options in found]


def test_compose_finds_the_settings_by_the_lines_as_printed(tmp_path: Path) -> None:
    """At the top of a checkout each line reads ./.env. Compose alone would read the one beside its file."""
    if shutil.which("docker-compose") is None:
        pytest.skip("docker-compose is not installed: apt-get install -y docker-compose")
    (tmp_path / "deploy").mkdir()
    shutil.copy(COMPOSE, tmp_path / "deploy")
    (tmp_path / ".env").write_text("POSTGRES_PASSWORD=one\nRECORDS_PASSWORD=two\n")
    lines = compose_lines()
    assert len(lines) >= 4
    for options in sorted(set(lines)):
        done = subprocess.run(
            ["docker-compose", *options.split(), "config", "--quiet"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        )
        assert done.returncode == 0, f"{options}: {done.stderr}"


def test_only_the_code_location_has_the_stores_credentials(services: dict[str, Any]) -> None:
    """The web server, the daemon and the database servers do not get .env; what ships the open segment needs it too."""
    assert [name for name, service in services.items() if "env_file" in service] == ["code", "ship"]
    for name in ("daemon", "web"):
        assert not [key for key in services[name]["environment"] if not key.startswith("DAGSTER_PG_")]


def test_nothing_but_the_ui_is_published_and_only_on_loopback(services: dict[str, Any]) -> None:
    """Only the UI is published, on loopback: it has no login, and the code location's port runs any code."""
    ports = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert ports == {"web": ["127.0.0.1:3000:3000"]}


def test_the_server_and_the_code_location_see_the_same_spool(services: dict[str, Any]) -> None:
    """Both mount one volume at one path, whose folders belong to PostgreSQL's user before the server starts."""
    for name in ("spool-owner", "db", "code"):
        assert f"spool:{SPOOL}" in services[name]["volumes"]
    archive, quarantine = f"{SPOOL}/archive", f"{SPOOL}/quarantine"
    assert server_flags(services)["basic_archive.archive_directory"] == archive
    assert services["code"]["environment"]["PG_WAL_ARCHIVE_DIR"] == archive
    assert services["code"]["environment"]["WAL_PIPELINE_QUARANTINE_FOLDER"] == quarantine
    assert services["spool-owner"]["command"].split()[-2:] == [archive, quarantine]
    assert services["db"]["depends_on"]["spool-owner"]["condition"] == "service_completed_successfully"


def test_the_servers_settings_are_those_of_the_fragment(services: dict[str, Any]) -> None:
    """Compose and postgresql.conf.d have the same settings, except the spool's folder."""
    fragment = (DEPLOY / "postgresql.conf.d" / "wal-archiving.conf").read_text()
    pairs = re.findall(r"^([a-z_.]+) = '?([^'\n]*)'?$", fragment, re.MULTILINE)
    flags = server_flags(services)
    folder = "basic_archive.archive_directory"
    assert {name: flags.get(name) for name, _ in pairs if name != folder} == {
        name: value for name, value in pairs if name != folder
    }


@pytest.mark.integration
def test_a_server_with_composes_settings_archives(
    services: dict[str, Any], postgres18: PostgresInstall, postgres_folder: Path
) -> None:
    """A real server with this command line archives, and setup finds nothing to change."""
    flags = {
        name: value.replace(f"{SPOOL}/archive", str(postgres_folder)) for name, value in server_flags(services).items()
    }
    cluster = PostgresCluster(postgres18, settings=flags).initdb(wal_segment_size_mb=1)
    try:
        cluster.start()
        found = look_at_archiving(PostgresServer(cluster.conninfo), WantedArchiving(postgres_folder)).findings
        assert {finding.name: finding.status.value for finding in found if finding.status.value != "ok"} == {}
        name = cluster.switch_wal()
        cluster.process.wait_until((postgres_folder / name).exists)
    finally:
        cluster.remove()


def test_the_postgres_instance_differs_in_its_storage_alone() -> None:
    """The instance in PostgreSQL keeps the sensors' threads and the run monitoring."""
    plain = yaml.safe_load((PROJECT / "dagster.yaml").read_text())
    with_postgres = yaml.safe_load((DEPLOY / "dagster.postgres.yaml").read_text())
    assert set(with_postgres.pop("storage")) == {"postgres"}
    assert with_postgres == plain


def test_the_instance_with_warm_workers_differs_in_its_launcher_alone() -> None:
    """Warm workers change nothing else, and the document's line adds them to the PostgreSQL instance."""
    plain = yaml.safe_load((PROJECT / "dagster.yaml").read_text())
    with_workers = yaml.safe_load((DEPLOY / "dagster-workers.yaml").read_text())
    launcher = with_workers.pop("run_launcher")
    assert with_workers == plain
    line = "sed -n '/^run_launcher:/,/^$/p' deploy/dagster-workers.yaml"
    assert line in (PROJECT / "docs" / "operations.md").read_text()
    done = subprocess.run(["bash", "-c", line], cwd=PROJECT, capture_output=True, text=True, check=True, timeout=10)
    assert yaml.safe_load(done.stdout) == {"run_launcher": launcher}


@pytest.mark.integration
def test_dagster_keeps_its_records_in_postgresql(
    shared_cluster18: PostgresCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real instance with the file makes its tables, and reads its own records again."""
    shared_cluster18.psql("CREATE DATABASE dagster")
    where = {"HOST": "127.0.0.1", "PORT": str(shared_cluster18.port), "DB": "dagster", "USERNAME": SUPERUSER}
    for name, value in {**where, "PASSWORD": "unused"}.items():
        monkeypatch.setenv(f"DAGSTER_PG_{name}", value)
    shutil.copy(DEPLOY / "dagster.postgres.yaml", tmp_path / "dagster.yaml")
    for wanted in (["000000010000000000000001"], []):
        with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
            instance.add_dynamic_partitions("main/wal_file", wanted)
            assert instance.get_dynamic_partitions("main/wal_file") == ["000000010000000000000001"]
    tables = shared_cluster18.psql(
        "SELECT count(*) > 10 FROM pg_tables WHERE schemaname = 'public'", database="dagster"
    )
    assert tables == "t"
    assert DATABASE != "dagster"


def test_the_fleets_workspace_names_the_code_location() -> None:
    """Dagster reads the file, and the location's name is that of the code server in compose."""
    origins = location_origins_from_yaml_paths([str(DEPLOY / "workspace.fleet.yaml")])
    assert [origin.location_name for origin in origins] == ["wal_pipeline"]
    assert "--location-name=wal_pipeline" in yaml.safe_load(COMPOSE.read_text())["services"]["code"]["command"]


def test_what_the_image_copies_is_there() -> None:
    """Every source of a COPY and of the wheel exists in the repository."""
    text = (DEPLOY / "Dockerfile").read_text()
    copied = [words for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE) for words in line.split()[:-1]]
    assert {"pyproject.toml", "wal_pipeline", "deploy/workspace.fleet.yaml"} <= set(copied)
    assert [name for name in copied if not (PROJECT / name).exists()] == []
    kept = {line[1:] for line in (PROJECT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {name.split("/")[0] for name in copied} == kept
    assert ".env" not in kept


@pytest.mark.left_out
@pytest.mark.integration
def test_the_wheel_works_without_the_checkout(tmp_path: Path) -> None:
    """The image's steps: build a wheel, install it into a fresh environment, and load the definitions from there.

    Dependencies are taken from this environment, since a download of all of them takes minutes.
    """
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "dagster.yaml", "workspace.yaml"):
        shutil.copy(PROJECT / name, source)
    shutil.copytree(PROJECT / "wal_pipeline", source / "wal_pipeline", symlinks=True)
    fresh = tmp_path / "fresh"
    venv.create(fresh, with_pip=False, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path, source], check=True, timeout=180)
    (wheel,) = tmp_path.glob("wal_pipeline-*.whl")
    python = fresh / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", "--no-deps", wheel], check=True, timeout=120)
    (packages,) = fresh.glob("lib/*/site-packages")
    (packages / "dependencies.pth").write_text(next(path for path in sys.path if path.endswith("site-packages")) + "\n")
    program = textwrap.dedent("""
        import json, wal_pipeline
        from importlib.resources import files
        from pathlib import Path
        from wal_pipeline.definitions import defs
        package = Path(wal_pipeline.__file__).parent
        jobs = sorted(job.name for job in defs().get_repository_def().get_all_jobs())
        has_template = files("wal_pipeline.commands.report").joinpath("page.html.j2").is_file()
        print(json.dumps([str(package), sorted(p.name for p in package.glob("*.yaml")), len(jobs) > 4, has_template]))
    """)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    run = {"capture_output": True, "text": True, "cwd": tmp_path, "env": environment, "timeout": 120}
    done = subprocess.run([str(python), "-W", "ignore", "-c", program], check=False, **run)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    package, files, has_jobs, has_template = json.loads(done.stdout)
    assert package.startswith(str(fresh))
    assert (files, has_jobs, has_template) == (["dagster.yaml", "workspace.yaml"], True, True)
    done = subprocess.run([str(fresh / "bin" / "wal-pipeline"), "--version"], check=False, **run)  # type: ignore[call-overload]
    assert re.fullmatch(r"wal-pipeline, version \S+\n", done.stdout)


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """systemd-analyze finds nothing wrong, and calls each unit's exposure low."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    units = []
    for path in sorted((DEPLOY / "systemd").glob("*.service")):
        unit = tmp_path / path.name
        unit.write_text(path.read_text().replace("/opt/wal-pipeline/bin", str(Path(sys.executable).parent)))
        units.append(str(unit))
    assert len(units) == 5
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False, timeout=60
    )
    assert [line for line in done.stderr.splitlines() if "wal-pipeline" in line] == []
    for unit in units:
        done = subprocess.run(
            ["systemd-analyze", "security", "--offline=yes", "--threshold=25", "--no-pager", unit],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout[-300:]


class TestSetupScript:
    """scripts/setup_wal_archiving.sh, with a ``docker`` that only records its calls."""

    @pytest.fixture
    def checkout(self, tmp_path: Path) -> Path:
        """A checkout with the script, and the test's own docker on PATH."""
        for name in ("deploy", "scripts", "bin"):
            (tmp_path / name).mkdir()
        shutil.copy(COMPOSE, tmp_path / "deploy")
        shutil.copy(PROJECT / "scripts" / "setup_wal_archiving.sh", tmp_path / "scripts")
        (tmp_path / ".env").write_text("POSTGRES_PASSWORD=one\nRECORDS_PASSWORD=two\n")
        docker = tmp_path / "bin" / "docker"
        docker.write_text(
            "#!/bin/sh\n"
            f'echo "$*" >> {tmp_path}/calls\n'
            'case "$*" in *"$FAILING"*) test -z "$FAILING" || exit 1 ;; esac\n'
        )
        docker.chmod(0o755)
        return tmp_path

    def run(self, checkout: Path, failing: str = "") -> "subprocess.CompletedProcess[str]":
        """Run the script. A docker call that contains ``failing`` fails."""
        return subprocess.run(
            [str(checkout / "scripts" / "setup_wal_archiving.sh")],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={"PATH": f"{checkout / 'bin'}:/usr/bin:/bin", "FAILING": failing},
        )

    def test_restarts_verifies_tests_and_triggers_in_this_order(self, checkout: Path) -> None:
        """The script does the four promised steps, then the first base backup."""
        done = self.run(checkout)
        assert done.returncode == 0, done.stderr
        prefix = "compose --env-file .env --file deploy/docker-compose.yml "
        calls = [line.removeprefix(prefix) for line in (checkout / "calls").read_text().splitlines()]
        ours = [call.removeprefix("exec -T code wal-pipeline ") for call in calls if "code wal-pipeline" in call]
        assert "restart db" in calls
        assert calls.index("restart db") < calls.index("up --detach --force-recreate code daemon web")
        assert ours == ["--version", "setup", "check", "setup --apply --wait 180", "backup", "status"]

    def test_stops_where_archiving_does_not_work(self, checkout: Path) -> None:
        """A failed check ends the script with an error before its next step."""
        done = self.run(checkout, failing="wal-pipeline check")
        assert done.returncode == 1
        assert done.stderr == "ERROR: archiving does not work yet: see the lines above\n"
        assert "backup" not in (checkout / "calls").read_text()

    def test_asks_for_the_settings_first(self, checkout: Path) -> None:
        """Without .env nothing is started."""
        (checkout / ".env").unlink()
        done = self.run(checkout)
        assert done.returncode == 1
        assert done.stderr == (
            "ERROR: '.env' does not exist; HINT: cp .env.example .env, and fill in the stores' credentials.\n"
        )

    def test_shellcheck_finds_nothing(self) -> None:
        """The script is clean by shellcheck."""
        if shutil.which("shellcheck") is None:
            pytest.skip("shellcheck is not installed: apt-get install -y shellcheck")
        script = PROJECT / "scripts" / "setup_wal_archiving.sh"
        done = subprocess.run(["shellcheck", str(script)], capture_output=True, text=True, check=False, timeout=60)
        assert done.stdout == ""
