"""Tests that a whole pipeline writes no secret to a wrong place, at work and in its failures.

PostgreSQL, two S3 servers, the daemon, a catalog in PostgreSQL, encryption and notifications run for real, each with a
secret of its own. The files and outputs of all are searched for each value, in every form that ``secret_search`` knows.
Its own tests show that it finds planted secrets.
"""

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pyrage
import pytest

from testbed.dagster_instance import PROJECT, clean_environment
from testbed.fault_proxy import FaultProxy
from testbed.faults import Answer
from testbed.ports import LOOPBACK, free_port
from testbed.postgres import DATABASE, PostgresCluster
from testbed.postgres_install import PostgresInstall, owned_folder, postgres_user
from testbed.s3_pair import S3Pair
from testbed.tls import TlsFiles
from wal_pipeline_tests.support.daemon_scene import STORES, DaemonScene, start_daemon_scene
from wal_pipeline_tests.support.receiver import Receiver
from wal_pipeline_tests.support.secret_search import ProcessWatch, SecretSearch

# Each may be the first, which plays the story.
pytestmark = [pytest.mark.integration, pytest.mark.left_out, pytest.mark.timeout(600)]

TAIL = "/+q7=Zx"  # characters that a URL and JSON escape
R2_WRONG, POSTGRES_WRONG, CATALOG_WRONG = f"r2-wrong-key{TAIL}", f"postgres-wrong{TAIL}", f"catalog-wrong{TAIL}"
POSTGRES, CATALOG = f"postgres-word{TAIL}", f"catalog-word{TAIL}"
HOOK_USER, HOOK_TOKEN = "hook-user-word-91", "hook-token-word-92"
IDENTITY = pyrage.x25519.Identity.generate()
# The sources of secrets: the operator's files, and a store's own list of keys.
SOURCES = {"s3.json", "restore.env", "age-identity.txt"}


@dataclass(slots=True)
class SecretsScene:
    """The pipeline at work, the output of its commands, and the search for secrets."""

    pipeline: DaemonScene
    proxy: FaultProxy
    home: Path
    secrets: dict[str, str]
    watch: ProcessWatch
    folders: list[Path]
    printed: list[str] = field(default_factory=list)

    def command(self, *words: str, expect: int = 0, wrong: Mapping[str, str] | None = None) -> str:
        """Run ``wal-pipeline`` with the scene's settings, some of them ``wrong``, and keep its output.

        With ``--env-file`` PostgreSQL's user runs it, with the settings of the file alone.
        """
        program = [sys.executable, "-m", "wal_pipeline.cli", *words]
        by_server = "--env-file" in words
        settings = clean_environment() if by_server else self.pipeline.dagster.environment
        done = subprocess.run(
            postgres_user().wrap(program) if by_server else program,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={**settings, **(wrong or {})},
            cwd=PROJECT,
        )
        self.printed.append(done.stdout + done.stderr)
        assert done.returncode == expect, f"wal-pipeline {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    @property
    def search(self) -> SecretSearch:
        """The search for all secrets."""
        return SecretSearch(self.secrets)


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """A service for notifications."""
    started = Receiver()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def scene(
    tmp_path_factory: pytest.TempPathFactory, postgres18: PostgresInstall, tls_files: TlsFiles, receiver: Receiver
) -> Iterator[SecretsScene]:
    """A whole pipeline in which each connection has a secret. R2 is behind a fault proxy."""
    folder, home = tmp_path_factory.mktemp("secrets"), owned_folder("secrets")
    identity_file = _given_to_postgres(home / "age-identity.txt")
    identity_file.write_text(str(IDENTITY))
    receiver.url = receiver.url.rsplit("@", 1)[1].split("/")[0]
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        proxies: list[FaultProxy] = []

        def prepare(cluster: PostgresCluster, pair: S3Pair) -> Mapping[str, str]:
            proxies.append(stack.enter_context(FaultProxy(pair.r2, tls=tls_files)))
            _make_roles(cluster)
            address = f"{LOOPBACK}:{cluster.port}"
            return {
                "R2_ENDPOINT_URL": proxies[0].endpoint_url,
                "WAL_PIPELINE_CONNINFO": _conninfo(cluster, POSTGRES),
                "WAL_PIPELINE_CATALOG_URL": f"postgresql://catalog:{quote(CATALOG, safe='')}@{address}/catalog",
                "WAL_PIPELINE_NOTIFICATION_URLS": f"json://{HOOK_USER}:{HOOK_TOKEN}@{receiver.url}/{HOOK_TOKEN}",
                "WAL_PIPELINE_AGE_RECIPIENTS": str(IDENTITY.to_public()),
                "WAL_PIPELINE_AGE_IDENTITY_FILE": str(identity_file),
                "WAL_PIPELINE_HEALTH_INTERVAL_SECONDS": "5",
                "PGDATA": str(cluster.pgdata),
            }

        secrets = {
            "postgres": POSTGRES,
            "catalog": CATALOG,
            "notification user": HOOK_USER,
            "notification token": HOOK_TOKEN,
            "age identity": str(IDENTITY),
            "wrong key": R2_WRONG,
            "wrong postgres": POSTGRES_WRONG,
            "wrong catalog": CATALOG_WRONG,
        }
        watched = dict(secrets)
        for store in STORES:  # as S3Pair makes them
            watched[f"{store} secret"] = f"{store}-test-secret-access-key{TAIL}"
            watched[f"{store} key id"] = f"AKIA{store.upper()}TESTKEY"
        watch = stack.enter_context(ProcessWatch(SecretSearch(watched)))
        daemon = stack.enter_context(
            start_daemon_scene(postgres18, folder, tls_files, secret_tail=TAIL, prepare=prepare)
        )
        servers = (daemon.pair.r2, daemon.pair.b2)
        assert {watched[f"{one.name} secret"] for one in servers} == {one.secret_access_key for one in servers}
        assert {watched[f"{one.name} key id"] for one in servers} == {one.access_key_id for one in servers}
        yield SecretsScene(daemon, proxies[0], home, watched, watch, [folder, home, daemon.cluster.folder])


@pytest.fixture(scope="module")
def worked(scene: SecretsScene) -> SecretsScene:
    """Runs and commands archived, backed up, verified and restored; PostgreSQL asked for the passwords."""
    daemon = scene.pipeline
    names = daemon.write_segments(3)
    daemon.wait(lambda: daemon.has_left(names))
    backup = daemon.dagster.launch_job("take_base_backup")
    daemon.wait(lambda: _status(daemon, backup) in {"SUCCESS", "FAILURE"}, timeout_seconds=180)
    assert _status(daemon, backup) == "SUCCESS", daemon.dagster.code_server.log_tail(80)
    last = daemon.write_segments(1)
    daemon.wait(lambda: daemon.has_left(last))
    for words in (("verify", "--deep"), ("status", "--json"), ("metrics",), ("list", "--json"), ("alerts", "test")):
        scene.command(*words)
    scene.command("report", "--output", str(scene.home / "report.html"))
    port, sockets = free_port(), owned_folder("socket")
    where = {"port": str(port), "unix_socket_directories": str(sockets), "listen_addresses": LOOPBACK}
    options = [f"--set={name}={value}" for name, value in where.items()]
    env_file = _restore_env(scene)
    pgdata = _given_to_postgres(scene.home / "restored", folder=True) / "pgdata"
    scene.folders.append(sockets)
    scene.command(
        "--env-file", str(env_file), "restore", "--pgdata", str(pgdata), "--start", "--no-archiving", *options
    )
    daemon.cluster.run("pg_ctl", "stop", "--mode=fast", "--pgdata", str(pgdata))
    scene.command("archive-get", "--env-file", str(env_file), "--pgdata", str(pgdata), names[0], str(pgdata / "one"))
    sockets.rmdir()
    return scene


@pytest.fixture(scope="module")
def failed(worked: SecretsScene, receiver: Receiver) -> SecretsScene:
    """A store was down or repeated the key id in its refusal, each password was wrong, a notification was refused."""
    scene, daemon = worked, worked.pipeline
    receiver.status = 500
    scene.proxy.down()
    names = daemon.write_segments(2)
    audit = Path(daemon.dagster.environment["WAL_PIPELINE_STATE_FOLDER"]) / "audit.jsonl"
    daemon.wait(lambda: '"result": "failed"' in audit.read_text())
    scene.proxy.up()
    key_id = daemon.pair.r2.access_key_id
    telling = f"The key {key_id} is not known</Message><AWSAccessKeyId>{key_id}</AWSAccessKeyId><Message>"
    refusal = scene.proxy.add(Answer(403, "InvalidAccessKeyId", telling), times=None)
    backup = daemon.dagster.launch_job("take_base_backup")
    daemon.wait(lambda: refusal.hits > 2 and _status(daemon, backup) in {"SUCCESS", "FAILURE"}, timeout_seconds=180)
    assert _status(daemon, backup) == "FAILURE"
    scene.command("archive", expect=1)
    scene.command("check", expect=1)
    scene.command("verify", "--deep", expect=1)
    daemon.wait(lambda: "refused with status 500" in daemon.dagster.daemon.log.read_text(), timeout_seconds=180)
    scene.proxy.clear()

    (daemon.spool / f"{names[0][:-4]}FFFF").write_bytes(b"no segment" * 1000)
    wrong_server = {"WAL_PIPELINE_CONNINFO": _conninfo(daemon.cluster, POSTGRES_WRONG)}
    scene.command("backup", expect=1, wrong=wrong_server)
    scene.command("check", expect=1, wrong={**wrong_server, "R2_SECRET_ACCESS_KEY": R2_WRONG})
    catalog = daemon.dagster.environment["WAL_PIPELINE_CATALOG_URL"]
    wrong_catalog = catalog.replace(quote(CATALOG, safe=""), quote(CATALOG_WRONG, safe=""))
    scene.command("status", expect=1, wrong={"WAL_PIPELINE_CATALOG_URL": wrong_catalog})
    scene.command("alerts", "test", expect=1)
    scene.command(
        "restore",
        "--pgdata",
        str(scene.home / "no"),
        expect=1,
        wrong={"R2_SECRET_ACCESS_KEY": R2_WRONG, "B2_SECRET_ACCESS_KEY": R2_WRONG},
    )
    scene.command("archive-get", names[0], str(scene.home / "no"), expect=200, wrong={"R2_SECRET_ACCESS_KEY": R2_WRONG})
    scene.command("status", expect=1, wrong={"WAL_PIPELINE_CODEC": R2_WRONG})
    daemon.wait(lambda: daemon.has_left(names))
    told = json.loads(scene.command("alerts", "list", "--all", "--json"))
    assert "store_down" in {alert["kind"] for alert in told}
    daemon.dagster.stop()  # so that no file comes or goes while they are searched
    return scene


def test_everything_works_with_its_secret(worked: SecretsScene) -> None:
    """No command failed on the way, and each said something."""
    assert len(worked.printed) >= 8


def test_everything_fails_with_its_secret(failed: SecretsScene) -> None:
    """Each command failed as it should, and said why."""
    assert sum("ERROR: " in text for text in failed.printed) >= 5


def test_no_file_holds_a_secret(failed: SecretsScene) -> None:
    """No byte of Dagster's, our, the restored cluster's and the servers' files holds a secret."""
    files = [path for folder in failed.folders for path in folder.rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert {"audit.jsonl", "report.html", "daemon.log", "runs.db", "server.log", "postgresql.auto.conf"} <= names
    assert any(path.suffix == ".err" for path in files), "no run's output was kept"
    found = [one for one in failed.search.in_files(failed.folders) if not _is_source(Path(one.place))]
    assert found == []


def test_files_with_secrets_are_closed_to_others(failed: SecretsScene) -> None:
    """The search finds the operator's own files, and each file that holds a secret has mode 0600."""
    found = {Path(one.place) for one in failed.search.in_files(failed.folders)}
    assert {path.name for path in found} == SOURCES
    assert [path for path in found if stat.S_IMODE(path.stat().st_mode) & 0o077] == []


def test_no_store_holds_a_secret(failed: SecretsScene) -> None:
    """No object's bytes, key or metadata hold a secret."""
    searched = 0
    for server, bucket in (
        (failed.pipeline.pair.r2, failed.pipeline.buckets.r2),
        (failed.pipeline.pair.b2, failed.pipeline.buckets.b2),
    ):
        client = server.client()
        for key in server.keys(bucket):
            metadata = client.head_object(Bucket=bucket, Key=key)["Metadata"]
            assert failed.search.in_bytes(server.read(bucket, key) + key.encode() + repr(metadata).encode()) == []
            searched += 1
    assert searched > 10


def test_no_record_of_the_catalog_holds_a_secret(failed: SecretsScene) -> None:
    """A dump of the catalog, with its alerts and their deliveries, holds no secret."""
    dump = failed.pipeline.cluster.run("pg_dump", "--dbname=catalog", "--inserts")
    assert "store_down" in dump or "run_failed" in dump
    assert failed.search.in_bytes(dump.encode()) == []


def test_no_output_holds_a_secret(failed: SecretsScene) -> None:
    """Neither the output nor the errors of the commands hold a secret."""
    assert len(failed.printed) > 15
    assert [text for text in failed.printed if failed.search.in_bytes(text.encode())] == []


def test_no_process_was_given_a_secret(failed: SecretsScene) -> None:
    """No process that was seen meanwhile has a secret among its arguments."""
    assert failed.watch.findings == set()
    # Servers must have been seen. A process that ends within a fiftieth of a second is searched only where it was seen.
    for program in ("pg_basebackup", "dagster._daemon", "wal_pipeline.cli"):
        assert failed.watch.saw(program), f"'{program}' was never seen"


def _make_roles(cluster: PostgresCluster) -> None:
    """Make the roles with passwords, and have the server ask for them."""
    cluster.psql(
        f"CREATE ROLE archiver LOGIN SUPERUSER PASSWORD '{POSTGRES}';\n"
        f"CREATE ROLE catalog LOGIN PASSWORD '{CATALOG}';\n"
        "CREATE DATABASE catalog OWNER catalog;\n"
    )
    hba = cluster.pgdata / "pg_hba.conf"
    asked = "".join(f"host {what} archiver,catalog {LOOPBACK}/32 scram-sha-256\n" for what in ("all", "replication"))
    hba.write_text(asked + hba.read_text())
    cluster.psql("SELECT pg_reload_conf()")


def _conninfo(cluster: PostgresCluster, password: str) -> str:
    return f"host={LOOPBACK} port={cluster.port} user=archiver dbname={DATABASE} password='{password}'"


def _restore_env(scene: SecretsScene) -> Path:
    """Write the settings of a machine that restores, for PostgreSQL's user alone."""
    chosen = ("R2_", "B2_", "WAL_PIPELINE_CA_", "WAL_PIPELINE_AGE_IDENTITY", "PGBINDIR")
    settings = {name: value for name, value in scene.pipeline.dagster.environment.items() if name.startswith(chosen)}
    settings["WAL_PIPELINE_STATE_FOLDER"] = str(scene.home / "restored" / "state")
    path = _given_to_postgres(scene.home / "restore.env")
    path.write_text("".join(f"{name}='{value}'\n" for name, value in settings.items()))
    return path


def _given_to_postgres(path: Path, *, folder: bool = False) -> Path:
    """Make a file or folder that PostgreSQL's user alone can read."""
    if folder:
        path.mkdir(mode=0o700)
    else:
        path.touch(mode=0o600)
    user = postgres_user()
    os.chown(path, user.uid, user.gid)
    return path


def _status(daemon: DaemonScene, run_id: str) -> str:
    return next(run.status for run in daemon.runs() if run.run_id == run_id)


def _is_source(path: Path) -> bool:
    return path.name in SOURCES
