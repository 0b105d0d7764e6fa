"""Makes one schedule's cluster, spool and archiving process, on the stores that all schedules share."""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from chaos.archiving import Archiving, CommandArchiving, DaemonArchiving
from chaos.kept_running import KeptRunning
from chaos.load import Load
from chaos.schedule import Schedule
from chaos.shipping import INTERVAL_SECONDS, Shipping
from chaos.stage import Stage, small_disk
from testbed.postgres import PostgresCluster
from testbed.postgres_install import owned_folder, postgres_user
from wal_pipeline.postgres.archive_command import durable_archive_command
from wal_pipeline.wal.names import parse_file_name

_SPOOL_MEGABYTES = 24
_QUARANTINE_MEGABYTES = 4
_STAGING_MEGABYTES = 420  # a base backup needs its own size and 256 MiB


@dataclass(frozen=True, slots=True)
class World:
    """The cluster, folders and processes of one schedule. ``prefix`` is its place in the buckets."""

    schedule: Schedule
    stage: Stage
    folder: Path
    cluster: PostgresCluster
    archiving: Archiving
    shipping: Shipping
    load: Load
    environment: dict[str, str]
    prefix: str
    system_identifier: str
    tablespace: Path | None

    @property
    def spool(self) -> Path:
        """The folder into which PostgreSQL archives."""
        return self.folder / "spool"

    @property
    def quarantine(self) -> Path:
        """The folder for what may not be archived."""
        return self.folder / "spool-quarantine"

    @property
    def staging(self) -> Path:
        """The folder into which a base backup of a cluster with tablespaces is written."""
        return self.folder / "staging"

    @property
    def offset_file(self) -> Path:
        """The file with the seconds by which the archiver's clock is wrong."""
        return self.folder / "clock-offset"

    @property
    def pg_wal(self) -> Path:
        """PostgreSQL's own WAL. ``wal_keep_size`` is so large that every archived file stays there."""
        return self.cluster.pgdata / "pg_wal"

    def spooled(self) -> list[str]:
        """PostgreSQL's files in the spool, in order."""
        return sorted(path.name for path in self.spool.iterdir() if parse_file_name(path.name))

    def archived(self) -> set[str]:
        """The files that PostgreSQL marks as archived."""
        return self.cluster.archived()

    def unarchived(self) -> set[str]:
        """The files that PostgreSQL must still archive."""
        return {path.name.removesuffix(".ready") for path in (self.pg_wal / "archive_status").glob("*.ready")}


@contextmanager
def make_world(stage: Stage, schedule: Schedule) -> Iterator[World]:
    """Make and start everything except the load, and remove it at the end."""
    with ExitStack() as stack:
        folder = owned_folder(f"chaos-{schedule.seed}")
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        spool, quarantine, staging = _folders(folder)
        if schedule.needs_small_disks:
            stack.enter_context(small_disk(spool, _SPOOL_MEGABYTES))
            stack.enter_context(small_disk(quarantine, _QUARANTINE_MEGABYTES))
            stack.enter_context(small_disk(staging, _STAGING_MEGABYTES))
        cluster = PostgresCluster(stage.install, folder, settings=_archive_settings(schedule, spool))
        stack.callback(cluster.remove)
        stage.copy_template(cluster.pgdata)
        cluster.start()
        tablespace = _tablespace(cluster, stack) if schedule.with_tablespace else None
        prefix = f"schedule-{schedule.seed}-{uuid4().hex[:8]}"  # a seed may be played more than once
        environment = {
            **stage.store_environment(prefix),
            "PG_WAL_ARCHIVE_DIR": str(spool),
            "WAL_PIPELINE_CONNINFO": cluster.conninfo,
            "WAL_PIPELINE_STATE_FOLDER": str(folder / "state"),
            "WAL_PIPELINE_SHIP_INTERVAL_SECONDS": f"{INTERVAL_SECONDS}",
            "PGDATA": str(cluster.pgdata),
            "WAL_PIPELINE_BASE_BACKUP_STAGING_FOLDER": str(staging),
        }
        archiving = _archiving(schedule, folder, environment)
        stack.callback(archiving.stop)
        archiving.start()
        shipping = _shipping(schedule, folder, environment)
        stack.callback(shipping.stop)
        shipping.start()
        yield World(
            schedule=schedule,
            stage=stage,
            folder=folder,
            cluster=cluster,
            archiving=archiving,
            shipping=shipping,
            load=Load(cluster, schedule.seed),
            environment=environment,
            prefix=prefix,
            system_identifier=cluster.system_identifier,
            tablespace=tablespace,
        )


def _tablespace(cluster: PostgresCluster, stack: ExitStack) -> Path:
    """Put the ledger into a tablespace, so that a restore without it would miss every commit."""
    location = cluster.make_tablespace("side")
    stack.callback(shutil.rmtree, location, ignore_errors=True)
    cluster.psql("ALTER TABLE ledger SET TABLESPACE side; ALTER INDEX ledger_pkey SET TABLESPACE side")
    return location


def _folders(folder: Path) -> tuple[Path, Path, Path]:
    user = postgres_user()
    made = folder / "spool", folder / "spool-quarantine", folder / "staging"
    for path in made:
        path.mkdir()
        os.chown(path, user.uid, user.gid)
    return made


def _archive_settings(schedule: Schedule, spool: Path) -> dict[str, str]:
    kept = {"archive_mode": "on", "wal_keep_size": "8GB", "max_wal_size": "1GB", "track_commit_timestamp": "on"}
    kept["summarize_wal"] = "on"  # for incremental base backups of pg_basebackup
    if schedule.with_library:
        return {**kept, "archive_library": "basic_archive", "basic_archive.archive_directory": str(spool)}
    return {**kept, "archive_command": durable_archive_command(spool)}


def _archiving(schedule: Schedule, folder: Path, environment: dict[str, str]) -> Archiving:
    if schedule.with_daemon:
        return DaemonArchiving(folder / "dagster", environment, folder / "spool")
    return CommandArchiving(
        folder, environment, linger_seconds=schedule.linger_seconds, offset_file=folder / "clock-offset"
    )


def _shipping(schedule: Schedule, folder: Path, environment: dict[str, str]) -> Shipping:
    """Ship by the command, whose clock is stepped too, or by the daemon's sensor."""
    words = (str(folder / "clock-offset"), "ship")
    kept = KeptRunning(
        "wal-pipeline ship", "chaos.stepped_command", *words, log=folder / "ship.log", environment=environment
    )
    return Shipping(folder / "state", None if schedule.with_daemon else kept)
