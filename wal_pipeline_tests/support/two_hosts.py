"""Runs real servers that archive, each from a host of its own, into one folder that stands for the store."""

import os
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, owned_folder, postgres_user
from wal_pipeline.archive.recovery.restore_plan import RestorePlan, plan_restore
from wal_pipeline.archive.recovery.target import RecoveryTarget
from wal_pipeline.commands.archive_push.events import ArchiveEvent
from wal_pipeline.commands.restore.contents import gather
from wal_pipeline.postgres.archive_command import durable_archive_command
from wal_pipeline.settings import load_settings
from wal_pipeline.stores.base import Store
from wal_pipeline.wiring.archive_push import archive_now
from wal_pipeline.wiring.backup import base_backup_taker
from wal_pipeline.wiring.pipeline import Pipeline


@dataclass
class Host:
    """A server with a spool and a state folder of its own. ``store`` is the folder that hosts share."""

    store: Path
    cluster: PostgresCluster
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    @classmethod
    def make(cls, install: PostgresInstall, store: Path, *, spool: Path | None = None) -> "Host":
        """Make a host whose server does not exist yet; ``spool`` is another host's, which both write to."""
        folder = owned_folder("host")
        used = spool or folder / "spool"
        if not used.exists():
            used.mkdir()
            os.chown(used, postgres_user().uid, postgres_user().gid)
        (folder / "state").mkdir()
        settings = {
            "archive_mode": "on",
            "archive_command": durable_archive_command(used),  # two servers may archive the same file
            "autovacuum": "off",
        }
        cluster = PostgresCluster(install, folder / "server", settings=settings)
        cluster.folder.mkdir()
        os.chown(cluster.folder, postgres_user().uid, postgres_user().gid)
        environment = {
            "PG_WAL_ARCHIVE_DIR": str(used),
            "PGDATA": str(cluster.pgdata),
            "PGBINDIR": str(install.bin_folder),
            "WAL_PIPELINE_CONNINFO": cluster.conninfo,
            "WAL_PIPELINE_STORES": "local",
            "WAL_PIPELINE_LOCAL_STORE_FOLDER": str(store),
            "WAL_PIPELINE_STATE_DIR": str(folder / "state"),
            "WAL_PIPELINE_SETTLE_SECONDS": "0",
            "WAL_PIPELINE_CODEC": "zstd",
            "WAL_PIPELINE_BASE_BACKUP_STAGING_FOLDER": str(folder / "state" / "staging"),
            "WAL_PIPELINE_BASE_BACKUP_WAL_TIMEOUT_SECONDS": "30",
        }
        return cls(store, cluster, folder, environment)

    @property
    def spool(self) -> Path:
        """The folder into which the server archives."""
        return Path(self.environment["PG_WAL_ARCHIVE_DIR"])

    @property
    def pipeline(self) -> Pipeline:
        """The host's own objects; opened anew each time."""
        return Pipeline(load_settings(self.environment))

    @property
    def local(self) -> Store:
        """The store."""
        return self.pipeline.stores["local"]

    def standby_of(self, primary: PostgresCluster) -> None:
        """Fill the server's data folder from a primary, and start it as a standby that streams."""
        self.cluster.pgdata.parent.mkdir(exist_ok=True)
        primary.run("pg_basebackup", "--pgdata", str(self.cluster.pgdata), "-X", "stream", "--checkpoint=fast")
        self.follow(primary)

    def follow(self, primary: PostgresCluster) -> None:
        """Start the server as a standby that streams from a primary."""
        with (self.cluster.pgdata / "postgresql.auto.conf").open("a") as conf:
            conf.write(f"primary_conninfo = '{primary.conninfo}'\n")
        (self.cluster.pgdata / "standby.signal").touch()
        os.chown(self.cluster.pgdata / "standby.signal", postgres_user().uid, postgres_user().gid)
        self.cluster.start()

    def catch_up(self, primary: PostgresCluster) -> None:
        """Wait until the standby has replayed all that its primary has written."""
        lsn = primary.value("SELECT pg_current_wal_lsn()")
        self.cluster.process.wait_until(
            lambda: self.cluster.value(f"SELECT pg_last_wal_replay_lsn() >= '{lsn}'") == "t"
        )

    def write(self, label: str, *, times: int, rows: int = 5) -> list[str]:
        """Commit rows and finish the segment, ``times`` times; return the segments' names."""
        found = []
        for _ in range(times):
            self.cluster.psql(f"INSERT INTO t SELECT '{label}' FROM generate_series(1, {rows})")  # noqa: S608
            found.append(self.cluster.switch_wal())
        self.cluster.process.wait_until((self.spool / found[-1]).exists)
        return found

    def archive(self) -> list[ArchiveEvent]:
        """Archive the spool."""
        return list(archive_now(self.pipeline))

    def back_up(self) -> str:
        """Take a base backup and return its id."""
        outcome = base_backup_taker(self.pipeline, archive=self.archive).take()
        assert outcome.complete, outcome
        return outcome.result.manifest.backup_id

    def stored(self) -> set[str]:
        """Return the names of the WAL files on the store."""
        layout = self.pipeline.layout(int(self.cluster.system_identifier))
        listed = (layout.parse_wal_key(item.key) for item in self.local.list(layout.wal_root))
        return {one.file.name for one in listed if one is not None}

    def plan(self, target: RecoveryTarget | None = None, *, at: datetime | None = None) -> RestorePlan:
        """Plan a restore from the store alone, as the command does."""
        wanted = target or RecoveryTarget()
        found = gather([self.local], self.pipeline.layout(int(self.cluster.system_identifier)), at or wanted.at)
        return found.checked_plan(lambda contents: plan_restore(contents, wanted))

    def now(self) -> datetime:
        """Return the server's time."""
        return datetime.fromisoformat(self.cluster.value("SELECT clock_timestamp()"))
