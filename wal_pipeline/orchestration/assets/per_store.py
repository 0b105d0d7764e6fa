"""Gives the assets that exist once for each store their specs and a run's partitions."""

from collections.abc import Callable, Sequence

import dagster as dg

from wal_pipeline.orchestration.keys import AssetGroup, Keys
from wal_pipeline.orchestration.runs.failures import RunError


def store_specs(
    keys: Keys,
    stores: Sequence[str],
    key: Callable[[str], dg.AssetKey],
    *,
    group: AssetGroup,
    title: str,
    description: str,
) -> list[dg.AssetSpec]:
    """Return the spec of each store's asset. ``{store}`` in the title and the description is its name."""
    return [
        dg.AssetSpec(
            key(store),
            deps=[keys.spool],
            group_name=keys.group(group),
            kinds={"postgres", "s3" if store != "local" else "file"},
            skippable=True,
            description=f"{keys.title(title)}. {description}".format(store=store),
        )
        for store in stores
    ]


def chosen_partitions(context: dg.AssetExecutionContext) -> list[str]:
    """Return the partitions of this run.

    Dagster takes a range that ends before it begins for an empty one, and such a run would succeed without doing
    anything. Raises: RunError where there is no partition.
    """
    names = list(context.partition_keys) if context.has_partition_key or context.has_partition_key_range else []
    if not names:
        raise RunError.refused("nothing was chosen: the run has no partition, or its range ends before it begins")
    return names
