"""Describes the work of a restore, and how long each part of it took."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


class RestorePhase(StrEnum):
    """A part of a restore, in order."""

    PLAN = "plan"  # the stores are listed
    DOWNLOAD = "download"  # fetched, opened and written
    COMBINE = "combine"  # a chain of incremental base backups becomes one data directory
    VERIFY = "verify"  # every file is read again
    FINISH = "finish"  # the disk has all that was written
    START = "start"  # from the server's start until it replays
    REPLAY = "replay"
    OPEN = "open"  # from the last record until the server is open

    @property
    def is_of_store(self) -> bool:
        """Whether its pace depends on the store."""
        return self in {RestorePhase.DOWNLOAD, RestorePhase.REPLAY}


class MeasuredBy(StrEnum):
    """The command that was measured."""

    RESTORE = "restore"
    DRILL = "drill"


@dataclass(frozen=True, slots=True)
class RestoreWork:
    """The work of one restore. ``stores`` are those that give the bytes, the first one preferred.

    ``fetched_bytes`` are downloaded before the server starts, ``written_bytes`` are those of the restored files,
    ``combined_bytes`` those of a chain that is combined (0: there is none). ``wal_bytes`` lie between the start of the
    base backup and the target.
    """

    stores: tuple[str, ...]
    fetched_bytes: int
    written_bytes: int
    wal_bytes: int
    combined_bytes: int = 0
    verifies: bool = True

    def amount(self, phase: RestorePhase) -> int | None:
        """Return the bytes of a phase; None where its time has nothing to do with them."""
        match phase:
            case RestorePhase.DOWNLOAD:
                return self.fetched_bytes
            case RestorePhase.COMBINE:
                return self.combined_bytes
            case RestorePhase.VERIFY:
                return self.written_bytes if self.verifies else 0
            case RestorePhase.FINISH:
                return self.written_bytes
            case RestorePhase.REPLAY:
                return self.wal_bytes
            case _:
                return None


@dataclass(frozen=True, slots=True)
class MeasuredRestore:
    """A restore or a drill that was done on ``host``, with the seconds of the phases that it had.

    ``predicted_seconds`` is what had been predicted for these phases, None where nothing was.
    """

    host: str
    by: MeasuredBy
    finished_at: datetime
    work: RestoreWork
    seconds: Mapping[RestorePhase, float]
    predicted_seconds: float | None = None

    @property
    def took_seconds(self) -> float:
        """The seconds of all its phases."""
        return sum(self.seconds.values())


def measure_values(measured: MeasuredRestore) -> dict[str, Any]:
    """Return a measured restore as values that JSON can hold."""
    work = measured.work
    return {
        "host": measured.host,
        "by": measured.by.value,
        "finished_at": measured.finished_at.isoformat(),
        "stores": list(work.stores),
        "fetched_bytes": work.fetched_bytes,
        "written_bytes": work.written_bytes,
        "wal_bytes": work.wal_bytes,
        "combined_bytes": work.combined_bytes,
        "verifies": work.verifies,
        "seconds": {phase.value: round(seconds, 3) for phase, seconds in measured.seconds.items()},
        "predicted_seconds": measured.predicted_seconds,
    }


def measure_from_values(values: Mapping[str, Any]) -> MeasuredRestore:
    """Read what ``measure_values`` made; a phase of a later version is left out.

    Raises: KeyError, TypeError, ValueError.
    """
    known = {phase.value for phase in RestorePhase}
    predicted = values["predicted_seconds"]
    return MeasuredRestore(
        host=str(values["host"]),
        by=MeasuredBy(values["by"]),
        finished_at=datetime.fromisoformat(values["finished_at"]),
        work=RestoreWork(
            tuple(map(str, values["stores"])),
            int(values["fetched_bytes"]),
            int(values["written_bytes"]),
            int(values["wal_bytes"]),
            int(values["combined_bytes"]),
            bool(values["verifies"]),
        ),
        seconds={RestorePhase(name): float(one) for name, one in values["seconds"].items() if name in known},
        predicted_seconds=None if predicted is None else float(predicted),
    )
