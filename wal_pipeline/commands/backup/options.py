"""Defines the options of a base backup."""

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from wal_pipeline.archive.records import FileComparison, MethodChoice
from wal_pipeline.commands.backup.part_uploader import UploadLimits
from wal_pipeline.commands.backup.upload import MAX_PARTS
from wal_pipeline.errors import SettingsError


@dataclass(frozen=True, slots=True)
class BackupOptions:
    """The options of a base backup.

    ``scratch_folder`` takes PostgreSQL's file list while the backup runs (about 150 bytes a file of the cluster),
    ``staging_folder`` the tars of a cluster with tablespaces; without it a folder below ``scratch_folder`` does.
    ``unfinished_after``: the objects of other base backups without a manifest and without a lease are removed once
    nothing was added to them for so long. A server that sends nothing for ``silence_seconds``, because its archiver or
    a checkpoint keeps it waiting, is waited for no longer. ``wait_seconds``: so long another base backup is waited for.
    ``system_identifier`` is the cluster's by the settings, None where they name none. ``note`` is a person's word, kept
    in the manifest in plain text. Of base backups that build on each other there are ``max_chain`` at most.
    The method ``local`` reads ``pgdata`` with ``workers`` processes; None: as many as there are cores, and threads of
    this process where the cluster is small. ``compare`` says which files are as the parent's.
    """

    scratch_folder: Path
    staging_folder: Path | None = None
    label: str = "wal-pipeline"
    fast_checkpoint: bool = True
    max_rate_kib: int | None = None
    volume_size_bytes: int = 64 << 20
    read_back: bool = True
    limits: UploadLimits = field(default_factory=UploadLimits)
    unfinished_after: timedelta = timedelta(hours=24)
    system_identifier: int | None = None
    silence_seconds: float = 14400.0
    wait_seconds: float = 0.0
    note: str = ""
    max_chain: int = 7
    method: MethodChoice = MethodChoice.REMOTE
    pgdata: Path | None = None
    workers: int | None = None
    compare: FileComparison = FileComparison.CONTENT

    @property
    def staging(self) -> Path:
        """The folder that takes the tars of a cluster with tablespaces."""
        return self.staging_folder or self.scratch_folder / "staging"


def check_options(options: BackupOptions) -> None:
    """Refuse volumes that no object can hold. Raises: SettingsError."""
    # Encryption and data that do not compress add less than a hundredth.
    largest = options.limits.part_size_bytes * MAX_PARTS * 99 // 100
    if not 0 < options.volume_size_bytes <= largest:
        raise SettingsError(
            f"volumes of {options.volume_size_bytes} bytes do not fit into {MAX_PARTS} parts of "
            f"{options.limits.part_size_bytes} bytes"
        )
