"""Loses a cluster, and keeps its archive on two S3 servers, a base backup, and its commits."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from testbed.postgres import PostgresCluster, start_restored
from testbed.postgres_install import PostgresInstall, owned_folder, postgres_user
from testbed.s3_pair import S3Buckets, S3Pair
from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.encoder import Encoder
from wal_pipeline.commands.copies.put import store_copy
from wal_pipeline.settings import load_settings
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.names import parse_file_name
from wal_pipeline.wiring.pipeline import Pipeline
from wal_pipeline_tests.support.restore_archive import describe_file


@dataclass(frozen=True, slots=True)
class Scene:
    """A base backup folder, the names of the segments archived after it, and the settings that reach the archive."""

    install: PostgresInstall
    pair: S3Pair
    buckets: S3Buckets
    base: Path
    segments: tuple[str, ...]
    rows: int
    environment: Mapping[str, str]

    @property
    def pipeline(self) -> Pipeline:
        """The program's own pipeline to both stores."""
        return Pipeline(load_settings(dict(self.environment)))

    def fresh_folder(self) -> Path:
        """Return a new data directory with the base backup, ready to recover."""
        pgdata = owned_folder("restored") / "pgdata"
        shutil.copytree(self.base, pgdata)
        (pgdata / "recovery.signal").touch()
        pgdata.chmod(0o700)
        return pgdata

    def restore_command(self, pgdata: Path, *options: str) -> str:
        """Return the line that the program generates."""
        printed = run_archive_get(
            self.environment, "--pgdata", str(pgdata), *options, "--print-restore-command", as_postgres=False
        )
        assert printed.returncode == 0, printed.stderr
        return printed.stdout.strip()

    def start(self, pgdata: Path, restore_command: str, *, wait: bool = False, **settings: str) -> PostgresCluster:
        """Start a server in a restored folder, with the stores' settings in its environment."""
        return start_restored(
            self.install,
            pgdata,
            settings={"restore_command": restore_command, **settings},
            env=self.environment,
            wait=wait,
        )


def make_scene(install: PostgresInstall, pair: S3Pair) -> Scene:
    """Make a cluster with 1 MiB segments, take a base backup, commit rows, archive everything, and lose it."""
    folder = owned_folder("scene")
    spool = folder / "spool"
    archive = {"archive_mode": "on", "archive_command": f"mkdir -p {spool} && cp %p {spool}/%f"}
    cluster = PostgresCluster(install, folder, settings=archive).initdb(wal_segment_size_mb=1).start()
    buckets = pair.fresh_buckets()
    environment = {**pair.store_environment(buckets), "WAL_PIPELINE_CA_BUNDLE": str(pair.r2.ca_bundle)}
    cluster.psql("CREATE TABLE t (n int, filler text)")
    base = folder / "base"
    cluster.run("pg_basebackup", "--pgdata", str(base), "--checkpoint=fast", "--wal-method=none", "--no-sync")
    for batch in range(5):
        cluster.psql(f"INSERT INTO t SELECT {batch}, md5(i::text) || repeat('x', 200) FROM generate_series(1, 2000) i")  # noqa: S608
    last = cluster.switch_wal()
    cluster.process.wait_until((spool / last).exists)
    cluster.stop()
    archive_spool(Pipeline(load_settings(environment)), spool, int(cluster.system_identifier))
    segments = tuple(sorted(path.name for path in spool.iterdir() if len(path.name) == 24))
    return Scene(install, pair, buckets, base, segments, 5 * 2000, environment)


def archive_spool(pipeline: Pipeline, spool: Path, system_identifier: int, codec: Codec = Codec.ZSTD) -> None:
    """Store every file of a spool on every store."""
    encoder = Encoder(codec)
    for path in sorted(spool.iterdir()):
        if parse_file_name(path.name) is not None:
            data = path.read_bytes()
            encoded = encoder.encode(data)
            for store in pipeline.stores.values():
                file = describe_file(path.name, data, system_identifier)
                store_copy(ClusterStore(store, pipeline.layout(system_identifier)), file, encoded, read_back=False)


def run_archive_get(
    environment: Mapping[str, str], *arguments: str, cwd: Path = Path("/"), as_postgres: bool = True
) -> "subprocess.CompletedProcess[str]":
    """Run ``archive-get`` as PostgreSQL does: as its user and in PGDATA, with the stores' settings."""
    command = [sys.executable, "-P", "-m", "wal_pipeline.cli.archive_get", *arguments]
    return subprocess.run(
        postgres_user().wrap(command) if as_postgres else command,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=cwd,
        env={"PATH": os.environ["PATH"], **environment},
    )
