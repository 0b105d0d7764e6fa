"""Defines the names that Dagster uses: jobs, asset keys, partitions, checks, tags and queues."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import dagster as dg

EXPIRE_JOB: Final = "expire_archive"
VERIFY_JOB: Final = "verify_archive"
BACKUP_JOB: Final = "take_base_backup"
RECORD_JOB: Final = "record_archive"
BAD_COPIES_JOB: Final = "report_bad_copies"
RESTORE_JOB: Final = "restore_cluster"
FIND_JOB: Final = "find_transactions"
CLONE_JOB: Final = "clone_cluster"
RESCUE_JOB: Final = "rescue_tables"
ARCHIVE_JOB: Final = "archive_wal"
SHIP_JOB: Final = "ship_wal"
PAUSE_JOB: Final = "pause_archiving"
RESUME_JOB: Final = "resume_archiving"
CHECK_JOB: Final = "check_archive"
COST_JOB: Final = "report_cost"
DRILL_JOB: Final = "recovery_drill"
RELATIONS_JOB: Final = "keep_relations"
CLUSTER_TAG: Final = "wal_pipeline/cluster"


class AssetGroup(StrEnum):
    """The groups of assets. The UI lists groups by name, so the number sets their order: that of a file's way.

    They are few, because lineage shows the health of a group only where the boxes are large enough, and have short
    names, because it cuts them after some 16 characters, and the cluster's name comes first.
    """

    WAL = "1_wal"  # the spool, what comes out of it, and the tail of the open segment
    BASE_BACKUPS = "2_backups"
    RECOVERY = "3_recovery"  # the window, the drill, the accident desk, and what needs a person
    COST = "4_cost"


@dataclass(frozen=True)
class Keys:
    """The keys of one cluster. All begin with its name, so that many clusters can share one UI."""

    cluster: str

    @property
    def tags(self) -> dict[str, str]:
        """The tags of every job of this cluster, which tell its runs from those of other clusters."""
        return {CLUSTER_TAG: self.cluster}

    def group(self, group: AssetGroup) -> str:
        """Return a group's name, ``orders_1_wal``: without the cluster, lineage would join the groups of clusters."""
        return f"{re.sub(r'[^A-Za-z0-9_]', '_', self.cluster)}_{group.value}"

    def title(self, what: str) -> str:
        """Return the title of an asset, ``orders: WAL on r2``: its description begins with it."""
        return f"{self.cluster}: {what}"

    def described(self, text: str) -> str:
        """Return the description of a job, a schedule or a sensor: where the UI shows it, it shows whose it is."""
        return f"Cluster '{self.cluster}': {text}"

    @property
    def spool(self) -> dg.AssetKey:
        """The spool into which PostgreSQL archives: an external asset, upstream of all that it fills."""
        return dg.AssetKey([self.cluster, "spool"])

    def wal_segment(self, store: str) -> dg.AssetKey:
        """The files of the WAL archive on one store; one partition a file."""
        return dg.AssetKey([self.cluster, "wal_segment", store])

    def wal_tail(self, store: str) -> dg.AssetKey:
        """The parts of the open segment on one store."""
        return dg.AssetKey([self.cluster, "wal_tail", store])

    def base_backup(self, store: str) -> dg.AssetKey:
        """The base backups on one store; one partition a base backup."""
        return dg.AssetKey([self.cluster, "base_backup", store])

    @property
    def recovery_window(self) -> dg.AssetKey:
        """The span of moments to which the cluster can be recovered."""
        return dg.AssetKey([self.cluster, "recovery_window"])

    @property
    def recovery_drill(self) -> dg.AssetKey:
        """Real restores into a scratch cluster."""
        return dg.AssetKey([self.cluster, "recovery_drill"])

    @property
    def found_transactions(self) -> dg.AssetKey:
        """The findings of the last search for what transactions did."""
        return dg.AssetKey([self.cluster, "found_transactions"])

    @property
    def clones(self) -> dg.AssetKey:
        """The clones that stand."""
        return dg.AssetKey([self.cluster, "clones"])

    @property
    def rescued_tables(self) -> dg.AssetKey:
        """The tables that were brought back beside the living ones."""
        return dg.AssetKey([self.cluster, "rescued_tables"])

    @property
    def open_alerts(self) -> dg.AssetKey:
        """The list of what needs a person."""
        return dg.AssetKey([self.cluster, "open_alerts"])

    @property
    def cost(self) -> dg.AssetKey:
        """The cost of the archive."""
        return dg.AssetKey([self.cluster, "cost"])

    @property
    def shown_each_minute(self) -> tuple[dg.AssetKey, ...]:
        """The assets that the health sensor brings up to date."""
        return (self.spool, self.recovery_window, self.open_alerts)

    @property
    def wal_partitions_name(self) -> str:
        """The name under which the instance keeps the segment assets' partitions."""
        return f"{self.cluster}/wal_file"

    @property
    def base_backup_partitions_name(self) -> str:
        """The name under which the instance keeps the base backup assets' partitions."""
        return f"{self.cluster}/base_backup"

    @property
    def wal_partitions(self) -> dg.DynamicPartitionsDefinition:
        """The partitions of the segment assets: file names."""
        return dg.DynamicPartitionsDefinition(name=self.wal_partitions_name)

    @property
    def base_backup_partitions(self) -> dg.DynamicPartitionsDefinition:
        """The partitions of the base backup assets: backup ids."""
        return dg.DynamicPartitionsDefinition(name=self.base_backup_partitions_name)


NAMES_CHECK: Final = "names_and_sizes"
CONTENT_CHECK: Final = "content"
VERIFIED_AT: Final = "verified_at"  # the check's metadata: when the verification of its verdict began
BACKUP_CHECK: Final = "newest_fresh"
DRILL_CHECK: Final = "last_drill_{store}"
TAIL_CHECK: Final = "on_time"
WINDOW_CHECK: Final = "{name}_{store}"


def warm_queue(cluster: str) -> str:
    """Return the name of a cluster's queue. Only the worker beside the cluster's spool takes runs from it."""
    return f"archive_{cluster}"
