"""Runs pgBackRest as its guide configures it: asynchronous, two processes, two S3 repositories over TLS."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.ours import BenchError
from testbed.s3_pair import S3Buckets, S3Pair

STANZA: Final = "bench"
CODECS: Final = {"gzip": "gz", "zstd": "zst", "lz4": "lz4"}
_TIMEOUT_SECONDS: Final = 1800


def unavailable() -> str | None:
    """Return why pgBackRest cannot be measured; None where it can. Root on Debian installs it first."""
    if shutil.which("pgbackrest"):
        return None
    if os.getuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "--yes", "--quiet", "pgbackrest"], capture_output=True, check=False)
    return None if shutil.which("pgbackrest") else "pgBackRest is not installed: apt-get install pgbackrest"


def version() -> str:
    """Return the version that the program prints."""
    return subprocess.run(["pgbackrest", "version"], capture_output=True, text=True, check=True).stdout.strip()


@dataclass(frozen=True, slots=True)
class PgBackRest:
    """One stanza in a folder of its own. ``pgdata`` is the cluster's data directory for pgBackRest."""

    folder: Path
    pgdata: Path
    wrap: tuple[str, ...] = ()

    def words(self) -> list[str]:
        """Return the first words of every pgBackRest command."""
        return ["pgbackrest", f"--config={self.folder / 'pgbackrest.conf'}", f"--stanza={STANZA}"]

    def run(self, command: str, *arguments: str) -> str:
        """Run one pgBackRest command. Raises: BenchError."""
        finished = subprocess.run(
            [*self.wrap, *self.words(), command, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_SECONDS,
            cwd=self.pgdata,
        )
        if finished.returncode != 0:
            said = (finished.stdout + finished.stderr).strip()[-1000:]
            raise BenchError(f"'pgbackrest {command}' ended with {finished.returncode}: {said}")
        return finished.stdout

    def push_all(self, segments: Sequence[str]) -> None:
        """Run one ``archive-push`` after the other and rename ready files to done, as PostgreSQL's archiver does."""
        status = self.pgdata / "pg_wal" / "archive_status"
        for name in segments:
            self.run("archive-push", f"pg_wal/{name}")
            (status / f"{name}.ready").rename(status / f"{name}.done")


def write_config(
    folder: Path,
    pgdata: Path,
    stores: S3Pair,
    buckets: S3Buckets,
    *,
    codec: str,
    level: int | None,
    ports: tuple[int, int] | None = None,
    repositories: int = 2,
    more: Sequence[str] = (),
    stanza: Sequence[str] = (),
) -> None:
    """Write pgbackrest.conf. ``ports`` replace the servers' ports, to go through a proxy."""
    lines = [
        "[global]",
        "archive-async=y",
        "process-max=2",
        f"compress-type={CODECS[codec]}",
        *([] if level is None else [f"compress-level={level}"]),
        f"spool-path={folder / 'spool'}",
        f"lock-path={folder / 'lock'}",
        f"log-path={folder / 'log'}",
        "log-level-console=warn",
        "log-level-file=off",
        "start-fast=y",
        "repo1-retention-full=9",
        "repo2-retention-full=9" if repositories == 2 else "",
        *more,
    ]
    servers = zip(stores.servers, (buckets.r2, buckets.b2), ports or (stores.r2.port, stores.b2.port), strict=True)
    for number, (server, bucket, port) in list(enumerate(servers, 1))[:repositories]:
        lines += [
            f"repo{number}-type=s3",
            f"repo{number}-path=/pgbackrest",
            f"repo{number}-s3-bucket={bucket}",
            f"repo{number}-s3-endpoint=localhost",  # pgBackRest compares the certificate with names alone
            f"repo{number}-storage-port={port}",
            f"repo{number}-s3-region=auto",
            f"repo{number}-s3-uri-style=path",
            f"repo{number}-s3-key={server.access_key_id}",
            f"repo{number}-s3-key-secret={server.secret_access_key}",
            f"repo{number}-storage-ca-file={server.ca_bundle}",
        ]
    lines += [f"[{STANZA}]", f"pg1-path={pgdata}", *stanza]
    for name in ("spool", "lock", "log"):
        (folder / name).mkdir(exist_ok=True, mode=0o777)
    config = folder / "pgbackrest.conf"
    config.touch(mode=0o600)
    config.write_text("\n".join(lines) + "\n")


def archiving_stanza(
    folder: Path, segments: Sequence[Path], control_file: Path, *, system_identifier_pattern: str = r"^[0-9A-F]{24}$"
) -> Path:
    """Make a data directory as the archiver needs it: pg_control, and segments that are ready."""
    pgdata = folder / "pgdata"
    status = pgdata / "pg_wal" / "archive_status"
    status.mkdir(parents=True)
    (pgdata / "global").mkdir()
    shutil.copyfile(control_file, pgdata / "global" / "pg_control")
    for segment in segments:
        if re.match(system_identifier_pattern, segment.name):
            (pgdata / "pg_wal" / segment.name).hardlink_to(segment)
            (status / f"{segment.name}.ready").touch()
    return pgdata
