"""Runs a PostgreSQL 15 cluster that archives both for us and for pgBackRest."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import ours, pgbackrest
from benchmarks.bench import Bench
from benchmarks.peer_cluster import require_15
from benchmarks.pgbackrest import PgBackRest
from testbed.postgres import PostgresCluster
from testbed.postgres_install import give_to_postgres, owned_folder, postgres_user
from testbed.s3_pair import S3Buckets


@dataclass(frozen=True, slots=True)
class Source:
    """The cluster. ``archive`` keeps a plain copy of its WAL, ``spool`` is ours, ``peer`` has its own buckets."""

    folder: Path
    cluster: PostgresCluster
    environment: Mapping[str, str]
    env_file: Path
    peer: PgBackRest | None

    @property
    def archive(self) -> Path:
        """The folder of every archived file, as ``cp`` copied it."""
        return self.folder / "archive"


@contextmanager
def source_cluster(bench: Bench, buckets: S3Buckets, peer_buckets: S3Buckets, *, push: bool) -> Iterator[Source]:
    """Start the cluster. ``push``: run pgBackRest's archive-push for each segment, which its backups need."""
    folder = owned_folder("bench")
    for name in ("archive", "peer", "spool"):
        (folder / name).mkdir()
    as_postgres = tuple(postgres_user().wrap([]))
    peer = None if pgbackrest.unavailable() else PgBackRest(folder / "peer", folder / "pgdata", as_postgres)
    cluster = PostgresCluster(require_15(), settings=_settings(folder, peer if push else None)).initdb()
    try:
        if peer is not None:
            pgbackrest.write_config(
                folder / "peer", cluster.pgdata, bench.stores, peer_buckets, codec="zstd", level=3,
                stanza=[f"pg1-port={cluster.port}", f"pg1-socket-path={cluster.socket_folder}"],
            )  # fmt: skip
            peer = PgBackRest(folder / "peer", cluster.pgdata, as_postgres)
        environment = _environment(bench, buckets, folder, cluster)
        env_file = folder / "ours.env"
        env_file.touch(mode=0o600)
        env_file.write_text("".join(f"{name}='{value}'\n" for name, value in environment.items()))
        give_to_postgres(folder)
        cluster.start()
        if peer is not None:
            peer.run("stanza-create")
        yield Source(folder, cluster, environment, env_file, peer)
    finally:
        cluster.remove()
        shutil.rmtree(folder, ignore_errors=True)


def _settings(folder: Path, peer: PgBackRest | None) -> dict[str, str]:
    command = f"cp %p {folder}/archive/.%f && mv {folder}/archive/.%f {folder}/archive/%f"
    if peer is not None:
        command += f" && ln {folder}/archive/%f {folder}/spool/%f && {' '.join(peer.words())} archive-push %p"
    return {
        "archive_mode": "on",
        "archive_command": command,
        "max_wal_size": "64GB",
        "shared_buffers": "256MB",
        "checkpoint_timeout": "1h",
    }


def _environment(bench: Bench, buckets: S3Buckets, folder: Path, cluster: PostgresCluster) -> dict[str, str]:
    more = {
        "WAL_PIPELINE_CONNINFO": cluster.conninfo,
        "PGDATA": str(cluster.pgdata),
        "PGBINDIR": str(cluster.install.bin_folder),
    }
    return ours.settings(bench.stores, buckets, folder, None, more=more)
