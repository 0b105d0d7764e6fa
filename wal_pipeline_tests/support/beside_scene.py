"""Keeps an original cluster with its archive on a local store, and restores copies and replacements beside it."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from testbed.ports import free_port
from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, owned_folder, postgres_user
from wal_pipeline.stores.local.store import LocalFolderStore
from wal_pipeline_tests.support.warm_commands import run_warm


@dataclass(slots=True)
class Beside:
    """An original that archives into a spool, its local store, and the program's settings as its user has them."""

    install: PostgresInstall
    cluster: PostgresCluster
    folder: Path
    settings: dict[str, str] = field(default_factory=dict)

    def run(self, *words: str, timeout_seconds: float = 120, **settings: str) -> "subprocess.CompletedProcess[str]":
        """Run the program as PostgreSQL's user. Raises: subprocess.TimeoutExpired where it does not return."""
        environment = {"PATH": os.environ["PATH"], **self.settings, **settings}
        return run_warm(*words, env=environment, timeout_seconds=timeout_seconds, as_postgres=True)

    def must(self, *words: str) -> str:
        """Run the program, which must succeed, and return its output."""
        done = self.run(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def back_up(self) -> None:
        """Take a base backup."""
        self.must("backup")

    def archive(self) -> None:
        """Finish the segment, and archive all."""
        last = self.cluster.switch_wal()
        self.cluster.process.wait_until((self.folder / "spool" / last).exists)
        self.must("archive")

    def wait_archived(self, other: "Started", *, timeout_seconds: float = 60) -> None:
        """Wait until another server has archived all its finished WAL. Raises: TimeoutError."""
        done = "SELECT last_archived_wal >= pg_walfile_name(pg_current_wal_lsn() - 1) FROM pg_stat_archiver"
        deadline = time.monotonic() + timeout_seconds
        while other.value(done) != "t":
            if time.monotonic() > deadline:
                raise TimeoutError(other.value("SELECT pg_stat_archiver FROM pg_stat_archiver"))
            time.sleep(0.05)

    def write_config(self, text: str) -> None:
        """Add lines to the original's postgresql.conf."""
        with (self.cluster.pgdata / "postgresql.conf").open("a") as file:
            file.write(text)

    def restore(
        self, name: str, *words: str, timeout_seconds: float = 120, **settings: str
    ) -> "subprocess.CompletedProcess[str]":
        """Restore into a folder of this name, beside the original."""
        return self.run(
            *("restore", "--pgdata", str(self.folder / name), *words), timeout_seconds=timeout_seconds, **settings
        )

    @contextmanager
    def started(self, name: str, *words: str, **settings: str) -> Iterator["Started"]:
        """Restore and start a server of this name at a port of its own, and stop it at the end."""
        other = Started(self, self.folder / name, free_port())
        where = (f"--set=port={other.port}", "--set=listen_addresses=127.0.0.1")
        try:
            other.done = self.restore(name, "--start", *where, *words, **settings)
            yield other
        finally:
            other.stop()


@dataclass(slots=True)
class Started:
    """A server that a restore started, and what the restore said."""

    scene: Beside
    pgdata: Path
    port: int
    done: "subprocess.CompletedProcess[str]" = field(init=False)

    def value(self, sql: str) -> str:
        """Return a query's first value."""
        options = ["--no-psqlrc", "-At", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", "postgres"]
        return self.scene.cluster.run("psql", *options, "-c", sql).strip()

    def show(self, name: str) -> str:
        """Return a setting."""
        return self.value(f"SHOW {name}")

    def restart(self, **settings: str) -> None:
        """Start it again as a person does, with nothing of the restore's on its command line."""
        self.stop()
        options = " ".join(f"-c {name}={value}" for name, value in {"port": str(self.port), **settings}.items())
        log = self.scene.folder / f"{self.pgdata.name}-again.log"
        self.scene.cluster.run(
            *("pg_ctl", "start", "--wait", "-D", str(self.pgdata), "-o", f"{options} -c listen_addresses=127.0.0.1"),
            *("-l", str(log)),
        )

    def stop(self) -> None:
        """Stop it. No error where it does not run."""
        if (self.pgdata / "postmaster.pid").exists():
            self.scene.cluster.run("pg_ctl", "stop", "--mode=immediate", "-D", str(self.pgdata))


@contextmanager
def beside(
    install: PostgresInstall, *, config: str = "", command_line: Mapping[str, str] | None = None
) -> Iterator[Beside]:
    """Make and start an original. ``config`` is added to its postgresql.conf."""
    folder = owned_folder("beside")
    user = postgres_user()
    for name in ("spool", "store", "state"):
        (folder / name).mkdir()
    LocalFolderStore("local", folder / "store").prepare()
    for path in folder.rglob("*"):
        os.chown(path, user.uid, user.gid)
    cluster = PostgresCluster(install, folder, settings=command_line).initdb(wal_segment_size_mb=1)
    scene = Beside(install, cluster, folder)
    spool = folder / "spool"
    scene.write_config(
        f"archive_mode = on\narchive_command = 'cp %p {spool}/.%f && mv {spool}/.%f {spool}/%f'\n"
        f"max_connections = 30\nshared_buffers = '32MB'\nunix_socket_directories = '{cluster.socket_folder}'\n" + config
    )
    scene.settings = {
        "PGDATA": str(cluster.pgdata),
        "PG_WAL_ARCHIVE_DIR": str(spool),
        "PGBINDIR": str(install.bin_folder),
        "WAL_PIPELINE_CONNINFO": cluster.conninfo,
        "WAL_PIPELINE_STORES": "local",
        "WAL_PIPELINE_LOCAL_STORE_FOLDER": str(folder / "store"),
        "WAL_PIPELINE_STATE_DIR": str(folder / "state"),
        "WAL_PIPELINE_DRILL_FOLDER": str(folder / "drill"),
        "WAL_PIPELINE_DRILL_AMCHECK": "no",
        "WAL_PIPELINE_SETTLE_SECONDS": "0",
        "WAL_PIPELINE_CODEC": "zstd",
    }
    try:
        cluster.start()
        cluster.psql("CREATE TABLE t (n text)")
        yield scene
    finally:
        cluster.remove()
        shutil.rmtree(folder, ignore_errors=True)
