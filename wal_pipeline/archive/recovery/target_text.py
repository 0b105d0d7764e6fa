"""Reads a recovery target from the words on the command line or in a run's configuration."""

from datetime import datetime
from typing import Final, Literal

from wal_pipeline.archive.recovery.target import RecoveryTarget, TargetKind
from wal_pipeline.errors import RecoveryTargetError
from wal_pipeline.wal.lsn import Lsn

_MAX_TIMELINE: Final = 2**32 - 1


class TargetTextError(RecoveryTargetError):
    """The words do not name exactly one recovery target."""


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
    """Return the target that is given; without any, it is the end of the archive.

    Raises: TargetTextError, RecoveryTargetError for a value that PostgreSQL would refuse, InvalidLsnError.
    """
    kinds = {
        TargetKind.TIME: to_time,
        TargetKind.LSN: to_lsn,
        TargetKind.XID: to_xid,
        TargetKind.NAME: to_name,
        TargetKind.IMMEDIATE: immediate,
    }
    given = [kind for kind, value in kinds.items() if value is not None and value is not False]
    names = [f"--{kind.value}" if kind is TargetKind.IMMEDIATE else f"--to-{kind.value}" for kind in given]
    if len(given) > 1:
        raise TargetTextError(f"Give one recovery target: {' or '.join(names)}.")
    if given and isinstance(text := kinds[given[0]], str) and not text.strip():  # a script's empty variable
        raise TargetTextError(
            f"{names[0]} is empty.", hint=f"Give it a value, or leave {names[0]} out to recover to the end."
        )
    return RecoveryTarget(
        kind=given[0] if given else TargetKind.END,
        at=None if to_time is None else _time(to_time),
        lsn=None if to_lsn is None else Lsn.parse(to_lsn),
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
    if text.isascii() and text.isdecimal() and 0 < int(text) <= _MAX_TIMELINE:
        return int(text)
    raise TargetTextError(f"'{text}' is not a timeline, expected latest, current or a number.")
