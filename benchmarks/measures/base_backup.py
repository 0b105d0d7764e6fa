"""Measures base backup and restore of a cluster against pgBackRest with two processes and zstd 3."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks import ours, pgbackrest
from benchmarks.bench import Bench
from benchmarks.figures import Figure, alternately, missing, ratio, timed
from benchmarks.floor import write_as_much
from benchmarks.pgbackrest import PgBackRest
from benchmarks.source_cluster import Source, source_cluster
from benchmarks.volume_compression import volume_compression
from testbed.postgres_install import owned_folder

KEYS: Final = (
    "base_backup_vs_pgbackrest",
    "base_backup_one_store_vs_pgbackrest",
    "restore_vs_pgbackrest",
    "delta_restore_vs_pgbackrest",
    "incremental_vs_full_bytes",
    "peak_rss_mib_backup",
)
_MB_A_SCALE: Final = 15
_PARTITIONS: Final = 10
_ONE_PARTITION: Final = "UPDATE pgbench_accounts_1 SET abalance = abalance + 1 WHERE aid % 600 = 1"
_WORKERS: Final = (1, 2)
_LOCAL: Final = {"WAL_PIPELINE_BACKUP_METHOD": "local"}
_REMOTE: Final = {"WAL_PIPELINE_BACKUP_METHOD": "remote"}


@dataclass(slots=True)
class _Ours:
    """Our commands on one cluster, and what each base backup took and brought."""

    source: Source
    peak_rss_mib: list[float] = field(default_factory=list)
    stored_bytes: dict[str, list[float]] = field(default_factory=dict)

    def back_up(self, name: str, *words: str, **settings: str) -> float:
        """Take a base backup; return the seconds of the command."""
        run = ours.command({**self.source.environment, **settings}, "backup", "--json", *words, as_postgres=True)
        self.peak_rss_mib.append(run.peak_rss_mib)
        self.stored_bytes.setdefault(name, []).append(float(run.answer["stored_size_bytes"]))
        return run.seconds

    def restore(self, pgdata: Path, *words: str) -> None:
        """Restore from one store into a folder."""
        options = [f"--pgdata={pgdata}", "--store=r2", "--no-archiving", *words]
        ours.command(self.source.environment, "restore", "--json", *options, as_postgres=True)


def measure(bench: Bench) -> list[Figure]:
    """Return backup and restore, each against pgBackRest's on the same cluster and stores."""
    if why_not := pgbackrest.unavailable():
        return [missing(key, key, why_not) for key in KEYS]
    megabytes = bench.size(5000, 300)
    with (
        bench.buckets() as buckets,
        bench.buckets() as peer_buckets,
        source_cluster(bench, buckets, peer_buckets, push=True) as source,
    ):
        bench.say(f"base_backup: making a cluster of {megabytes} MB")
        source.cluster.run(
            "pgbench", "--initialize", "--quiet", f"--scale={megabytes // _MB_A_SCALE}", f"--partitions={_PARTITIONS}"
        )
        assert source.peer is not None
        ours.command(source.environment, "archive", "--json", as_postgres=True)
        return _measured(bench, _Ours(source), source.peer, megabytes)


def _measured(bench: Bench, our: _Ours, peer: PgBackRest, megabytes: int) -> list[Figure]:
    rounds = bench.repeats
    backups = alternately(_backups(our, peer), rounds, bench.say)
    rss = max(our.peak_rss_mib)
    our.back_up("restored", **_LOCAL)  # the newest one is restored: that of the default method, and not of 'remote'
    restores = alternately(_restores(our, peer), rounds, bench.say)
    deltas = alternately(_deltas(our, peer), rounds, bench.say)
    for _ in range(rounds):
        our.source.cluster.psql(f"{_ONE_PARTITION}; CHECKPOINT")
        our.back_up("incremental", "--incremental", **_LOCAL)
    note = f"{megabytes} MB, zstd 3, {rounds} rounds"
    workers = ", ".join(f"{median(backups[f'{count} workers']):.1f} s with {count}" for count in _WORKERS)
    share = median(our.stored_bytes["incremental"]) / median(our.stored_bytes["both"])
    return [
        Figure("base_backup_vs_pgbackrest", "base backup onto two stores: pgBackRest, process-max 2",
               ratio(backups, "pgbackrest both", "ours both"), "x", ">= 1.5", note, backups),
        Figure("base_backup_one_store_vs_pgbackrest", "base backup onto one store: pgBackRest, process-max 2",
               ratio(backups, "pgbackrest r2", "ours r2"), "x", ">= 1.1", note, backups),
        Figure("base_backup_workers", "base backup onto one store: one worker's seconds by those of two",
               ratio(backups, "1 workers", "2 workers"), "x", "", f"{note}; {workers}"),
        Figure("base_backup_remote_vs_pgbackrest", "base backup by pg_basebackup onto one store: pgBackRest",
               ratio(backups, "pgbackrest r2", "remote r2"), "x", "", note),
        Figure("restore_vs_pgbackrest", "restore from one store, ours with every file verified: pgBackRest",
               ratio(restores, "pgbackrest", "ours"), "x", ">= 1.3", note, restores),
        Figure("restore_unverified_vs_pgbackrest", "restore from one store, ours with --no-verify: pgBackRest",
               ratio(restores, "pgbackrest", "ours --no-verify"), "x", "", note, restores),
        Figure("restore_by_floor", "seconds of a restore by those of writing and flushing as many bytes in two threads",
               ratio(restores, "ours", "floor"), "x", "", note, restores),
        Figure("delta_restore_vs_pgbackrest", "restore --delta with 1 % of the pages changed: pgBackRest's --delta",
               ratio(deltas, "pgbackrest", "ours"), "x", ">= 1", f"{note}, 1 % of the pages of each table", deltas),
        Figure("incremental_vs_full_bytes", "incremental base backup by file: stored bytes by those of a full one",
               share, "x", "", f"{note}; one of {_PARTITIONS} partitions was written to"),
        Figure("peak_rss_mib_backup", "peak memory of a base backup", rss, "MiB", "<= 512", note),
        volume_compression(our.source.cluster.pgdata),
    ]  # fmt: skip


def _backups(our: _Ours, peer: PgBackRest) -> dict[str, Callable[[], float]]:
    def theirs(*repositories: int) -> float:
        return timed(lambda: [peer.run("backup", f"--repo={number}", "--type=full") for number in repositories])

    def local(name: str, **settings: str) -> Callable[[], float]:
        return lambda: our.back_up(name, **{**_LOCAL, **settings})

    one = {"WAL_PIPELINE_STORES": "r2"}
    more: dict[str, Callable[[], float]] = {
        f"{count} workers": local("workers", **one, WAL_PIPELINE_BASE_BACKUP_WORKERS=str(count)) for count in _WORKERS
    }
    return {
        "ours both": local("both"),
        "pgbackrest both": lambda: theirs(1, 2),
        "ours r2": local("r2", **one),
        "pgbackrest r2": lambda: theirs(1),
        **more,
        "remote r2": lambda: our.back_up("remote", **{**_REMOTE, **one}),
    }


def _restores(our: _Ours, peer: PgBackRest) -> dict[str, Callable[[], float]]:
    def ours_with(*options: str) -> Callable[[], float]:
        return lambda: _into_new_folder(lambda pgdata: our.restore(pgdata, *options))

    return {
        "ours": ours_with(),
        "ours --no-verify": ours_with("--no-verify"),
        "pgbackrest": lambda: _into_new_folder(lambda pgdata: _theirs(our.source, peer, pgdata)),
        "floor": lambda: _into_new_folder(lambda folder: write_as_much(our.source.cluster.pgdata, folder)),
    }


def _deltas(our: _Ours, peer: PgBackRest) -> Mapping[str, Callable[[], float]]:
    """Restore over a directory in which one page of a hundred differs from the base backup."""

    def changed(restore: Callable[[Path], None], again: Callable[[Path], None]) -> float:
        folder = owned_folder("bench-delta")
        try:
            pgdata = _new_pgdata(folder)
            restore(pgdata)
            _change_pages(pgdata)
            return timed(lambda: again(pgdata))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    return {
        "ours": lambda: changed(our.restore, lambda pgdata: our.restore(pgdata, "--delta")),
        "pgbackrest": lambda: changed(
            lambda pgdata: _theirs(our.source, peer, pgdata),
            lambda pgdata: _theirs(our.source, peer, pgdata, "--delta"),
        ),
    }


def _change_pages(pgdata: Path, *, every: int = 100, page_bytes: int = 8192) -> None:
    """Change a byte in one page of a hundred of each relation's file, the first page of each too."""
    for path in (pgdata / "base").rglob("*"):
        if path.is_file() and path.name.split(".")[0].isdigit() and (size := path.stat().st_size):
            with path.open("r+b") as file:
                for offset in range(0, size, every * page_bytes):
                    file.seek(offset + page_bytes // 2)
                    byte = file.read(1)
                    file.seek(offset + page_bytes // 2)
                    file.write(bytes([byte[0] ^ 0xFF]))


def _theirs(source: Source, peer: PgBackRest, pgdata: Path, *options: str) -> None:
    PgBackRest(peer.folder, source.folder, peer.wrap).run("restore", "--repo=1", f"--pg1-path={pgdata}", *options)


def _into_new_folder(restore: Callable[[Path], None]) -> float:
    folder = owned_folder("bench-restore")
    try:
        pgdata = _new_pgdata(folder)
        return timed(lambda: restore(pgdata))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _new_pgdata(folder: Path) -> Path:
    pgdata = folder / "pgdata"
    pgdata.mkdir(mode=0o700)
    shutil.chown(pgdata, folder.stat().st_uid, folder.stat().st_gid)
    return pgdata
