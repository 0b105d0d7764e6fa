"""Defines the asset of the tables that were brought back: which, how many rows, and where they are now."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import dagster as dg

from wal_pipeline.orchestration.keys import AssetGroup, Keys
from wal_pipeline.orchestration.text_table import text_table
from wal_pipeline.text import counted, length, moment_utc, shown_name, size

if TYPE_CHECKING:
    from wal_pipeline.commands.rescue.result import RescueResult

_COLUMNS: Final = ("table", "rows", "now in")  # the page cuts a wide table


def build_rescued_asset(keys: Keys, stores: Sequence[str]) -> dg.AssetSpec:
    """Return the asset, which only its job fills: which table is wanted only a person can say."""
    return dg.AssetSpec(
        keys.rescued_tables,
        deps=[
            keys.found_transactions,
            *(key for store in stores for key in (keys.base_backup(store), keys.wal_segment(store))),
        ],
        group_name=keys.group(AssetGroup.RECOVERY),
        kinds={"postgres"},
        description=f"{keys.title('rescued tables')}. Single tables as they were just before an accident, in a dump or "
        "beside the living ones, while the cluster stays up. The job `rescue_tables` brings them: Jobs, rescue_tables, "
        "Launchpad. `wal-pipeline rescue` does the same in a terminal.",
    )


def rescued_metadata(result: "RescueResult", as_of: str) -> dict[str, dg.MetadataValue]:
    """Return the answer, a row for each table, the moment, and where the time went. ``as_of``: what was asked for."""
    seconds = sum(result.seconds.values())
    found: dict[str, dg.MetadataValue] = {
        "answer": dg.MetadataValue.text(rescued_sentence(result)),
        "tables": text_table(_COLUMNS, _rows(result)),
        "as of": dg.MetadataValue.text(as_of),
        "last commit": dg.MetadataValue.text(
            "no commit was replayed" if result.reached_commit_at is None else moment_utc(result.reached_commit_at)
        ),
    }
    if result.reached_lsn is not None:
        found["reached LSN"] = dg.MetadataValue.text(result.reached_lsn)
    if result.notes:
        found["notes"] = dg.MetadataValue.md("\n".join(f"- {shown_name(note)}" for note in result.notes))
    return found | {
        "took": text_table(("step", "time"), [(step, length(value)) for step, value in result.seconds.items()]),
        "sizes": dg.MetadataValue.text(
            f"{size(result.size_bytes)} of tables, {size(result.dump_bytes)} of dump, "
            f"{size(result.downloaded_bytes)} downloaded before the recovery"
        ),
        "rows": dg.MetadataValue.int(result.rows),
        "seconds": dg.MetadataValue.float(round(seconds, 1)),
    }


def rescued_sentence(result: "RescueResult") -> str:
    """Say how many rows of which database are back, and where."""
    tables = counted(len(result.tables), "table")
    rows = "1 row" if result.rows == 1 else f"{result.rows:,} rows"
    where = f"in the dump {result.output}" if result.output is not None else f"in {_schema(result)}"
    what = f"{rows} of {tables} of database '{shown_name(result.database)}' are back, as counted on both sides"
    return f"{what}, after {length(sum(result.seconds.values()))}: {where}"


def _schema(result: "RescueResult") -> str:
    return f"schema '{shown_name(result.schema or '-')}' of {shown_name(result.into or '-')}, beside the living tables"


def _rows(result: "RescueResult") -> list[tuple[str, ...]]:
    place = "the dump" if result.output is not None else "-"
    return [(shown_name(one.name), f"{one.rows:,}", shown_name(one.into or place)) for one in result.tables]
