"""Starts what all schedules of a run share: two S3 servers, their proxies, and a cluster as template."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from chaos.load import LEDGER
from testbed.fault_proxy import FaultProxy
from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, owned_folder, postgres_18
from testbed.s3_pair import S3Buckets, S3Pair
from testbed.seaweed import SeaweedServer

_QUICK = {
    "WAL_PIPELINE_CODEC": "gzip",  # the checks read gzip with Python's own module
    "WAL_PIPELINE_CODEC_LEVEL": "1",
    "WAL_PIPELINE_MAX_BACKOFF_SECONDS": "0.5",
    "WAL_PIPELINE_SETTLE_SECONDS": "1",
    "WAL_PIPELINE_BASE_BACKUP_VOLUME_MIB": "8",  # a small cluster fills several volumes
    "WAL_PIPELINE_LINGER_SECONDS": "2",
    "WAL_PIPELINE_LOST_RUN_SECONDS": "4",
    "WAL_PIPELINE_SENSOR_INTERVAL_SECONDS": "1",
}


@dataclass(frozen=True, slots=True)
class Stage:
    """The servers, and a stopped cluster with pgbench's tables and the ledger. ``proxies`` are by store."""

    install: PostgresInstall
    pair: S3Pair
    buckets: S3Buckets
    proxies: Mapping[str, FaultProxy]
    template: Path

    def server(self, store: str) -> SeaweedServer:
        """The server of a store, to look at it past its proxy."""
        return self.proxies[store].upstream

    def bucket(self, store: str) -> str:
        """The bucket of a store."""
        return {"r2": self.buckets.r2, "b2": self.buckets.b2}[store]

    def store_environment(self, prefix: str) -> dict[str, str]:
        """The settings of both stores behind their proxies; ``prefix`` is the schedule's own place in them."""
        return {
            **self.pair.store_environment(self.buckets),
            "R2_ENDPOINT_URL": self.proxies["r2"].endpoint_url,
            "B2_ENDPOINT_URL": self.proxies["b2"].endpoint_url,
            "WAL_PIPELINE_CA_BUNDLE": str(self.pair.r2.ca_bundle),
            "WAL_PIPELINE_PREFIX": prefix,
            "PGBINDIR": str(self.install.bin_folder),
            **_QUICK,
        }

    def copy_template(self, pgdata: Path) -> None:
        """Copy the template's data directory."""
        subprocess.run(["cp", "-a", str(self.template), str(pgdata)], check=True)


@contextmanager
def start_stage(folder: Path) -> Iterator[Stage]:
    """Start all servers, and stop them with the block."""
    with ExitStack() as stack:
        pair = stack.enter_context(S3Pair.start(folder / "s3"))
        proxies = {server.name: stack.enter_context(FaultProxy(server)) for server in pair.servers}
        install = postgres_18()
        template = owned_folder("chaos-template")
        stack.callback(shutil.rmtree, template, ignore_errors=True)
        _make_template(install, template)
        yield Stage(install, pair, pair.fresh_buckets("chaos"), proxies, template / "pgdata")


def can_mount() -> bool:
    """Whether small file systems can be mounted here."""
    probe = owned_folder("mount")
    try:
        with small_disk(probe, 1):
            return os.path.ismount(probe)
    except (subprocess.CalledProcessError, OSError):
        return False
    finally:
        shutil.rmtree(probe, ignore_errors=True)


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """Mount a file system of this size on an existing empty folder. Raises: CalledProcessError."""
    owner = folder.stat()
    options = f"size={megabytes}m,mode=0755,uid={owner.st_uid},gid={owner.st_gid}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


def _make_template(install: PostgresInstall, folder: Path) -> None:
    cluster = PostgresCluster(install, folder).initdb(wal_segment_size_mb=1).start()
    try:
        cluster.pgbench_init()
        cluster.psql(LEDGER)
    finally:
        cluster.stop()
        shutil.rmtree(cluster.socket_folder, ignore_errors=True)
