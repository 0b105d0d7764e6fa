"""Describes a recovery target, the point at which a recovery stops."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Literal

from wal_pipeline.errors import RecoveryTargetError
from wal_pipeline.wal.lsn import Lsn

MAX_XID: Final = 2**32 - 1
_MAX_NAME_BYTES: Final = 63  # xlog_internal.h: MAXFNAMELEN - 1


class TargetKind(StrEnum):
    """The kind of a recovery target; the values are the endings of PostgreSQL's ``recovery_target_...`` settings."""

    TIME = "time"
    LSN = "lsn"
    XID = "xid"
    NAME = "name"
    IMMEDIATE = "immediate"  # as soon as the base backup is consistent
    END = "end"  # the end of the archive


@dataclass(frozen=True, slots=True)
class RecoveryTarget:
    """The point at which recovery stops. Of the values, exactly the one of ``kind`` is set.

    ``inclusive`` stops just after the target, not just before it; a name, immediate and end ignore it.
    ``timeline`` is a number, ``latest``, or ``current`` (the timeline on which the base backup was taken).
    ``not_before_at`` is for an xid or a name: the target is certainly not before it, so the base backup may be as late.
    """

    kind: TargetKind = TargetKind.END
    at: datetime | None = None
    lsn: Lsn | None = None
    xid: int | None = None
    name: str | None = None
    inclusive: bool = True
    timeline: int | Literal["latest", "current"] = "latest"
    not_before_at: datetime | None = None

    def __post_init__(self) -> None:
        """Raises: RecoveryTargetError for a value that PostgreSQL would refuse."""
        values = {"at": self.at, "lsn": self.lsn, "xid": self.xid, "name": self.name}
        wanted = {TargetKind.TIME: "at", TargetKind.IMMEDIATE: None, TargetKind.END: None}
        given = [key for key, value in values.items() if value is not None]
        expected = wanted.get(self.kind, self.kind.value)
        if given != ([] if expected is None else [expected]):
            raise RecoveryTargetError(f"a recovery target of kind '{self.kind}' has the values {given}")
        if self.at is not None and self.at.tzinfo is None:
            raise RecoveryTargetError(
                f"the recovery target '{self.at.isoformat()}' has no time zone",
                hint="Write the time with its zone, such as 2026-11-22 17:45:00+00.",
            )
        if self.xid is not None and not 3 <= self.xid <= MAX_XID:
            raise RecoveryTargetError(f"transaction id {self.xid} is outside 3 to 2**32 - 1")
        if self.name is not None and not 0 < len(self.name.encode()) <= _MAX_NAME_BYTES:
            raise RecoveryTargetError(
                f"the restore point name '{self.name}' has {len(self.name.encode())} bytes, "
                f"expected 1 to {_MAX_NAME_BYTES}"
            )

    def __str__(self) -> str:
        value = self.at.isoformat(" ") if self.at is not None else self.lsn or self.xid or self.name
        return {
            TargetKind.TIME: f"time {value}",
            TargetKind.LSN: f"LSN {self.lsn}",
            TargetKind.XID: f"transaction {value}",
            TargetKind.NAME: f"restore point '{value}'",
            TargetKind.IMMEDIATE: "the end of the base backup",
            TargetKind.END: "the end of the archive",
        }[self.kind]


class TargetOutsideError(RecoveryTargetError):
    """The target lies outside every recovery window; ``before`` and ``after`` are the nearest that can be reached.

    They are texts for the same kind of target (an ISO time or an LSN); None where there is nothing on that side.
    """

    def __init__(self, message: str, *, before: str | None, after: str | None, hint: str | None = None) -> None:
        nearest = [f"{value} ({side})" for side, value in (("before", before), ("after", after)) if value is not None]
        sentence = f"The nearest that can be reached: {', '.join(nearest)}." if nearest else None
        super().__init__(message, hint=" ".join(part for part in (sentence, hint) if part is not None) or None)
        self.before = before
        self.after = after
