"""A recovery target from the words that a person gives, on the command line or in a run's configuration."""

from datetime import datetime
from typing import Literal

from wal_pipeline.archive.recovery_target import RecoveryTarget, TargetKind
from wal_pipeline.errors import RecoveryTargetError
from wal_pipeline.wal.lsn import Lsn


class TargetTextError(RecoveryTargetError):
    """The words do not say one recovery target."""


def target_from_text(
    *,
    to_time: str | None = None,
    to_lsn: str | None = None,
    to_xid: int | None = None,
    to_name: str | None = None,
    immediate: bool = False,
    inclusive: bool = True,
    timeline: str = "latest",
) -> RecoveryTarget:
    """Return the one target that is given; none of them is the end of the archive.

    Raises: TargetTextError, RecoveryTargetError for a value that PostgreSQL would refuse, InvalidLsnError.
    """
    kinds = {
        TargetKind.TIME: to_time,
        TargetKind.LSN: to_lsn,
        TargetKind.XID: to_xid,
        TargetKind.NAME: to_name,
        TargetKind.IMMEDIATE: immediate,
    }
    given = [kind for kind, value in kinds.items() if value]
    if len(given) > 1:
        names = [f"--{kind.value}" if kind is TargetKind.IMMEDIATE else f"--to-{kind.value}" for kind in given]
        raise TargetTextError(f"Give one recovery target: {' or '.join(names)}.")
    return RecoveryTarget(
        kind=given[0] if given else TargetKind.END,
        at=_time(to_time) if to_time else None,
        lsn=Lsn.parse(to_lsn) if to_lsn else None,
        xid=to_xid,
        name=to_name,
        inclusive=inclusive,
        timeline=_timeline(timeline),
    )


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise TargetTextError(f"'{text}' is not a time, expected such as '2026-11-22 17:45:00+00'.") from None


def _timeline(text: str) -> int | Literal["latest", "current"]:
    words: dict[str, Literal["latest", "current"]] = {"latest": "latest", "current": "current"}
    if text in words:
        return words[text]
    if text.isdigit() and int(text) > 0:
        return int(text)
    raise TargetTextError(f"'{text}' is not a timeline, expected latest, current or a number.")
