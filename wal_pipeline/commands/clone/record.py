"""Describes a clone as data: the record that lies in its folder, and its state as a person sees it."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self

from wal_pipeline.errors import RestoreError

_MOMENTS: Final = ("made_at", "ends_at", "reached_commit_at")


@dataclass(frozen=True, slots=True)
class CloneRecord:
    """A clone that stands.

    ``generation`` numbers the folder with its files: a move that restores anew makes the next one. ``settings`` stand
    on the server's command line. ``listens``: it also listens on 127.0.0.1. ``target`` is in a person's words.
    ``timeline`` is the one that its WAL was replayed along, ``backup_id`` the base backup that it came from.
    """

    name: str
    cluster: str
    system_identifier: int
    made_at: datetime
    ends_at: datetime
    generation: int
    port: int
    listens: bool
    role: str
    database: str
    read_only: bool
    target: str
    backup_id: str
    timeline: int
    reached_commit_at: datetime | None
    reached_lsn: str | None
    settings: Mapping[str, str]
    only_databases: tuple[str, ...] = ()

    def to_json(self) -> bytes:
        """Return the record as it lies in the clone's folder."""
        values = asdict(self)
        for name in _MOMENTS:
            at = values[name]
            values[name] = None if at is None else at.isoformat()
        return json.dumps(values, indent=1).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes, source: Path) -> Self:
        """Return the record that a file holds. Raises: RestoreError where it is none."""
        try:
            values = json.loads(data)
            for name in _MOMENTS:
                values[name] = None if values[name] is None else datetime.fromisoformat(values[name])
            values["only_databases"] = tuple(values["only_databases"])
            record = cls(**values)
        except (ValueError, TypeError, KeyError) as error:
            raise RestoreError(f"'{source}' is not a clone's record: {error}") from error
        if record.made_at.tzinfo is None or record.ends_at.tzinfo is None:
            raise RestoreError(f"'{source}' is not a clone's record: its moments have no time zone")
        return record


class CloneCondition(StrEnum):
    """How a clone is."""

    READ_ONLY = "read-only"  # it has paused at its moment
    READ_WRITE = "read-write"
    DOWN = "down"  # its server does not run
    BUSY = "busy"  # a command makes, moves or ends it
    UNREADABLE = "unreadable"  # it has no record that this version can read


@dataclass(frozen=True, slots=True)
class CloneState:
    """A clone as it is now. ``pid`` is its server's, None where it does not run or cannot be seen from here.

    ``connect`` is the line to type. Of a clone that is being made, or has no record, little is known.
    """

    name: str
    folder: Path
    state: CloneCondition
    socket: Path | None = None
    port: int | None = None
    listens: bool = False
    pid: int | None = None
    made_at: datetime | None = None
    ends_at: datetime | None = None
    target: str | None = None
    reached_commit_at: datetime | None = None
    reached_lsn: str | None = None
    read_only: bool = False
    connect: str | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, record: CloneRecord, folder: Path, socket: Path, state: CloneCondition, pid: int | None) -> Self:
        """Return the state of a clone with a record."""
        words = ["psql", "-h", str(socket), "-p", str(record.port), "-U", record.role, "-d", record.database]
        return cls(
            record.name,
            folder,
            state,
            socket,
            record.port,
            record.listens,
            pid,
            record.made_at,
            record.ends_at,
            record.target,
            record.reached_commit_at,
            record.reached_lsn,
            record.read_only,
            shlex.join(words),
        )

    def values(self) -> dict[str, Any]:
        """Return the values for JSON."""
        found = asdict(self)
        for name, value in found.items():
            if isinstance(value, datetime):
                found[name] = value.isoformat()
            elif isinstance(value, Path):
                found[name] = str(value)
        return {**found, "state": self.state.value, "notes": list(self.notes)}
