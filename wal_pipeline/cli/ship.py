"""``wal-pipeline ship`` ships the open segment to every store until it is stopped."""

import json
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from wal_pipeline.cli.group import Context, pass_context
from wal_pipeline.cli.printing import print_line
from wal_pipeline.text import moment_json

if TYPE_CHECKING:
    from wal_pipeline.commands.ship.events import ShipEvent, ShippingEnded
    from wal_pipeline.commands.ship.records import ShippedTail


@click.command("ship")
@click.option("--seconds", type=click.FloatRange(min=0), default=None, help="End after so many seconds.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
@pass_context
def ship_command(context: Context, seconds: float | None, as_json: bool) -> int:
    """Ship the WAL that is not archived yet to every store, every few seconds, until SIGTERM or Ctrl-C.

    Exit code 0 where each store has all that the server had flushed at the end, else 1.
    """
    from wal_pipeline.commands.ship.events import ShippingEnded
    from wal_pipeline.wiring.ship import ship_now

    counts: Counter[str] = Counter()
    ended: ShippingEnded | None = None
    with _stopped_by_signals() as stopped:
        for event in ship_now(context.pipeline, max_seconds=seconds, stop=stopped.is_set):
            counts[type(event).__name__] += 1
            ended = event if isinstance(event, ShippingEnded) else None
            _tell(event)
    if ended is None:
        return 1
    if as_json:
        print_line(json.dumps(_summary(ended, counts)))
    else:
        print_line(f"{counts['PieceShipped']} pieces shipped")
    return 0 if _is_complete(ended) else 1


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """Let SIGTERM and SIGINT set an event, so that the piece on its way is finished."""
    stopped = threading.Event()
    chosen = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda *_: stopped.set()) for number in chosen}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell(event: "ShipEvent") -> None:
    from wal_pipeline.commands.ship.events import ShippingFailed, ShippingRecovered

    if isinstance(event, ShippingFailed):
        hint = f"\nHINT: {event.hint}" if event.hint else ""
        print_line(f"ERROR: {event.message}{hint}", err=True)
    elif isinstance(event, ShippingRecovered):
        print_line(f"{event.store or 'the server'}: WAL is shipped again", err=True)


def _is_complete(ended: "ShippingEnded") -> bool:
    flushed = ended.shipping.flushed_lsn
    return flushed is not None and all(
        tail.shipped_lsn is not None and tail.shipped_lsn >= flushed and tail.complete_at and not tail.conflict
        for tail in ended.tails
    )


def _summary(ended: "ShippingEnded", counts: "Counter[str]") -> dict[str, Any]:
    shipping = ended.shipping
    return {
        "pieces_shipped": counts["PieceShipped"],
        "pieces_merged": counts["PiecesMerged"],
        "flushed_lsn": None if shipping.flushed_lsn is None else str(shipping.flushed_lsn),
        "timeline": shipping.timeline,
        "error": shipping.error,
        "stores": {tail.store: _tail_summary(tail) for tail in ended.tails},
    }


def _tail_summary(tail: "ShippedTail") -> dict[str, Any]:
    return {
        "shipped_lsn": None if tail.shipped_lsn is None else str(tail.shipped_lsn),
        "complete_at": None if tail.complete_at is None else moment_json(tail.complete_at),
        "last_commit_at": None if tail.last_commit_at is None else moment_json(tail.last_commit_at),
        "pieces": len(tail.pieces),
        "stored_bytes": tail.stored_bytes,
        "behind_p50_seconds": tail.behind_p50_seconds,
        "behind_p99_seconds": tail.behind_p99_seconds,
        "behind_seconds": tail.behind_seconds,
        "error": tail.error,
        "conflict": tail.conflict,
    }
