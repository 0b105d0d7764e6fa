"""Describes a server in backup mode, for those who read its files: they need no connection to it."""

from dataclasses import dataclass
from datetime import datetime

from wal_pipeline.wal.lsn import Lsn


@dataclass(frozen=True, slots=True)
class StartedBackup:
    """A server in backup mode. Replay of a base backup begins at ``start_lsn`` on ``timeline``.

    ``started_at`` is the server's time before it began, ``block_size`` is in bytes, ``blocks_per_segment`` is the size
    of a relation's file in blocks, and ``has_checksums`` says whether pages have them.
    """

    start_lsn: Lsn
    timeline: int
    started_at: datetime
    major: int
    system_identifier: int
    in_recovery: bool
    block_size: int
    blocks_per_segment: int
    has_checksums: bool
