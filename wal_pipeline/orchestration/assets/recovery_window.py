"""Defines the asset of the recovery windows: its first rows answer to which moment, and from which store."""

import base64
from collections.abc import Sequence
from dataclasses import astuple, replace
from typing import TYPE_CHECKING

import dagster as dg

from wal_pipeline.orchestration.keys import AssetGroup, Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.failures import with_plain_errors
from wal_pipeline.orchestration.text_table import text_table
from wal_pipeline.text import counted

if TYPE_CHECKING:
    from wal_pipeline.commands.health.facts import HealthFacts

Metadata = dict[str, dg.MetadataValue]
_MIB = 2**20


def build_window_asset(keys: Keys, stores: Sequence[str], *, tails: bool = False) -> dg.AssetsDefinition:
    """Return the asset. Materializing it by hand only works out the windows again. ``tails``: they end the window."""
    upstream = [*(keys.wal_segment(store) for store in stores), *(keys.base_backup(store) for store in stores)]
    if tails:
        upstream += [keys.wal_tail(store) for store in stores]

    @dg.asset(
        key=keys.recovery_window,
        deps=upstream,
        group_name=keys.group(AssetGroup.RECOVERY),
        kinds={"postgres"},
        description=f"{keys.title('recovery window')}. The span of moments to which the cluster can be recovered, from "
        "each store and from any store: with the copies of all of them taken together. The health sensor brings it up "
        "to date each minute. `wal-pipeline status` says the same in a terminal.",
    )
    @with_plain_errors
    def recovery_window(wal_pipeline: WalPipelineResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
        from wal_pipeline.commands.health.facts import look_at_everything
        from wal_pipeline.wiring.health import fact_sources

        return dg.MaterializeResult(metadata=window_metadata(look_at_everything(fact_sources(wal_pipeline.open()))))

    return recovery_window


def window_materialization(keys: Keys, facts: "HealthFacts") -> dg.AssetMaterialization:
    """Return the materialization for a run or a sensor that is not the asset's own."""
    return dg.AssetMaterialization(keys.recovery_window, metadata=window_metadata(facts))


def window_metadata(facts: "HealthFacts") -> Metadata:
    """Return the metadata in the order of the UI's rows: the answer, a table, a picture, how long a restore takes,
    then what is plotted.

    Only what changes is a number, because the UI plots each number over time.
    """
    from wal_pipeline.archive.restore_time.words import forecast_sentence
    from wal_pipeline.commands.health.answer import recovery_answer

    found: Metadata = {
        "answer": dg.MetadataValue.text(recovery_answer(facts)),
        "windows": _table(facts),
        "picture": dg.MetadataValue.md(_picture(facts)),
    }
    if facts.windows.notes:
        found["notes"] = dg.MetadataValue.md("\n".join(f"- {note}" for note in facts.windows.notes))
    for name, forecast in facts.restore_times.items():
        text = forecast_sentence(forecast, facts.at)
        found[f"{name}: a restore takes"] = dg.MetadataValue.text(text)
    for store in (None, *facts.windows.stores):
        found |= _details(facts, store)
    return found | _plotted(facts)


def _table(facts: "HealthFacts") -> dg.MetadataValue:
    """Return a row for any store and one for each store, in people's units."""
    from wal_pipeline.commands.health.answer import COLUMNS, answer_rows

    rows = [replace(row, begins=_without_year(row.begins), ends=_without_year(row.ends)) for row in answer_rows(facts)]
    return text_table(COLUMNS, map(astuple, rows))


def _without_year(moment: str) -> str:
    """Return a moment for a narrow column; the answer above the table has the year."""
    return moment.removeprefix(f"{moment[:4]}-") if moment[:4].isdigit() else moment


def _details(facts: "HealthFacts", store: str | None) -> Metadata:
    """Return the end of a store's window as PostgreSQL names it."""
    from wal_pipeline.commands.health.answer import store_name

    window = facts.windows.main(store)
    if window is None:
        return {}
    where = f"the end of '{window.last_segment}'"
    if window.tail is not None:
        where = f"inside '{window.tail.segment.name}', by {counted(len(window.tail.pieces), 'piece')} of it"
    said = f"{window.latest_lsn} on timeline {window.timeline}, {where}"
    return {f"{store_name(store)}: ends at": dg.MetadataValue.text(said)}


def _plotted(facts: "HealthFacts") -> Metadata:
    from wal_pipeline.commands.health.answer import store_name

    found: Metadata = {}
    for store in (None, *facts.windows.stores):
        reach, window = facts.reaches.get(store), facts.windows.main(store)
        if reach is not None and reach.rpo_seconds is not None:
            found[f"{store_name(store)}: RPO seconds"] = dg.MetadataValue.int(round(reach.rpo_seconds))
        if reach is not None and window is not None:
            hours = (reach.at - window.earliest_at).total_seconds() / 3600
            found[f"{store_name(store)}: window hours"] = dg.MetadataValue.float(round(hours, 1))
    for name, forecast in facts.restore_times.items():
        if forecast.seconds is not None:
            found[f"{name}: restore seconds"] = dg.MetadataValue.int(round(forecast.seconds))
    for one in facts.stores:
        found[f"{one.store}: WAL MiB"] = dg.MetadataValue.float(round(one.wal_bytes / _MIB, 1))
        found[f"{one.store}: base backup MiB"] = dg.MetadataValue.float(round(one.base_backup_bytes / _MIB, 1))
    return found


def _picture(facts: "HealthFacts") -> str:
    """Return the picture as Markdown of less than 1,000 characters: the UI shows a longer one only on a click."""
    from wal_pipeline.commands.report.small_picture import small_windows_svg

    encoded = base64.b64encode(small_windows_svg(facts).encode()).decode()
    return f"![windows](data:image/svg+xml;base64,{encoded})"
