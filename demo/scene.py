"""Starts PostgreSQL 18, two S3 servers that stand for R2 and B2, and Dagster, with archiving set up."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from demo.folder import DemoError
from testbed.dagster_instance import PROJECT, DagsterInstance, clean_environment
from testbed.postgres import PostgresCluster
from testbed.postgres_install import postgres_18, postgres_user
from testbed.s3_pair import S3Buckets, S3Pair
from wal_pipeline.host.own_command import own_command
from wal_pipeline.wiring.pipeline import Pipeline, open_pipeline

Tell = Callable[[str], None]
CLUSTER: Final = "main"
BUCKETS: Final = S3Buckets(r2="wal-archive-r2", b2="wal-archive-b2")
_ARCHIVE_TIMEOUT_SECONDS: Final = 2  # so short only for the show: PostgreSQL also switches segments by itself
_SHIPPING: Final = {"WAL_PIPELINE_SHIP_INTERVAL_SECONDS": "5"}  # the default, which a test's Dagster switches off
_COMMAND_SECONDS: Final = 300
_SERVER_SETTINGS: Final = {"max_wal_size": "512MB", "log_checkpoints": "off"}


@dataclass(frozen=True, slots=True)
class Mode:
    """The settings in which a demo on the screen and a demo of ``--once`` differ."""

    wal_keep_size: str
    max_run_seconds: int


# With --once every segment also stays in pg_wal, so that each copy can be compared with PostgreSQL's own file.
PROVE: Final = Mode(wal_keep_size="64GB", max_run_seconds=900)
# A person may watch for hours: no WAL is kept, and runs are so short that several can be seen.
WATCH: Final = Mode(wal_keep_size="0", max_run_seconds=120)


@dataclass(frozen=True, slots=True)
class Scene:
    """The running servers and the settings that reach them."""

    folder: Path
    cluster: PostgresCluster
    stores: S3Pair
    dagster: DagsterInstance
    env_file: Path

    @property
    def store_settings(self) -> dict[str, str]:
        """The settings that a machine needs to restore: credentials, the cluster's name, PostgreSQL's programs."""
        return store_settings(self.cluster, self.stores)

    @property
    def pipeline(self) -> Pipeline:
        """The program's objects for the demo's settings."""
        return open_pipeline(self.env_file)

    def typed(self, *arguments: str) -> str:
        """Return a command of the program as a person has to type it to look into this demo."""
        return f"{own_command(self.env_file)} {shlex.join(arguments)}"

    def command(self, *arguments: str, expect: tuple[int, ...] = (0,)) -> str:
        """Run ``wal-pipeline`` with these arguments and return its output. Raises: DemoError."""
        finished = subprocess.run(
            [sys.executable, "-m", "wal_pipeline.cli", "--env-file", str(self.env_file), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=_COMMAND_SECONDS,
            env=clean_environment(),
            cwd=PROJECT,
        )
        if finished.returncode not in expect:
            raise DemoError(
                f"'{self.typed(*arguments)}' ended with {finished.returncode}:\n"
                f"{finished.stdout}{finished.stderr}".rstrip()
            )
        return finished.stdout


@contextmanager
def start_scene(folder: Path, tell: Tell, mode: Mode) -> Iterator[Scene]:
    """Start all servers with archiving set up, and stop them with the block. The data stays in ``folder``."""
    with ExitStack() as stack:
        tell("starting PostgreSQL 18 and two S3 servers over TLS")
        with ThreadPoolExecutor(2) as pool:
            starting = pool.submit(_start_cluster, folder, stack, mode)
            stores = stack.enter_context(S3Pair.start(folder / "s3"))
            cluster = starting.result()
        stores.r2.make_bucket(BUCKETS.r2)
        stores.b2.make_bucket(BUCKETS.b2, versioning=True)
        env_file = folder / "demo.env"
        write_env_file(env_file, _settings(folder, cluster, stores, mode))
        settings = {"WAL_PIPELINE_ENV_FILE": str(env_file), **_SHIPPING}
        dagster = DagsterInstance(folder / "dagster", settings, schedules=mode is WATCH)
        stack.callback(dagster.stop)
        scene = Scene(folder, cluster, stores, dagster, env_file)
        with ThreadPoolExecutor(1) as pool:
            tell("starting Dagster: code server, daemon, web server")
            dagster_starts = pool.submit(dagster.start)
            set_up_archiving(scene, tell)
            dagster_starts.result()
        yield scene


def set_up_archiving(scene: Scene, tell: Tell) -> None:
    """Configure archiving as a person does: ``wal-pipeline setup --apply``, a restart if it asks, and once more."""
    tell(scene.typed("setup", "--apply"))
    report = _setup(scene)
    if report["restart_line"] is not None:
        tell("restarting PostgreSQL, as setup asks: " + str(report["restart_line"]))
        scene.cluster.restart()
        report = _setup(scene)
    proof = report["proof"]
    if not report["ok"] or proof is None:
        raise DemoError(f"'{scene.typed('setup', '--apply')}' did not prove that archiving works: {json.dumps(report)}")
    copies = ", ".join(f"{store} after {seconds:.1f} s" for store, seconds in proof["copies"].items())
    tell(f"proved: segment {proof['segment']} is on {copies}")


def _setup(scene: Scene) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(scene.command("setup", "--apply", "--json", expect=(0, 1)))
    return report


def _start_cluster(folder: Path, stack: ExitStack, mode: Mode) -> PostgresCluster:
    home = folder / "postgres"
    home.mkdir(mode=0o755)
    user = postgres_user()
    os.chown(home, user.uid, user.gid)
    settings = {**_SERVER_SETTINGS, "wal_keep_size": mode.wal_keep_size}
    cluster = PostgresCluster(postgres_18(), home, settings=settings, durable=True).initdb()
    stack.callback(_stop_cluster, cluster)
    return cluster.start()


def _stop_cluster(cluster: PostgresCluster) -> None:
    cluster.stop(mode="fast")
    shutil.rmtree(cluster.socket_folder)  # a server that was killed has left its socket


def store_settings(cluster: PostgresCluster, stores: S3Pair) -> dict[str, str]:
    """Return the settings that reach the archive."""
    return {
        **stores.store_environment(BUCKETS),
        "WAL_PIPELINE_CLUSTER": CLUSTER,
        "WAL_PIPELINE_CA_BUNDLE": str(stores.r2.ca_bundle),
        "PGBINDIR": str(cluster.install.bin_folder),
    }


def write_env_file(path: Path, settings: dict[str, str]) -> None:
    """Write a settings file that only PostgreSQL's user and root can read."""
    path.touch(mode=0o600)
    path.write_text("".join(f"{name}='{value}'\n" for name, value in settings.items()))
    user = postgres_user()
    os.chown(path, user.uid, user.gid)


def _settings(folder: Path, cluster: PostgresCluster, stores: S3Pair, mode: Mode) -> dict[str, str]:
    return {
        **store_settings(cluster, stores),
        **_SHIPPING,
        "WAL_PIPELINE_CONNINFO": cluster.conninfo,
        "WAL_PIPELINE_STATE_FOLDER": str(folder / "state"),
        "WAL_PIPELINE_ARCHIVE_TIMEOUT_SECONDS": str(_ARCHIVE_TIMEOUT_SECONDS),
        "WAL_PIPELINE_LINGER_SECONDS": "10",
        "WAL_PIPELINE_MAX_RUN_SECONDS": str(mode.max_run_seconds),
        "PGDATA": str(cluster.pgdata),
        "PG_WAL_ARCHIVE_DIR": str(cluster.folder / "spool"),
    }
