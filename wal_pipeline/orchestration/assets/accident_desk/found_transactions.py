"""Defines the asset of the last search: who did it, the lines to type, and the transactions."""

import json
import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import dagster as dg

from wal_pipeline.orchestration.keys import RESCUE_JOB, AssetGroup, Keys
from wal_pipeline.orchestration.text_table import text_table
from wal_pipeline.text import counted, moment_text, moment_utc, shown_name, size

if TYPE_CHECKING:
    from wal_pipeline.commands.find.found import FindResult, FoundTransaction, RelationChange
    from wal_pipeline.commands.find.suspicion import TypedLines

_COLUMNS: Final = ("xid", "committed", "LSN", "WAL", "relations")
_MOST_RELATIONS: Final = 4
_MIB: Final = 2**20
_NUMBERS: Final = ("before_xid", "to_xid")
_SEVERAL: Final = {"table": "tables"}
_FLAGS: Final = {"whole-database": ("whole_database", True), "exclusive": ("inclusive", False)}


def build_found_asset(keys: Keys, stores: Sequence[str]) -> dg.AssetSpec:
    """Return the asset, which only its job fills: without a person's question there is nothing to find."""
    return dg.AssetSpec(
        keys.found_transactions,
        deps=[keys.wal_segment(store) for store in stores],
        group_name=keys.group(AssetGroup.RECOVERY),
        kinds={"postgres"},
        description=f"{keys.title('found transactions')}. What transactions did between two moments, by the archived "
        "WAL: rows deleted, updated and inserted, relations dropped or truncated. The job `find_transactions` fills "
        "it: Jobs, find_transactions, Launchpad. `wal-pipeline find` says the same in a terminal.",
    )


def found_metadata(result: "FindResult", timeline: int | None) -> dict[str, dg.MetadataValue]:
    """Return the suspect, what to do now, what is missing, the transactions, and the figures, in this order.

    ``timeline`` is the one that was asked for.
    """
    found: dict[str, dg.MetadataValue] = {"answer": dg.MetadataValue.text(found_sentence(result))}
    if result.holes:
        found["NOT SEARCHED"] = dg.MetadataValue.md(_points(result.holes))
    found |= _lines(result, timeline)
    if result.transactions:
        found["transactions"] = text_table(_COLUMNS, map(_row, result.transactions))
    if result.notes:
        found["notes"] = dg.MetadataValue.md(_points(result.notes))
    return found | {
        "looked at": dg.MetadataValue.text(_looked_at(result)),
        "matching transactions": dg.MetadataValue.int(result.matching),
        "commits": dg.MetadataValue.int(result.commits),
        "WAL MiB": dg.MetadataValue.float(round(result.read_bytes / _MIB, 1)),
        "seconds": dg.MetadataValue.float(round(result.seconds, 1)),
    }


def found_sentence(result: "FindResult") -> str:
    """Say which transaction is the suspect and why, of how many, and whether all WAL of that time was read."""
    from wal_pipeline.commands.find.suspicion import reason_of

    end = "the end of the archive" if result.end_at is None else moment_utc(result.end_at)
    span = f"{counted(result.commits, 'commit')} from {moment_utc(result.begin_at)} to {end}"
    missing = "; INCOMPLETE: some WAL of that time could not be read" if result.holes else ""
    if result.suspect is None:
        return f"no transaction matches, of {span}{missing}"
    one = result.suspect
    which = f"look at transaction {one.xid} first, of {moment_utc(one.committed_at)}: {reason_of(one)}"
    shown = "" if len(result.transactions) == result.matching else f", {len(result.transactions)} are shown"
    return f"{which}; {counted(result.matching, 'transaction')} of {span}{shown}{missing}"


def launchpad_text(rescue: str) -> str:
    """Return the configuration of the job rescue_tables that does what a line of ``wal-pipeline rescue`` does.

    A destination that the line leaves to the person stands there as it may be: the database that had the tables.
    """
    config: dict[str, Any] = {}
    words = iter(shlex.split(rescue)[2:])
    for word in words:
        option = word.removeprefix("--")
        if option in _FLAGS:
            name, value = _FLAGS[option]
            config[name] = value
        elif option in _SEVERAL:
            config.setdefault(_SEVERAL[option], []).append(next(words))
        else:
            name, text = option.replace("-", "_"), next(words)
            config[name] = int(text) if name in _NUMBERS else text
    if "output" in config:
        config["output"] = f"<folder>/{config['output']}"
    elif "into" not in config and "database" in config:
        config["into"] = f"dbname={config['database']}"
    # Each value as JSON, which is YAML too, so that no text is taken for a time or a number.
    lines = (f"      {name}: {json.dumps(value, ensure_ascii=False)}" for name, value in config.items())
    return "\n".join(["ops:", "  rescue:", "    config:", *lines, ""])


def _lines(result: "FindResult", timeline: int | None) -> dict[str, dg.MetadataValue]:
    from wal_pipeline.commands.find.suspicion import lines_to_type

    if result.suspect is None:
        return {}
    lines: TypedLines = lines_to_type(result.suspect, timeline, result.base_backup)
    found: dict[str, dg.MetadataValue] = {}
    if lines.rescue is not None:
        what = "the database" if result.suspect.dropped_databases else "the table"
        said = f"Job `{RESCUE_JOB}`, Launchpad, in place of its text:\n\n```yaml\n{launchpad_text(lines.rescue)}```"
        found[f"to bring {what} back"] = dg.MetadataValue.md(said)
        found["or in a terminal"] = dg.MetadataValue.text(lines.rescue)
    return found | {"to have all as before it": dg.MetadataValue.text(lines.restore)}


def _points(texts: Sequence[str]) -> str:
    return "\n".join(f"- {shown_name(text)}" for text in texts)


def _row(one: "FoundTransaction") -> tuple[str, ...]:
    at = moment_text(one.committed_at)[5:]  # for a narrow column; the answer above the table has the year
    return str(one.xid), at, str(one.lsn), size(one.wal_bytes), "; ".join(_said(one))


def _said(one: "FoundTransaction") -> Iterator[str]:
    """Yield what a transaction did, the relations that are gone first."""
    yield from (f"drops database '{shown_name(name)}'" for name in one.dropped_databases)
    several = len({change.database for change in one.changes}) > 1
    ordered = sorted(one.changes, key=lambda change: (change.fate is None, -(change.deleted + change.updated)))
    yield from (_change(change, with_database=several) for change in ordered[:_MOST_RELATIONS])
    if len(ordered) > _MOST_RELATIONS:
        yield f"and {counted(len(ordered) - _MOST_RELATIONS, 'relation')} more"
    if one.prepared:
        yield "prepared"
    if one.unseen_begin:
        yield "at least: it began before the WAL that was read"


def _change(change: "RelationChange", *, with_database: bool) -> str:
    database = f" (in '{change.database}')" if with_database and change.database is not None else ""
    parts = [change.fate.value] if change.fate is not None else []
    counts = ((change.deleted, "deleted"), (change.updated, "updated"), (change.inserted, "inserted"))
    parts += [f"{number:,} {word}" for number, word in counts if number]
    return shown_name(f"{change.label}{database}: {', '.join(parts)}")


def _looked_at(result: "FindResult") -> str:
    pieces = f" and {counted(result.pieces, 'piece')}" if result.pieces else ""
    speed = size(result.read_bytes / max(result.seconds, 1e-3))
    read = f"{counted(result.segments, 'segment')}{pieces}, {size(result.read_bytes)} of WAL"
    return f"{read} in {result.seconds:.1f} s ({speed}/s)"
