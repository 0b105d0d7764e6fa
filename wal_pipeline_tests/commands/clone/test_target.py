"""A paused clone goes onwards only to what surely lies ahead of it."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from wal_pipeline.archive.recovery.target import RecoveryTarget, TargetKind
from wal_pipeline.commands.clone.server import ClonePosition
from wal_pipeline.commands.clone.target import lies_ahead
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline_tests.support.clone_records import NOW

_EPOCH = 3 << 32


def ahead(
    kind: TargetKind, next_xid: int = _EPOCH + 1000, *, ended: Callable[[int], bool] | None = None, **v: Any
) -> bool:
    """Return the answer for a clone whose last commit was at NOW and whose next transaction is 1000."""
    position = ClonePosition(Lsn(0x3000060), NOW, next_xid)
    return lies_ahead(RecoveryTarget(kind, **v), position, ended or (lambda _: True))


def test_a_time() -> None:
    """The commit at which it stopped may be the target's own: then nothing before it is wanted."""
    second = timedelta(seconds=1)
    assert ahead(TargetKind.TIME, at=NOW + second)
    assert ahead(TargetKind.TIME, at=NOW)
    assert not ahead(TargetKind.TIME, at=NOW, inclusive=False)
    assert not ahead(TargetKind.TIME, at=NOW - second)


def test_an_lsn() -> None:
    """The one where it is, is not ahead."""
    assert ahead(TargetKind.LSN, lsn=Lsn(0x3000068))
    assert not ahead(TargetKind.LSN, lsn=Lsn(0x3000060))


@pytest.mark.parametrize(("xid", "expected"), [(1000, True), (2**31 - 1, True), (2**32 - 5, False), (999, False)])
def test_a_transaction(xid: int, expected: bool) -> None:
    """One that has not begun is ahead; one that has ended is not, also from before the counter began anew."""
    assert ahead(TargetKind.XID, xid=xid) is expected


def test_a_transaction_that_runs_there() -> None:
    """It has begun and not ended: its end lies ahead. It is asked for by its number of 64 bits."""
    asked: list[int] = []
    assert ahead(TargetKind.XID, xid=999, ended=lambda xid: bool(asked.append(xid)))
    assert ahead(TargetKind.XID, xid=2**32 - 5, ended=lambda xid: bool(asked.append(xid)))
    assert asked == [_EPOCH + 999, _EPOCH - 5]


def test_what_nobody_can_place() -> None:
    """A restore point may be anywhere: the clone is made anew."""
    assert not ahead(TargetKind.NAME, name="before")
    assert not ahead(TargetKind.IMMEDIATE)


def test_a_clone_that_has_replayed_no_commit() -> None:
    """Where it is in time is not known."""
    position = ClonePosition(Lsn(1), None, 1000)
    assert not lies_ahead(RecoveryTarget(TargetKind.TIME, at=NOW), position, lambda _: True)
