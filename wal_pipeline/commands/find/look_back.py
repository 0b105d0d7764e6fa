"""Reads back before a search's first segment until each transaction that ran there has been seen from its beginning."""

from collections.abc import Iterator

from wal_pipeline.commands.find.read_ahead import DecodedPart, PartReader
from wal_pipeline.commands.find.window import FindWindow
from wal_pipeline.wal.records.endings import RunningTransactions

_XIDS = 1 << 32
_HALF = 1 << 31


def earlier_parts(reader: PartReader, window: FindWindow) -> Iterator[DecodedPart]:
    """Yield the segments before the first one that are needed, in the order of the WAL.

    The server logs now and then which transactions run. The last such record before the window names the oldest one,
    and it began after an earlier record that says that it has not begun yet. Where that one is too far back, the search
    says of the transactions in question that it has not seen all of them.
    """
    found: list[DecodedPart] = []
    oldest: int | None = None
    for part in window.earlier():
        decoded = reader.read(part)
        if decoded.changes is None:
            break
        found.append(decoded)
        running = decoded.changes.running
        if oldest is None and running:
            oldest = running[-1].oldest_xid
        if oldest is not None and any(_is_before(one, oldest) for one in running):
            break
    yield from reversed(found)


def _is_before(one: RunningTransactions, xid: int) -> bool:
    """Say whether a transaction was not begun yet."""
    return (xid - one.next_xid) % _XIDS < _HALF
