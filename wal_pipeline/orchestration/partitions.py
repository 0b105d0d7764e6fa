"""Which partitions a run was started for."""

import dagster as dg


def chosen_partitions(context: dg.AssetExecutionContext) -> list[str]:
    """Return the partitions of this run.

    Dagster takes a range whose start comes after its end for one without keys, and the run would succeed with
    nothing done: that is refused here.
    """
    names = list(context.partition_keys) if context.has_partition_key or context.has_partition_key_range else []
    if not names:
        raise dg.Failure(
            "nothing was chosen: the run has no partition, or its range ends before it begins", allow_retries=False
        )
    return names
