"""Measures base backup and restore of a cluster against pgBackRest with two processes and zstd 3."""

import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarks import ours, pgbackrest
from benchmarks.bench import Bench
from benchmarks.figures import Figure, alternately, missing, ratio, timed
from benchmarks.pgbackrest import PgBackRest
from benchmarks.source_cluster import Source, source_cluster
from testbed.postgres_install import owned_folder

KEYS = ("base_backup_vs_pgbackrest", "restore_vs_pgbackrest")
_MB_A_SCALE = 15


def measure(bench: Bench) -> list[Figure]:
    """Return backup and restore, each against pgBackRest's on the same cluster and stores."""
    if why_not := pgbackrest.unavailable():
        return [missing(key, key, why_not) for key in KEYS]
    megabytes, rounds = bench.size(5000, 300), bench.repeats
    with (
        bench.buckets() as buckets,
        bench.buckets() as peer_buckets,
        source_cluster(bench, buckets, peer_buckets, push=True) as source,
    ):
        bench.say(f"base_backup: making a cluster of {megabytes} MB")
        source.cluster.pgbench_init(scale=megabytes // _MB_A_SCALE)
        assert source.peer is not None
        ours.command(source.environment, "archive", "--json", as_postgres=True)
        backups = alternately(_backups(source, source.peer), rounds, bench.say)
        restores = alternately(_restores(source, source.peer), rounds, bench.say)
    note = f"{megabytes} MB, zstd 3, {rounds} rounds"
    return [
        Figure("base_backup_vs_pgbackrest", "base backup onto two stores: pgBackRest, process-max 2",
               ratio(backups, "pgbackrest both", "ours both"), "x", ">= 1.0", note, backups),
        Figure("base_backup_one_store_vs_pgbackrest", "base backup onto one store: pgBackRest, process-max 2",
               ratio(backups, "pgbackrest r2", "ours r2"), "x", "", note, backups),
        Figure("restore_vs_pgbackrest", "restore from one store, ours with pg_verifybackup: pgBackRest",
               ratio(restores, "pgbackrest", "ours"), "x", ">= 1.0", note, restores),
        Figure("restore_unverified_vs_pgbackrest", "restore from one store, ours with --no-verify: pgBackRest",
               ratio(restores, "pgbackrest", "ours --no-verify"), "x", "", note, restores),
    ]  # fmt: skip


def _backups(source: Source, peer: PgBackRest) -> dict[str, Callable[[], float]]:
    one = {**source.environment, "WAL_PIPELINE_STORES": "r2"}

    def theirs(*repositories: int) -> float:
        return timed(lambda: [peer.run("backup", f"--repo={number}", "--type=full") for number in repositories])

    return {
        "ours both": lambda: ours.command(source.environment, "backup", "--json", as_postgres=True).seconds,
        "pgbackrest both": lambda: theirs(1, 2),
        "ours r2": lambda: ours.command(one, "backup", "--json", as_postgres=True).seconds,
        "pgbackrest r2": lambda: theirs(1),
    }


def _restores(source: Source, peer: PgBackRest) -> dict[str, Callable[[], float]]:
    def our(*options: str) -> float:
        def restore(pgdata: Path) -> None:
            words = [f"--pgdata={pgdata}", "--store=r2", "--no-archiving", *options]
            ours.command(source.environment, "restore", "--json", *words, as_postgres=True)

        return _into_new_folder(restore)

    def theirs(pgdata: Path) -> None:
        PgBackRest(peer.folder, source.folder, peer.wrap).run("restore", "--repo=1", f"--pg1-path={pgdata}")

    return {
        "ours": our,
        "ours --no-verify": lambda: our("--no-verify"),
        "pgbackrest": lambda: _into_new_folder(theirs),
    }


def _into_new_folder(restore: Callable[[Path], None]) -> float:
    folder = owned_folder("bench-restore")
    try:
        pgdata = folder / "pgdata"
        pgdata.mkdir(mode=0o700)
        shutil.chown(pgdata, folder.stat().st_uid, folder.stat().st_gid)
        return timed(lambda: restore(pgdata))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
