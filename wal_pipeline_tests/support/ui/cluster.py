"""Runs a cluster that archives into two stores, and plays a history that a test knows."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testbed.dagster_instance import PROJECT, clean_environment
from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, owned_folder
from testbed.s3_pair import S3Buckets, S3Pair
from testbed.stored_wal import StoredWal

STORES = ("r2", "b2")
_COMMAND_SECONDS = 240
_QUICK = {
    "WAL_PIPELINE_LINGER_SECONDS": "2",
    "WAL_PIPELINE_SENSOR_INTERVAL_SECONDS": "1",
    "WAL_PIPELINE_SHIP_INTERVAL_SECONDS": "off",
    "WAL_PIPELINE_MAX_BACKOFF_SECONDS": "30",
    "WAL_PIPELINE_BASE_BACKUP_WAL_TIMEOUT_SECONDS": "30",
}


@dataclass(frozen=True, slots=True)
class WatchedCluster:
    """A running server named ``name``, its two stores, and the settings file that reaches all of them."""

    name: str
    server: PostgresCluster
    pair: S3Pair
    buckets: S3Buckets

    @property
    def folder(self) -> Path:
        """The folder with the server, the spool, the settings and the program's state."""
        return self.server.folder

    @property
    def env_file(self) -> Path:
        """The settings file."""
        return self.folder / f"{self.name}.env"

    @property
    def spool(self) -> Path:
        """The folder into which the server archives."""
        return self.server.folder / "spool"

    def commit(self, rows: int = 1) -> str:
        """Commit a row, ``rows`` times, and return the server's time after the last commit."""
        for _ in range(rows):
            self.server.psql("INSERT INTO orders DEFAULT VALUES")
        return self.server.value("SELECT clock_timestamp()")

    def write(self, segments: int, *, pause_seconds: float = 0) -> list[str]:
        """Commit and finish a segment, ``segments`` times, and return the segments' names."""
        found = []
        for _ in range(segments):
            self.commit()
            found.append(self.server.switch_wal())
            time.sleep(pause_seconds)
        self.server.process.wait_until(lambda: found[-1] in self.server.archived())
        return found

    def archived(self, names: list[str], *stores: str) -> bool:
        """Whether these stores, by default both, hold each of these files."""
        return all(set(names) <= self.stored(store).keys.keys() for store in stores or STORES)

    def wait_archived(self, names: list[str], *stores: str, timeout_seconds: float = 90) -> None:
        """Wait until these stores, by default both, hold each of these files."""
        self.server.process.wait_until(lambda: self.archived(names, *stores), timeout_seconds=timeout_seconds)

    def stored(self, store: str) -> StoredWal:
        """The WAL of a store now."""
        return StoredWal.list(getattr(self.pair, store), getattr(self.buckets, store))

    def delete(self, store: str, names: list[str]) -> None:
        """Delete copies behind the program's back."""
        stored = self.stored(store)
        for name in names:
            stored.server.client().delete_object(Bucket=stored.bucket, Key=stored.keys[name])

    def command(self, *words: str, expect: tuple[int, ...] = (0,)) -> str:
        """Run ``wal-pipeline`` with the settings file and return its output."""
        done = subprocess.run(
            self._command(words),
            capture_output=True,
            text=True,
            check=False,
            timeout=_COMMAND_SECONDS,
            env=clean_environment(),
            cwd=PROJECT,
        )
        assert done.returncode in expect, f"{words} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def terminal(self, *words: str, columns: int = 80) -> str:
        """Run ``wal-pipeline`` in a terminal of this width and return what it printed, colours included."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        environment = {**clean_environment(), "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
        with subprocess.Popen(
            self._command(words), stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=PROJECT
        ) as process:
            os.close(theirs)
            text = _read_all(ours)
            process.wait(_COMMAND_SECONDS)
        return text

    def _command(self, words: tuple[str, ...]) -> list[str]:
        settings = [] if "--env-file" in words else ["--env-file", str(self.env_file)]
        return [sys.executable, "-m", "wal_pipeline.cli", *settings, *words]


@contextmanager
def start_cluster(
    name: str, install: PostgresInstall, pair: S3Pair, *, more: Mapping[str, str] | None = None
) -> Iterator[WatchedCluster]:
    """Start a cluster of this name that archives into fresh buckets of these stores, with segments of 1 MiB.

    ``more``: settings that win over the scene's own.
    """
    home = owned_folder("ui")
    spool = home / "spool"
    settings = {
        "archive_mode": "on",
        "archive_timeout": "3600",
        "archive_library": "basic_archive",
        "basic_archive.archive_directory": str(spool),
        "timezone": "UTC",
    }
    server = PostgresCluster(install, home, settings=settings).initdb(wal_segment_size_mb=1)
    spool.mkdir()
    os.chown(spool, home.stat().st_uid, home.stat().st_gid)
    cluster = WatchedCluster(name, server, pair, pair.fresh_buckets(name))
    try:
        server.start()
        server.psql("CREATE TABLE orders (id bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())")
        _write_settings(cluster, more or {})
        yield cluster
    finally:
        server.remove()


def _write_settings(cluster: WatchedCluster, more: Mapping[str, str]) -> None:
    settings = {
        **cluster.pair.store_environment(cluster.buckets),
        **_QUICK,
        "WAL_PIPELINE_CA_BUNDLE": str(cluster.pair.r2.ca_bundle),
        "WAL_PIPELINE_CLUSTER": cluster.name,
        "WAL_PIPELINE_OWNERS": "team:dba",
        "WAL_PIPELINE_CONNINFO": cluster.server.conninfo,
        "WAL_PIPELINE_STATE_FOLDER": str(cluster.folder / "state"),
        "PG_WAL_ARCHIVE_DIR": str(cluster.spool),
        "PGDATA": str(cluster.server.pgdata),
        "PGBINDIR": str(cluster.server.install.bin_folder),
        **more,
    }
    cluster.env_file.touch(mode=0o600)
    cluster.env_file.write_text("".join(f"{name}='{value}'\n" for name, value in settings.items()))


def _read_all(descriptor: int) -> str:
    """Read a terminal until its program has closed it, which Linux tells as an error."""
    found = b""
    with os.fdopen(descriptor, "rb", buffering=0) as terminal:
        while True:
            try:
                read = terminal.read(65536)
            except OSError:
                break
            if not read:
                break
            found += read
    return found.decode(errors="replace").replace("\r\n", "\n")
