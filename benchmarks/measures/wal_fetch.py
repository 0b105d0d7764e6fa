"""Measures the replay of the same segments with our restore_command, with a local cp and with pgBackRest's."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from benchmarks import ours
from benchmarks.bench import Bench
from benchmarks.figures import Figure, Samples, alternately, ratio
from benchmarks.source_cluster import Source, source_cluster
from testbed.dagster_instance import clean_environment
from testbed.postgres import start_restored
from testbed.postgres_install import owned_folder

KEYS = ("replay_vs_cp", "wal_fetch_vs_pgbackrest")
_STAMP = re.compile(r"^(\S+ \S+) \S+ \[\d+\] LOG:  (starting archive recovery|redo done)", re.MULTILINE)


def measure(bench: Bench) -> list[Figure]:
    """Return the time of a whole replay against that of the others."""
    segments = bench.size(100, 12)
    with (
        bench.buckets() as buckets,
        bench.buckets() as peer_buckets,
        source_cluster(bench, buckets, peer_buckets, push=False) as source,
    ):
        base = _write_history(source, segments)
        bench.say(f"wal_fetch: storing {len(list(source.archive.iterdir()))} files, zstd 3")
        _store(source)
        contenders = _contenders(source, base)
        samples = alternately(contenders, bench.repeats, bench.say)
        shutil.rmtree(base.parent)
    return _figures(samples, segments)


def _figures(samples: Samples, segments: int) -> list[Figure]:
    note = f"{segments} segments of PostgreSQL 15, from the start of recovery to the end of redo"
    found = [
        Figure("replay_vs_cp", "replay time against a local cp (ours over theirs)", 1 / ratio(samples, "cp", "ours"),
               "x", "<= 1.15", note, samples),
    ]  # fmt: skip
    title = "replay: pgBackRest's asynchronous archive-get"
    if "pgbackrest" in samples:
        value = ratio(samples, "pgbackrest", "ours")
        return [*found, Figure("wal_fetch_vs_pgbackrest", title, value, note=note, samples=samples)]
    return [*found, Figure("wal_fetch_vs_pgbackrest", title, None, note="pgBackRest is not installed")]


def _write_history(source: Source, segments: int) -> Path:
    """Take a base backup, then write WAL; return the base backup."""
    cluster = source.cluster
    cluster.pgbench_init(scale=5)
    base = owned_folder("bench-base") / "pgdata"
    cluster.run("pg_basebackup", "--pgdata", str(base), "--checkpoint=fast", "--wal-method=none", "--no-sync")
    while len(_segments(source)) < segments:
        cluster.psql("CHECKPOINT")
        cluster.bulk_load(40)
        cluster.pgbench(transactions=1500)
    last = cluster.switch_wal()
    cluster.process.wait_until((source.archive / last).exists)
    cluster.stop()
    return base


def _segments(source: Source) -> list[Path]:
    return [path for path in source.archive.iterdir() if re.fullmatch("[0-9A-F]{24}", path.name)]


def _store(source: Source) -> None:
    files = sorted(path for path in source.archive.iterdir() if path.name[0] != ".")
    for path in files:
        shutil.copy2(path, source.folder / "spool" / path.name)
    ours.archive(source.environment, len(files))
    if source.peer is not None:
        status = source.cluster.pgdata / "pg_wal" / "archive_status"
        names = [path.name for path in _segments(source)]
        for name in names:
            shutil.copy2(source.archive / name, source.cluster.pgdata / "pg_wal" / name)
            (status / f"{name}.done").rename(status / f"{name}.ready") if (status / f"{name}.done").exists() else (
                status / f"{name}.ready"
            ).touch()
        source.peer.push_all(sorted(names))


def _contenders(source: Source, base: Path) -> dict[str, Callable[[], float]]:
    found: dict[str, Callable[[], float]] = {
        "ours": lambda: _replay(source, base, lambda pgdata: _our_line(source, pgdata)),
        "cp": lambda: _replay(source, base, lambda _pgdata: f"cp {source.archive}/%f %p"),
    }
    peer = source.peer
    if peer is not None:
        found["pgbackrest"] = lambda: _replay(
            source, base, lambda pgdata: " ".join([*peer.words(), f"--pg1-path={pgdata}", "archive-get", "%f", '"%p"'])
        )
    return found


def _our_line(source: Source, pgdata: Path) -> str:
    words = ["archive-get", "--print-restore-command", f"--env-file={source.env_file}", f"--pgdata={pgdata}"]
    command = [sys.executable, "-m", "wal_pipeline.cli", *words]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, env=clean_environment(), cwd="/")
    return printed.stdout.strip()


def _replay(source: Source, base: Path, restore_command: Callable[[Path], str]) -> float:
    """Recover a fresh copy of the base backup to the end of the archive; return the seconds of recovery."""
    folder = owned_folder("bench-replay")
    pgdata = folder / "pgdata"
    try:
        shutil.copytree(base, pgdata, symlinks=True)
        (pgdata / "recovery.signal").touch()
        settings = {"restore_command": restore_command(pgdata), "shared_buffers": "256MB", "hot_standby": "off"}
        cluster = start_restored(source.cluster.install, pgdata, settings=settings, wait=False)
        try:
            cluster.wait_promoted(timeout_seconds=900)
            stamps = {what: datetime.fromisoformat(at) for at, what in _STAMP.findall(cluster.log.read_text())}
            return (stamps["redo done"] - stamps["starting archive recovery"]).total_seconds()
        finally:
            cluster.remove()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
