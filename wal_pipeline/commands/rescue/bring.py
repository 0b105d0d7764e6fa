"""Takes tables from the scratch server into a dump, or on into a living database, and counts them at both ends."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg

from wal_pipeline.commands.rescue.apart import ScratchTables
from wal_pipeline.commands.rescue.dump_file import require_rows, whole_dump
from wal_pipeline.commands.rescue.living import LivingDatabase, count_of
from wal_pipeline.commands.rescue.needs import (
    JudgedNeeds,
    Need,
    judge_needs,
    read_needs,
    require_columns,
    told_needs,
)
from wal_pipeline.commands.rescue.result import RescueSteps
from wal_pipeline.commands.rescue.scratch import WORK_SECONDS
from wal_pipeline.commands.rescue.tables import ChosenTables, FoundTable, all_tables, choose_tables
from wal_pipeline.commands.rescue.wanted import WantedTable
from wal_pipeline.errors import RestoreError
from wal_pipeline.postgres.binaries import Binaries
from wal_pipeline.postgres.pg_dump import DumpChoice, DumpPrograms
from wal_pipeline.text import size

_RAW_ENCODING: Final = "SQL_ASCII"  # its databases convert nothing, and their names have no encoding
# Publications, subscriptions and labels are of the original; the target may lack its table access methods.
_LOADABLE: Final = ("--compress=0", "--no-publications", "--no-subscriptions", "--no-security-labels")
_NO_ACCESS_METHOD: Final = "--no-table-access-method"
_ACCESS_METHODS_SINCE: Final = 15
Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class BroughtTables:
    """Tables whose rows have all arrived. ``rows`` by the schema and name that they came from."""

    chosen: ChosenTables
    rows: Mapping[Pair, int]
    dump_bytes: int
    notes: tuple[str, ...]

    def rows_of(self, table: FoundTable) -> int:
        """Return the rows of a table and of all its partitions."""
        return sum(self.rows[one.pair] for one in self.chosen.below(table) if one.has_rows)


@dataclass(frozen=True, slots=True)
class SourceDatabase:
    """A database of the scratch server from which tables are taken. ``environment`` leads programs there."""

    connection: psycopg.Connection[Any]
    name: str
    environment: Mapping[str, str]
    programs: Binaries
    steps: RescueSteps

    @property
    def dumper(self) -> DumpPrograms:
        """PostgreSQL's dump programs, which reach this database alone."""
        return DumpPrograms(self.programs, self.environment)

    def choose(self, wanted: Sequence[WantedTable]) -> ChosenTables:
        """Find the wanted tables; all of the database where none is named. Raises: RestoreError."""
        with self.steps.step("find"):
            return choose_tables(self.connection, wanted, self.name) if wanted else all_tables(self.connection)

    def encoding(self) -> str | None:
        """Return the encoding of a dump and of the names in it; None where the database knows none."""
        row = self.connection.execute("SHOW server_encoding").fetchone()
        return None if row is None or row[0] == _RAW_ENCODING else "UTF8"

    @contextmanager
    def snapshot(self) -> Iterator[str]:
        """Give the name of one snapshot, in which this connection and pg_dump see the same rows."""
        self.connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            row = self.connection.execute("SELECT pg_export_snapshot()").fetchone()
            yield "" if row is None else str(row[0])
        finally:
            self.connection.execute("ROLLBACK")


def write_dump(source: SourceDatabase, chosen: ChosenTables, output: Path, *, whole: bool = False) -> BroughtTables:
    """Write a dump of the tables, or with ``whole`` of all the database, and read it back.

    The tables keep their schemas, owners and privileges. Raises: RestoreError, PostgresError.
    """
    with source.steps.step("find"):
        notes = [] if whole else _stand_alone(source, chosen)
        sequences = [] if whole else [need for need in read_needs(source.connection, chosen) if need.is_sequence]
        pairs = [one.pair for one in chosen.all] + [need.pair for need in sequences]
    choice = DumpChoice(() if whole else tuple(dict.fromkeys(pairs)), encoding=source.encoding())
    with whole_dump(output) as new:
        with source.snapshot() as snapshot:
            rows = _count(source, chosen, {one.pair: one.pair for one in chosen.all})
            with source.steps.step("dump"):
                source.dumper.dump(choice, new.file, snapshot=snapshot)
        with source.steps.step("check"):
            require_rows(rows, source.dumper.count_rows(new.path), _with_rows(chosen))
        dump_bytes = new.path.stat().st_size
    return BroughtTables(chosen, rows, dump_bytes, (*chosen.notes, *notes))


def _stand_alone(source: SourceDatabase, chosen: ChosenTables) -> list[str]:
    """Let each table stand for itself, and say what the dump needs where it is loaded."""
    tables = ScratchTables(source.connection, chosen)
    with _transaction(source.connection):
        tables.silence()
        tables.detach()
    return [*tables.notes, *told_needs(read_needs(source.connection, chosen))]


def load_tables(source: SourceDatabase, chosen: ChosenTables, living: LivingDatabase, folder: Path) -> BroughtTables:
    """Load the tables into the living database's schema, and count them there. ``folder`` takes the dump.

    Raises: RestoreError, PostgresError; but for the last count, nothing was loaded then.
    """
    with source.steps.step("find"):
        _require_names(chosen)
        living.check([one.name for one in chosen.all])
        _require_room(folder, chosen)
        needs = _judge(source, chosen, living)
    tables = ScratchTables(source.connection, chosen)
    with source.steps.step("set apart"), _transaction(source.connection):
        tables.silence()
        tables.detach()
        tables.cut_ties()
        tables.drop_parts(needs.lacking)
        tables.move(living.schema, needs.along)
    moved = {one.pair: (living.schema, one.name) for one in chosen.all}
    dump = folder / "rescued.dump"
    options = [*_LOADABLE, *([_NO_ACCESS_METHOD] if source.programs.major >= _ACCESS_METHODS_SINCE else [])]
    with source.snapshot() as snapshot:
        rows = _count(source, chosen, moved)
        with source.steps.step("dump"), dump.open("xb") as file:
            choice = DumpChoice(schema=living.schema, encoding=source.encoding())
            source.dumper.dump(choice, file, snapshot=snapshot, options=options)
    with source.steps.step("load"):
        living.load(dump, folder / "rescued.list", source.programs)
    with source.steps.step("check"):
        require_rows(rows, living.count(chosen.all, WORK_SECONDS), _with_rows(chosen))
    notes = (*chosen.notes, *needs.notes, *tables.notes, "owner and privileges: those of the role that loaded it")
    return BroughtTables(chosen, rows, dump.stat().st_size, notes)


def _judge(source: SourceDatabase, chosen: ChosenTables, living: LivingDatabase) -> JudgedNeeds:
    tables = set(chosen.oids)
    needs: Sequence[Need] = read_needs(source.connection, chosen)
    with living.session("looking for what the tables need") as target:
        judged = judge_needs(needs, source.connection, target)
    require_columns(judged.lacking, lambda oid: oid in tables, living.name)
    return judged


def _require_names(chosen: ChosenTables) -> None:
    """Refuse two tables of one name, which cannot lie in one schema. Raises: RestoreError."""
    seen: dict[str, FoundTable] = {}
    for one in chosen.all:
        other = seen.setdefault(one.name, one)
        if other is not one:
            raise RestoreError(
                f"'{other.shown}' and '{one.shown}' have one name, and would be loaded into one schema",
                hint="Bring them one after the other, each into its own schema (--as), or write a dump (--output).",
            )


def _require_room(folder: Path, chosen: ChosenTables) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if chosen.size_bytes > free_bytes:
        raise RestoreError(
            f"the disk of '{folder}' has {size(free_bytes)} free, expected at least {size(chosen.size_bytes)} "
            "for the tables' dump",
            hint="Name a folder on a larger disk with --folder.",
        )


def _with_rows(chosen: ChosenTables) -> list[FoundTable]:
    return [one for one in chosen.all if one.has_rows]


def _count(source: SourceDatabase, chosen: ChosenTables, now: Mapping[Pair, Pair]) -> dict[Pair, int]:
    """Count the rows of each table, which may have another name ``now``, by the name that it came with."""
    with source.steps.step("count"):
        return {one.pair: count_of(source.connection, now[one.pair]) for one in _with_rows(chosen)}


@contextmanager
def _transaction(connection: psycopg.Connection[Any]) -> Iterator[None]:
    connection.execute("BEGIN")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
