"""A cluster that archives, one local store, and the command line on them: for base backups that go wrong."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall
from wal_pipeline_tests.support.base_backup_scene import archiving_cluster, folder_store
from wal_pipeline_tests.support.warm_commands import run_warm

_FLAG = "blocked"


@dataclass(frozen=True)
class Night:
    """One cluster, its spool, its store ``local`` below ``folder``, and the settings as environment variables."""

    cluster: PostgresCluster
    folder: Path
    environment: dict[str, str]

    @property
    def spool(self) -> Path:
        """The folder into which PostgreSQL archives."""
        return self.cluster.folder / "archive"

    @property
    def objects(self) -> list[Path]:
        """The objects of base backups on the store."""
        root = self.folder / "local" / "objects"
        return sorted(path for path in root.rglob("*") if path.is_file() and "base" in path.relative_to(root).parts)

    @property
    def leases(self) -> list[Path]:
        """The leases on the store."""
        return [path for path in (self.folder / "local" / "objects").rglob("*/lease/*") if path.is_file()]

    def run(self, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run one command to its end; ``settings`` are environment variables."""
        return run_warm(*words, env={**self.environment, **settings}, timeout_seconds=200)

    def start(self, *words: str, **settings: str) -> subprocess.Popen[str]:
        """Start a command whose output goes to ``<folder>/said``."""
        with (self.folder / "said").open("w") as said:
            return subprocess.Popen(
                _command(*words), env={**self.environment, **settings}, stdout=said, stderr=said, text=True
            )

    @property
    def said(self) -> str:
        """The output of the started command so far."""
        return (self.folder / "said").read_text()

    def block_archiving(self) -> None:
        """Let PostgreSQL's archiver fail from now on."""
        (self.cluster.folder / _FLAG).touch()
        self.cluster.switch_wal()

    def unblock_archiving(self) -> None:
        """Let it work again, at once: after failures it tries again within a minute, or when a segment is finished."""
        (self.cluster.folder / _FLAG).unlink()
        self.cluster.switch_wal()


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "wal_pipeline.cli", *words]


@contextmanager
def night(install: PostgresInstall, folder: Path, **settings: str) -> Iterator[Night]:
    """Give a running cluster of a few MiB that archives, and a store that is prepared."""
    folder_store("local", folder)
    command = f"test ! -e ../{_FLAG} && cp %p ../archive/%f"
    with archiving_cluster(install, wal_segment_size_mb=1, archive_command=command, **settings) as cluster:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PG")},
            "WAL_PIPELINE_STORES": "local",
            "WAL_PIPELINE_LOCAL_STORE_FOLDER": str(folder / "local"),
            "WAL_PIPELINE_CONNINFO": cluster.conninfo,
            "WAL_PIPELINE_STATE_DIR": str(folder / "state"),
            "WAL_PIPELINE_SETTLE_SECONDS": "0",
            "WAL_PIPELINE_BASE_BACKUP_WAL_TIMEOUT_SECONDS": "60",
            "WAL_PIPELINE_BASE_BACKUP_VOLUME_MIB": "4",
            "WAL_PIPELINE_BACKUP_METHOD": "remote",  # these nights are about pg_basebackup and its words
            "PG_WAL_ARCHIVE_DIR": str(cluster.folder / "archive"),
            "PGDATA": str(cluster.pgdata),
            "PGBINDIR": str(cluster.install.bin_folder),
        }
        yield Night(cluster, folder, environment)


def until(condition: Callable[[], bool], timeout_seconds: float = 60) -> None:
    """Wait until a condition is true."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
