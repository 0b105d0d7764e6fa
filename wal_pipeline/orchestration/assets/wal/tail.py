"""Defines the tail of the open segment on each store as an observed asset, and what the UI shows of it each minute."""

import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, cast

import dagster as dg

from wal_pipeline.orchestration.keys import AssetGroup, Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.failures import with_plain_errors
from wal_pipeline.text import counted, moment_utc, size

if TYPE_CHECKING:
    from wal_pipeline.commands.health.facts import HealthFacts
    from wal_pipeline.commands.health.shipping import TailHealth

_KIB: Final = 2**10
_NUMBERS: Final = ("seconds_behind", "seconds_behind_p50", "seconds_behind_p99")


def build_tail_assets(keys: Keys, stores: Sequence[str]) -> dg.AssetsDefinition:
    """Return one observed asset for each store. Observing it by hand only reads the records again.

    It has no asset upstream: what is shipped comes from the server itself, and not through the spool.
    """
    specs = [
        dg.AssetSpec(
            keys.wal_tail(store),
            group_name=keys.group(AssetGroup.WAL),
            kinds={"postgres", "s3" if store != "local" else "file"},
            description=f"{keys.title(f'tail of the open segment on {store}')}. The parts of the segments that are not "
            f"archived yet: they bring a lost host's last seconds back. 'ship_wal' or 'wal-pipeline ship' ships them "
            "all the time; the health sensor looks at them each minute.",
        )
        for store in stores
    ]

    with warnings.catch_warnings():  # they have been in beta for years, and each load would say so
        warnings.simplefilter("ignore", dg.BetaWarning)
        decorator = dg.multi_observable_source_asset(name="wal_tail", specs=specs, can_subset=True)

    @decorator  # type: ignore[untyped-decorator]
    @with_plain_errors
    def wal_tail(context: dg.AssetExecutionContext, wal_pipeline: WalPipelineResource) -> Iterator[dg.ObserveResult]:
        from wal_pipeline.commands.health.facts import look_at_everything
        from wal_pipeline.wiring.health import fact_sources

        facts = look_at_everything(fact_sources(wal_pipeline.open()))
        for tail in facts.shipping.tails:
            if keys.wal_tail(tail.store) in context.selected_asset_keys:
                yield dg.ObserveResult(asset_key=keys.wal_tail(tail.store), metadata=tail_metadata(facts, tail))

    return cast(dg.AssetsDefinition, wal_tail)


def tail_observations(keys: Keys, facts: "HealthFacts") -> list[dg.AssetObservation]:
    """Return one look at each store's tail, for the sensor; none where shipping is off."""
    return [
        dg.AssetObservation(keys.wal_tail(tail.store), metadata=tail_metadata(facts, tail))
        for tail in facts.shipping.tails
    ]


def tail_metadata(facts: "HealthFacts", health: "TailHealth") -> dict[str, dg.MetadataValue]:
    """Return the metadata in the order of the UI's rows: the sentence, what is plotted, then positions and moments."""
    from wal_pipeline.commands.health.shipping import tail_numbers, tail_sentence

    goal, tail = facts.shipping.goal, health.tail
    said = f"shipping is {health.state.value}" if goal is None else tail_sentence(health, goal)
    found: dict[str, dg.MetadataValue] = {"answer": dg.MetadataValue.text(said)}
    numbers = tail_numbers(health)
    found |= {name: dg.MetadataValue.float(round(numbers[name], 2)) for name in _NUMBERS if name in numbers}
    if tail is None:
        return found
    found["pieces"] = dg.MetadataValue.int(len(tail.pieces))
    found["stored_kib"] = dg.MetadataValue.float(round(tail.stored_bytes / _KIB, 1))
    raw = sum(one.piece.size_bytes for one in tail.pieces)
    found["holds"] = dg.MetadataValue.text(
        f"{size(raw)} of WAL in {counted(len(tail.pieces), 'piece')}, {size(tail.stored_bytes)} as stored"
    )
    if tail.shipped_lsn is not None:
        found["shipped_to"] = dg.MetadataValue.text(f"{tail.shipped_lsn} on timeline {tail.timeline}")
    moments = (("last_commit_at", tail.last_commit_at), ("complete_at", tail.complete_at))
    for name, at in moments:
        if at is not None:
            found[name] = dg.MetadataValue.text(moment_utc(at))
    return found
