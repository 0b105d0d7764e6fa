"""Writes what a search found, for a person and as JSON."""

from collections.abc import Iterator
from typing import Any

from wal_pipeline.commands.find.found import FindResult, FoundTransaction, RelationChange
from wal_pipeline.commands.find.suspicion import lines_to_type, reason_of
from wal_pipeline.text import counted, moment_json, moment_text, moment_utc, size

_HEAD = f"{'committed (UTC)':<21}{'xid':<12}{'LSN':<15}WAL"


def heading() -> str:
    """Return the line above the transactions."""
    return _HEAD


def transaction_lines(one: FoundTransaction) -> Iterator[str]:
    """Yield a transaction in lines that fit 80 columns, as far as names do."""
    at = f"{moment_text(one.committed_at):<21}"
    marks = [*(["prepared"] if one.prepared else []), *(["at least: it began earlier"] if one.unseen_begin else [])]
    said = f"  ({', '.join(marks)})" if marks else ""
    yield f"{at}{one.xid:<12}{one.lsn!s:<15}{size(one.wal_bytes)}{said}"
    yield from (f"    drops database '{name}'" for name in one.dropped_databases)
    several = len({change.database for change in one.changes}) > 1
    yield from (f"    {_change_text(change, with_database=several)}" for change in one.changes)


def _change_text(change: RelationChange, *, with_database: bool) -> str:
    database = f" (in '{change.database}')" if with_database and change.database is not None else ""
    parts = [change.fate.value] if change.fate is not None else []
    counts = ((change.deleted, "deleted"), (change.updated, "updated"), (change.inserted, "inserted"))
    parts += [f"{number:,} {word}" for number, word in counts if number]
    return f"{change.label}{database}: {', '.join(parts)}"


def summary_lines(result: FindResult, timeline: int | None) -> Iterator[str]:
    """Yield what follows the transactions: how it was looked, what is missing, and what to type now."""
    shown, span = len(result.transactions), _span_text(result)
    if not result.matching:
        yield f"no transaction matches, of {counted(result.commits, 'commit')} {span}"
    else:
        yield f"{counted(result.matching, 'transaction')} of {counted(result.commits, 'commit')} {span}"
    if shown < result.matching:
        yield f"{shown} of them are shown; --limit shows more, --json all"
    speed = result.read_bytes / max(result.seconds, 1e-3)
    pieces = f" and {counted(result.pieces, 'piece')}" if result.pieces else ""
    yield (
        f"read {size(result.read_bytes)} of WAL in {result.seconds:.1f} s ({size(speed)}/s): "
        f"{counted(result.segments, 'segment')}{pieces}"
    )
    yield from (f"note: {note}" for note in result.notes)
    yield from (f"NOT SEARCHED: {hole}" for hole in result.holes)
    if result.suspect is not None:
        yield ""
        yield from _advice(result.suspect, timeline, result.base_backup)


def _span_text(result: FindResult) -> str:
    end = "the end of the archive" if result.end_at is None else moment_utc(result.end_at)
    return f"from {moment_utc(result.begin_at)} to {end}"


def _advice(suspect: FoundTransaction, timeline: int | None, base_backup: str | None) -> Iterator[str]:
    lines = lines_to_type(suspect, timeline, base_backup)
    yield f"Look at transaction {suspect.xid} first: {reason_of(suspect)}."
    yield "To have all as it was just before it:"
    yield f"  '{lines.restore}'"
    if suspect.dropped_databases:
        yield "  (and where that server says that the database is invalid, as a superuser there:"
        yield "  UPDATE pg_database SET datconnlimit = -1 WHERE datconnlimit = -2)"
    if lines.rescue is not None:
        yield f"To bring {'the database' if suspect.dropped_databases else 'the table'} back, while the server lives:"
        yield f"  '{lines.rescue}'"


def transaction_values(one: FoundTransaction) -> dict[str, Any]:
    """Return a transaction as JSON has it."""
    return {
        "type": "transaction",
        "committed_at": moment_json(one.committed_at),
        "xid": one.xid,
        "lsn": str(one.lsn),
        "timeline": one.timeline,
        "wal_bytes": one.wal_bytes,
        "inserted": one.inserted,
        "updated": one.updated,
        "deleted": one.deleted,
        "prepared": one.prepared,
        "at_least": one.unseen_begin,
        "dropped_databases": list(one.dropped_databases),
        "relations": [_change_values(change) for change in one.changes],
    }


def _change_values(change: RelationChange) -> dict[str, Any]:
    return {
        "relation": change.label,
        "database": change.database,
        "database_oid": change.database_oid,
        "file_node": change.file_node,
        "inserted": change.inserted,
        "updated": change.updated,
        "deleted": change.deleted,
        "wal_bytes": change.wal_bytes,
        "fate": None if change.fate is None else change.fate.value,
    }


def summary_values(result: FindResult, timeline: int | None) -> dict[str, Any]:
    """Return the object that follows the transactions."""
    suspect = result.suspect
    lines = None if suspect is None else lines_to_type(suspect, timeline, result.base_backup)
    return {
        "type": "summary",
        "from": moment_json(result.begin_at),
        "to": moment_json(result.end_at),
        "transactions": result.matching,
        "commits": result.commits,
        "first_commit_at": moment_json(result.first_commit_at),
        "last_commit_at": moment_json(result.last_commit_at),
        "segments": result.segments,
        "pieces": result.pieces,
        "read_bytes": result.read_bytes,
        "seconds": round(result.seconds, 3),
        "notes": list(result.notes),
        "not_searched": list(result.holes),
        "suspect_xid": None if suspect is None else suspect.xid,
        "suspect_reason": None if suspect is None else reason_of(suspect),
        "restore": None if lines is None else lines.restore,
        "rescue": None if lines is None else lines.rescue,
    }
