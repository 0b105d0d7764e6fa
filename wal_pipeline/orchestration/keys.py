"""The names by which Dagster knows things: asset keys, partitions, groups. All begin with the cluster's name."""

from dataclasses import dataclass
from typing import Final

import dagster as dg

EXPIRE_JOB: Final = "expire_archive"
VERIFY_JOB: Final = "verify_archive"
BACKUP_JOB: Final = "take_base_backup"
RECORD_JOB: Final = "record_archive"
RESTORE_JOB: Final = "restore_cluster"
ARCHIVE_JOB: Final = "archive_wal"
CHECK_JOB: Final = "check_archive"
COST_JOB: Final = "report_cost"
DRILL_JOB: Final = "recovery_drill"
CLUSTER_TAG: Final = "wal_pipeline/cluster"


@dataclass(frozen=True)
class Keys:
    """The keys of one cluster, so that many clusters can share one UI."""

    cluster: str

    @property
    def tags(self) -> dict[str, str]:
        """The tags of every job of this cluster: they tell its runs from another cluster's."""
        return {CLUSTER_TAG: self.cluster}

    @property
    def spool(self) -> dg.AssetKey:
        """The spool into which PostgreSQL archives: an external asset, upstream of all others."""
        return dg.AssetKey([self.cluster, "spool"])

    def wal_segment(self, store: str) -> dg.AssetKey:
        """The files of the WAL archive on one store; one partition a file."""
        return dg.AssetKey([self.cluster, "wal_segment", store])

    def base_backup(self, store: str) -> dg.AssetKey:
        """The base backups on one store; one partition a base backup."""
        return dg.AssetKey([self.cluster, "base_backup", store])

    @property
    def recovery_window(self) -> dg.AssetKey:
        """From when to when the cluster can be recovered."""
        return dg.AssetKey([self.cluster, "recovery_window"])

    @property
    def recovery_drill(self) -> dg.AssetKey:
        """Real restores into a scratch cluster."""
        return dg.AssetKey([self.cluster, "recovery_drill"])

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
BACKUP_CHECK: Final = "newest_fresh"
DRILL_CHECK: Final = "last_drill_{store}"
QUEUE_TAG: Final = "dagster-celery/queue"  # dagster_celery.tags' own: the package need not be installed


def warm_queue(cluster: str) -> str:
    """Return the queue of a cluster, which only the worker beside its spool takes runs from."""
    return f"archive_{cluster}"
