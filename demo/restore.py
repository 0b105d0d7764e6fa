"""The other half of the promise: a base backup, a dropped table, and the whole cluster as it was just before."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from demo.folder import DemoError
from demo.scene import Scene, Tell, write_env_file
from testbed.dagster_instance import PROJECT, clean_environment
from testbed.ports import LOOPBACK
from testbed.postgres import PostgresCluster
from testbed.postgres_install import postgres_user
from wal_pipeline.host.own_command import own_command

ROWS: Final = 10_000
_MAKE: Final = f"CREATE TABLE orders AS SELECT i AS id, md5(i::text) AS label FROM generate_series(1, {ROWS}) AS i"  # noqa: S608
_CONTENT: Final = "SELECT count(*) || ' ' || md5(string_agg(label, ',' ORDER BY id)) FROM orders"
_DROP: Final = "DROP TABLE orders"
_RESTORE_SECONDS: Final = 600


@dataclass(frozen=True, slots=True)
class Accident:
    """A table was dropped by the transaction ``xid``: the moment just before, and what the table held.

    ``seen_at``: a moment at which nothing had happened yet, which is all that a person knows.
    """

    seen_at: str
    before: str
    content: str
    xid: int


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """``restored_to``: the last commit that was replayed. ``rto_seconds``: from the command to an open server."""

    restored_to: str
    rto_seconds: float
    table_back: bool


def have_an_accident(scene: Scene, tell: Tell) -> Accident:
    """Take a base backup, make a table, note the moment, and drop the table."""
    tell(scene.typed("backup"))
    backup = json.loads(scene.command("backup", "--json"))
    tell(f"base backup {backup['backup_id']}: {backup['size_bytes'] / 2**20:.0f} MiB, on both stores")
    seen_at = scene.cluster.value("SELECT clock_timestamp()")
    scene.cluster.psql(_MAKE)
    content = content_of(scene.cluster)
    before = scene.cluster.value("SELECT clock_timestamp()")
    xid = scene.cluster.value(f"BEGIN; {_DROP}; SELECT pg_current_xact_id(); COMMIT")
    tell(f"{_DROP}, a moment after {before}")
    return Accident(seen_at, before, content, int(xid))


def content_of(cluster: PostgresCluster) -> str:
    """Return the number of the table's rows, and one digest of all of them."""
    return cluster.value(_CONTENT)


def undo(scene: Scene, accident: Accident, tell: Tell) -> RestoreReport:
    """Restore to just before, on a machine that has nothing but the stores' credentials, and look for the table."""
    with fresh_machine(scene, "restored") as (cluster, env_file):
        tell(f"{own_command(env_file)} restore --pgdata {cluster.pgdata} --to-time '{accident.before}' --start")
        begun = time.monotonic()
        answer = run_restore(cluster, env_file, f"--to-time={accident.before}")
        rto_seconds = time.monotonic() - begun
        table_back = content_of(cluster) == accident.content
    restored_to = str(answer["recovery"]["last_commit_at"])
    tell(f"restored to {restored_to} in {rto_seconds:.1f} s; the table is {'back' if table_back else 'NOT back'}")
    return RestoreReport(restored_to, round(rto_seconds, 3), table_back)


@contextmanager
def fresh_machine(scene: Scene, name: str) -> Iterator[tuple[PostgresCluster, Path]]:
    """Make a folder for a machine that knows the stores and nothing else, and stop its server with the block."""
    home = scene.folder / name
    home.mkdir(mode=0o755)
    user = postgres_user()
    os.chown(home, user.uid, user.gid)
    cluster = PostgresCluster(scene.cluster.install, home)
    env_file = home / "restore.env"
    write_env_file(env_file, {**scene.store_settings, "WAL_PIPELINE_STATE_FOLDER": str(home / "state")})
    try:
        yield cluster, env_file
    finally:
        if (cluster.pgdata / "postmaster.pid").exists():
            cluster.run("pg_ctl", "stop", "--mode=fast", "--pgdata", str(cluster.pgdata))
        cluster.socket_folder.rmdir()


def run_restore(cluster: PostgresCluster, env_file: Path, *target: str) -> dict[str, Any]:
    """Type the command as PostgreSQL's user does; without a target it is the end of the archive. Raises: DemoError."""
    where = {
        "port": str(cluster.port),
        "unix_socket_directories": str(cluster.socket_folder),
        "listen_addresses": LOOPBACK,
    }
    words = ["restore", "--pgdata", str(cluster.pgdata), *target, "--start", "--no-archiving", "--json"]
    words += [f"--set={name}={value}" for name, value in where.items()]
    finished = subprocess.run(
        postgres_user().wrap([sys.executable, "-m", "wal_pipeline.cli", "--env-file", str(env_file), *words]),
        capture_output=True,
        text=True,
        check=False,
        timeout=_RESTORE_SECONDS,
        env=clean_environment(),
        cwd=PROJECT,
    )
    if finished.returncode != 0:
        typed = f"{own_command(env_file)} restore"
        raise DemoError(f"'{typed}' ended with {finished.returncode}:\n{finished.stderr}".rstrip())
    answer: dict[str, Any] = json.loads(finished.stdout)
    return answer
