"""Describes a lease: the object by which a running base backup says on each store that it still runs.

``<root>/lease/<token>.<number>.json``. The holder stores a new object with the next number every few minutes, then
removes the one before: an object is never written over, so R2's limit of one write a second for a key and B2's old
versions do not matter. What is here decides only what is left alone, so unknown keys are no fault.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

LEASE_FORMAT: Final = "wal-pipeline lease"
LEASE_LASTS: Final = timedelta(minutes=10)
UNREADABLE_LASTS: Final = timedelta(days=1)


class LeasedWork(StrEnum):
    """The work that a lease protects."""

    BASE_BACKUP = "base backup"
    REFILL = "refill"


@dataclass(frozen=True, slots=True)
class Lease:
    """One sign of life of the process that stores a base backup.

    ``token`` names the holder, ``backup_id`` what it stores (None: PostgreSQL has not told its start yet), ``needs``
    the chain on which an incremental one is built. ``process`` is the number that ``ps`` shows on ``host``;
    ``identity`` is ``host/process_identity.py``'s. ``since_at`` is when the work began. ``ended``: the holder is done,
    and could not remove its lease, because the store locks objects or its keys may not delete.
    """

    token: str
    work: LeasedWork
    backup_id: str | None
    needs: tuple[str, ...]
    host: str
    process: int
    identity: str
    program: str
    since_at: datetime
    expires_at: datetime
    ended: bool = False

    def to_json(self) -> bytes:
        """Return the object's bytes."""
        values = {
            "format": LEASE_FORMAT,
            "version": 1,
            "work": self.work.value,
            "backup_id": self.backup_id,
            "needs": list(self.needs),
            "host": self.host,
            "process": self.process,
            "identity": self.identity,
            "program": self.program,
            "since_at": self.since_at.astimezone(UTC).isoformat(),
            "expires_at": self.expires_at.astimezone(UTC).isoformat(),
            **({"ended": True} if self.ended else {}),
        }
        return (json.dumps(values, indent=1) + "\n").encode("ascii")

    @classmethod
    def parse(cls, token: str, data: bytes) -> "Lease | None":
        """Read the object; None where it is damaged or of a later version."""
        try:
            values = json.loads(data)
            return _lease(token, values) if isinstance(values, dict) else None
        except (ValueError, KeyError, TypeError, RecursionError):
            return None


def _lease(token: str, values: Mapping[str, Any]) -> Lease | None:
    if (values["format"], values["version"]) != (LEASE_FORMAT, 1):
        return None
    backup_id = values["backup_id"]
    return Lease(
        token=token,
        work=LeasedWork(values["work"]),
        backup_id=None if backup_id is None else str(backup_id),
        needs=tuple(str(one) for one in values["needs"]),
        host=str(values["host"]),
        process=int(values["process"]),
        identity=str(values["identity"]),
        program=str(values["program"]),
        since_at=_aware(values["since_at"]),
        expires_at=_aware(values["expires_at"]),
        ended=bool(values.get("ended", False)),
    )


def _aware(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"time {text} without a zone")
    return moment


@dataclass(frozen=True, slots=True)
class StoredLease:
    """A lease as it lies on a store. ``lease`` is None where it could not be read; then it counts for a day."""

    store: str
    keys: tuple[str, ...]
    token: str
    number: int
    modified_at: datetime
    lease: Lease | None = field(default=None)

    def is_current(self, store_now: datetime, now: datetime) -> bool:
        """Whether its holder gave a sign of life lately: by the store's clock, or by that of the hosts.

        ``now`` is this host's time. A moment far in the future was written while a clock was wrong, and proves nothing.
        """
        if self.lease is not None and self.lease.ended:
            return False
        return store_now < self.ends_at or (
            self.lease is not None and now < self.lease.expires_at <= now + 2 * LEASE_LASTS
        )

    @property
    def ends_at(self) -> datetime:
        """When it ends without another sign of life, by the store's clock."""
        return self.modified_at + (UNREADABLE_LASTS if self.lease is None else LEASE_LASTS)
