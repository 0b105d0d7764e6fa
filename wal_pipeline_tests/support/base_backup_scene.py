"""Gives the base backup tests stores over real S3 servers, clusters that archive, and standard tools."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, owned_folder
from testbed.s3_pair import S3Buckets, S3Pair
from wal_pipeline.archive.format.base_backup.manifest import BaseBackupManifest
from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.stream_encoder import StreamEncoder
from wal_pipeline.commands.backup.options import BackupOptions
from wal_pipeline.commands.backup.part_uploader import UploadLimits
from wal_pipeline.commands.backup.take import BaseBackupResult, take_base_backup
from wal_pipeline.postgres.backup_server import BackupServer
from wal_pipeline.stores.base import Store
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.stores.local.store import LocalFolderStore
from wal_pipeline.stores.s3.client import Connection
from wal_pipeline.stores.s3.profiles import PROFILES
from wal_pipeline.stores.s3.store import S3Store, open_s3_store

MIB = 1 << 20
SMALL_PARTS = UploadLimits(part_size_bytes=5 * MIB, tries=2, retry_seconds=0.05)
TOOLS = {Codec.GZIP: "gunzip -c", Codec.ZSTD: "zstd -dc", Codec.LZ4: "lz4 -dc", Codec.NONE: "cat"}


def now() -> datetime:
    """The present moment."""
    return datetime.now(UTC)


def s3_store(pair: S3Pair, buckets: S3Buckets, name: str, *, endpoint_url: str | None = None) -> S3Store:
    """The store ``r2`` or ``b2``, perhaps through a proxy."""
    server = pair.r2 if name == "r2" else pair.b2
    connection = Connection(
        store=name,
        bucket=buckets.r2 if name == "r2" else buckets.b2,
        access_key_id=server.access_key_id,
        secret_access_key=server.secret_access_key,
        endpoint_url=endpoint_url or server.endpoint_url,
        region="auto" if name == "r2" else "us-east-005",
        ca_bundle=server.ca_bundle,
        concurrency=4,
        max_attempts=2,
    )
    return open_s3_store(PROFILES[name], connection)


def folder_store(name: str, folder: Path) -> LocalFolderStore:
    """A local folder as a store."""
    (folder / name).mkdir(parents=True)
    store = LocalFolderStore(name, folder / name)
    store.prepare()
    return store


@contextmanager
def archiving_cluster(
    install: PostgresInstall, *, wal_segment_size_mb: int = 16, **settings: str
) -> Iterator[PostgresCluster]:
    """A running cluster that archives into ``<its folder>/archive``."""
    folder = owned_folder("cluster")
    (archive := folder / "archive").mkdir()
    shutil.chown(archive, folder.owner())
    archiving = {"archive_mode": "on", "archive_command": f"cp %p {archive}/%f", **settings}
    cluster = PostgresCluster(install, folder, settings=archiving).initdb(wal_segment_size_mb=wal_segment_size_mb)
    try:
        yield cluster.start()
    finally:
        cluster.remove()


class Scene:
    """One cluster, and the stores onto which its base backups are taken."""

    def __init__(self, cluster: PostgresCluster, stores: Sequence[Store], scratch_folder: Path) -> None:
        self.cluster = cluster
        self.stores = stores
        self.layout = Layout("", "main", int(cluster.system_identifier))
        self.scratch_folder = scratch_folder

    @property
    def places(self) -> list[ClusterStore]:
        """The cluster's part of each store."""
        return [self.place(store) for store in self.stores]

    def place(self, store: Store) -> ClusterStore:
        """Return the cluster's part of a store."""
        return ClusterStore(store, self.layout)

    def take(self, encoder: StreamEncoder | None = None, **values: Any) -> BaseBackupResult:
        """Take a base backup. ``values`` are options, or arguments of ``take_base_backup``."""
        arguments = {name: values.pop(name) for name in ("parent", "method", "on_progress", "clock") if name in values}
        defaults = {"limits": SMALL_PARTS, "volume_size_bytes": 24 * MIB}
        conninfo = values.pop("conninfo", self.cluster.conninfo)
        return take_base_backup(
            BackupServer(conninfo),
            self.cluster.install.program("pg_basebackup"),
            self.stores,
            self.layout,
            encoder=encoder or StreamEncoder(Codec.ZSTD),
            options=BackupOptions(self.scratch_folder, **{**defaults, **values}),
            **{"clock": now, **arguments},
        )

    def keys(self, store: Store) -> list[str]:
        """All keys of base backups on a store."""
        return [item.key for item in store.list(self.layout.base_root)]

    def unpack(self, store: Store, manifest: BaseBackupManifest, folder: Path, tar: str = "base") -> None:
        """Fetch a tar's objects with plain reads, and open them with standard tools only."""
        with tempfile.TemporaryDirectory() as fetched:
            for item in manifest.tar(tar).objects:
                Path(fetched, item.name).write_bytes(read(store, self.layout.base_key(manifest.backup_id, item.name)))
            folder.mkdir(parents=True, exist_ok=True)
            command = f"cat {fetched}/{tar}.*.tar* | {TOOLS[manifest.codec]} | tar -x -C {folder}"
            subprocess.run(["bash", "-o", "pipefail", "-c", command], check=True, timeout=120)


def read(store: Store, key: str) -> bytes:
    """All bytes of an object."""
    with store.open(key) as stream:
        return b"".join(iter(lambda: stream.read(MIB), b""))


def verify_backup(install: PostgresInstall, folder: Path) -> str:
    """Run pg_verifybackup without WAL, and return its output."""
    program = str(install.program("pg_verifybackup"))
    done = subprocess.run(
        [program, "--no-parse-wal", str(folder)], capture_output=True, text=True, check=False, timeout=120
    )
    return (done.stdout + done.stderr).strip()
