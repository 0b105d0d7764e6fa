"""One host with a real server, a spool and a folder as its only store, for commands as a person types them."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, owned_folder
from wal_pipeline.stores.local.store import LocalFolderStore


@dataclass(frozen=True, slots=True)
class OneHost:
    """A cluster that archives into ``folder/spool``. ``settings`` are the environment of our commands."""

    folder: Path
    cluster: PostgresCluster

    @property
    def spool(self) -> Path:
        """The spool."""
        return self.folder / "spool"

    @property
    def store(self) -> Path:
        """The store's folder."""
        return self.folder / "store"

    @property
    def settings(self) -> dict[str, str]:
        """The least settings with which all commands work."""
        return {
            "PG_WAL_ARCHIVE_DIR": str(self.spool),
            "PGDATA": str(self.cluster.pgdata),
            "PGBINDIR": str(self.cluster.install.program("postgres").parent),
            "WAL_PIPELINE_CONNINFO": self.cluster.conninfo,
            "WAL_PIPELINE_STORES": "local",
            "WAL_PIPELINE_LOCAL_STORE_FOLDER": str(self.store),
            "WAL_PIPELINE_STATE_FOLDER": str(self.folder / "state"),
            "WAL_PIPELINE_LINGER_SECONDS": "0",
        }

    def new_segment(self) -> str:
        """Write one segment of WAL and wait until it is in the spool."""
        name = self.cluster.switch_wal()
        self.cluster.process.wait_until((self.spool / name).exists)
        return name


@contextmanager
def one_host(install: PostgresInstall) -> Iterator[OneHost]:
    """Give such a host, with its server running; 1 MiB segments."""
    folder = owned_folder("host")
    for name in ("spool", "store"):
        (folder / name).mkdir()
        shutil.chown(folder / name, folder.owner(), folder.group())
    LocalFolderStore("local", folder / "store").prepare()
    settings = {
        "archive_mode": "on",
        "max_connections": "100",  # commands in the test's process leave their pools to the garbage collector
        "archive_timeout": "300",
        "archive_library": "basic_archive",
        "basic_archive.archive_directory": str(folder / "spool"),
    }
    cluster = PostgresCluster(install, settings=settings).initdb(wal_segment_size_mb=1)
    try:
        yield OneHost(folder, cluster.start())
    finally:
        cluster.remove()
        shutil.rmtree(folder, ignore_errors=True)
