"""Judges which transaction did most harm, and says by which rule."""

from dataclasses import dataclass
from shlex import quote

from psycopg.conninfo import make_conninfo

from wal_pipeline.commands.find.found import NAMELESS_DATABASE, FoundTransaction, RelationChange, RelationFate
from wal_pipeline.text import counted

Harm = tuple[int, int, int]
"""Its kind (3: drops a database, 2: drops or truncates, 1: the rest), the relations that are gone, the rows."""


def harm_of(one: FoundTransaction) -> Harm:
    """Return what sorts transactions by the harm that they did."""
    gone = rows = 0
    for change in one.changes:  # one loop: it is asked of each of millions
        rows += change.deleted + change.updated
        gone += change.fate is not None and not change.is_index and _is_gone(change)
    kind = 3 if one.dropped_databases else 2 if gone else 1
    return kind, len(one.dropped_databases) or gone, rows


def reason_of(one: FoundTransaction) -> str:
    """Say why this transaction is the suspect."""
    kind, count, rows = harm_of(one)
    if kind == 3:
        return f"it drops {counted(count, 'database')}, which no other kind of change outweighs"
    if kind == 2:
        return f"it drops or truncates {counted(count, 'relation')}, which outweighs changed rows"
    if rows:
        return f"of all it deleted and updated most rows: {rows:,}"
    return "no transaction dropped a relation, deleted or updated a row"


@dataclass(frozen=True, slots=True)
class TypedLines:
    """The commands with which a person goes on. ``rescue`` is None where no table has a name."""

    restore: str
    rescue: str | None


def lines_to_type(one: FoundTransaction, timeline: int | None, base_backup: str | None = None) -> TypedLines:
    """Return the commands that bring back what was there just before a transaction.

    ``timeline`` is the one that was asked for. ``base_backup`` is the one to begin from, where it is not the newest.
    """
    on = "" if timeline is None else f" --timeline {timeline}"
    from_backup = "" if base_backup is None else f" --base-backup {base_backup}"
    if one.dropped_databases:
        return _of_database(one, from_backup, on)
    restore = f"wal-pipeline restore --to-xid {one.xid} --exclusive{from_backup}{on}"
    when = f"--before-xid {one.xid} --committed-at {quote(one.committed_at.isoformat())}"
    tables = _hurt(one)
    if not tables:
        return TypedLines(restore, None)
    database = tables[0].database
    named = "".join(f" --table {quote(change.label)}" for change in tables if change.database == database)
    within = "" if database is None else f" --database {quote(database)}"
    into = "" if database is None else f" --into {quote(make_conninfo(dbname=database))}"
    return TypedLines(restore, f"wal-pipeline rescue{named}{within} {when}{on}{into}")


def _of_database(one: FoundTransaction, from_backup: str, on: str) -> TypedLines:
    """Return the lines for a database that was dropped.

    Its files are removed before the commit, by a record of its own: a recovery to just before the commit has the
    database's name and nothing in it. So these lines name where the transaction begins.
    """
    when = f"--to-lsn {one.begin_lsn} --exclusive"
    name = one.dropped_databases[0]
    whole = f"wal-pipeline rescue --whole-database --database {quote(name)} {when}{on} --output {quote(f'{name}.dump')}"
    return TypedLines(
        f"wal-pipeline restore {when}{from_backup}{on}", None if name.startswith(NAMELESS_DATABASE) else whole
    )


def _hurt(one: FoundTransaction) -> list[RelationChange]:
    """Return the tables with names that a rescue is for: those that are gone, else the one that lost most rows."""
    named = [change for change in one.changes if change.database is not None and not change.is_index]
    gone = [change for change in named if _is_gone(change)]
    if gone:
        return gone
    return sorted(named, key=lambda change: -(change.deleted + change.updated))[:1]


def _is_gone(change: RelationChange) -> bool:
    """Say whether a relation lost its rows: VACUUM FULL and its kin write them anew."""
    return change.fate not in (None, RelationFate.REWRITTEN)
