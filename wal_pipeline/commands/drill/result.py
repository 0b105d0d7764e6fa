"""Describes a drill: how it is done, and how far it came."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from wal_pipeline.archive.restore_time.measure import MeasuredRestore


@dataclass(frozen=True, slots=True)
class DrillOptions:
    """How a drill goes about it.

    ``folder`` is made and removed. ``owner``: as root, the user who runs the server. ``role`` and ``database`` are what
    the checks connect as and to. ``sql_file``: the user's own checks. ``timeout_seconds`` is the limit of the recovery,
    and of each check.
    """

    folder: Path
    owner: str | None = None
    role: str = "postgres"
    database: str = "postgres"
    amcheck: bool = True
    sql_file: Path | None = None
    bindir: Path | None = None
    timeout_seconds: float = 4 * 3600.0


@dataclass(frozen=True, slots=True)
class DrillCheck:
    """One check of the restored cluster.

    ``output`` is the end of what the program said where it failed, ``warnings`` what it warned of though it ended well.
    """

    name: str
    ok: bool
    output: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DrillResult:
    """How far a drill has come and, once it ended, what it found. ``seconds`` by phase.

    ``target`` is empty until a moment is chosen. ``predicted_commit_at`` is the last commit by the archive's records,
    None where they do not know it; ``reached_commit_at`` is what the server reported. ``rto_seconds`` is from the plan
    to a server that takes writes. ``error`` says why the drill failed. ``not_proven`` names what a restore's server has
    and the drill's had not, and the settings that the configuration has lower than the original had them.
    ``warnings`` are those of PostgreSQL's programs and of the server. ``measured`` is how long the restore took,
    without the checks; None where it did not end.
    """

    store: str
    started_at: datetime
    finished_at: datetime
    target: str = ""
    base_backup: str | None = None
    predicted_commit_at: datetime | None = None
    reached_commit_at: datetime | None = None
    reached_lsn: str | None = None
    segments: int = 0
    downloaded_bytes: int = 0
    rto_seconds: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    checks: tuple[DrillCheck, ...] = ()
    not_proven: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    error: str | None = None
    measured: MeasuredRestore | None = None

    @property
    def ok(self) -> bool:
        """Whether the drill passed."""
        return self.error is None
