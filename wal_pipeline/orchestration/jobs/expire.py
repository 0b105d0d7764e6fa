"""Defines the job that expires what the recovery window no longer needs."""

import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from wal_pipeline.errors import SpoolError
from wal_pipeline.orchestration.jobs.purge_records import (
    CHECKS_KEPT_FOR,
    Purged,
    location_of,
    purge_checks,
    purge_runs,
    purge_ticks,
    remove_partitions,
)
from wal_pipeline.orchestration.keys import EXPIRE_JOB, Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.failures import with_plain_errors
from wal_pipeline.wiring.expire import expirer
from wal_pipeline.wiring.pipeline import Pipeline

if TYPE_CHECKING:
    from wal_pipeline.commands.expire.expire import Expiry


def build_retention_job(keys: Keys) -> dg.JobDefinition:
    """Return the job that expires every store of one cluster."""

    @dg.op(
        out=dg.Out(dg.Nothing),
        description="Plan for each store what its base backups and the recovery window need, and remove the rest: "
        "first the objects, a base backup's manifest before its other objects, then the records, the partitions that "
        "no store holds, and Dagster's own old runs and ticks.",
    )
    @with_plain_errors
    def expire_stores(context: dg.OpExecutionContext, wal_pipeline: WalPipelineResource) -> None:
        pipeline = wal_pipeline.open()
        known = {name: context.instance.get_dynamic_partitions(name) for name in _partition_names(keys)}
        done = expirer(pipeline).expire()
        purged = Purged(0, 0) if done.doubt is not None else purge(context, pipeline, keys, done, known)
        context.add_output_metadata(_metadata(done, purged))
        _raise_problems(context, done)

    @dg.job(
        name=EXPIRE_JOB,
        executor_def=dg.in_process_executor,
        tags=keys.tags,
        description=keys.described(
            "Expire what the recovery window no longer needs. 'wal-pipeline expire' shows the plan and why."
        ),
    )
    def expire_archive() -> None:
        expire_stores()

    return expire_archive


def purge(
    context: dg.OpExecutionContext, pipeline: Pipeline, keys: Keys, done: "Expiry", known: Mapping[str, Sequence[str]]
) -> Purged:
    """Remove from Dagster partitions without a copy, and old runs, ticks and check results.

    ``known``: the partitions before the expiry.
    """
    settings, instance = pipeline.settings, context.instance
    before = pipeline.clock() - timedelta(days=settings.dagster_retention_days)
    partitions = 0
    if done.silent or settings.spool_folder is None:
        context.log.warning("partitions stay: not every store answered, or the spool is not on this machine")
    else:
        partitions = _remove_partitions(context, pipeline, keys, done, known)
    runs, is_done = _purge_runs(context, pipeline, keys, before)
    purge_ticks(instance, location_of(context.run), before)
    purge_checks(instance, keys, max(before, pipeline.clock() - CHECKS_KEPT_FOR))
    return Purged(partitions, runs, is_done)


def _purge_runs(context: dg.OpExecutionContext, pipeline: Pipeline, keys: Keys, before: datetime) -> tuple[int, bool]:
    """Remove old runs; return how many, and whether all went that may go."""
    settings = pipeline.settings
    most, seconds = settings.dagster_purge_runs, settings.dagster_purge_seconds
    begun = time.monotonic()
    removed = purge_runs(context.instance, keys, before, at_most=most, max_seconds=seconds)
    is_done = removed < most and time.monotonic() - begun < seconds
    if not is_done:
        context.log.warning(
            f"{removed} old runs were removed, and more may be due: WAL_PIPELINE_DAGSTER_PURGE_RUNS ({most}) or "
            f"WAL_PIPELINE_DAGSTER_PURGE_SECONDS ({seconds:g}) ended it; the next expiry goes on"
        )
    return removed, is_done


def _remove_partitions(
    context: dg.OpExecutionContext, pipeline: Pipeline, keys: Keys, done: "Expiry", known: Mapping[str, Sequence[str]]
) -> int:
    from wal_pipeline.commands.expire.expire import held_names

    def waiting() -> frozenset[str]:
        listing = pipeline.spool.scan(pipeline.clock())
        return frozenset(file.name.name for file in listing.ready + listing.growing)

    try:
        held = held_names(done, pipeline.catalog, waiting)
    except SpoolError as error:
        context.log.warning(f"partitions stay: {error.message}")
        return 0
    wal, base = _partition_names(keys)
    return remove_partitions(context.instance, wal, known[wal], held.files) + remove_partitions(
        context.instance, base, known[base], held.base_backups
    )


def _partition_names(keys: Keys) -> tuple[str, str]:
    return keys.wal_partitions_name, keys.base_backup_partitions_name


def _metadata(done: "Expiry", purged: Purged) -> dict[str, dg.MetadataValue]:
    found: dict[str, dg.MetadataValue] = {
        "partitions_removed": dg.MetadataValue.int(purged.partitions),
        "runs_removed": dg.MetadataValue.int(purged.runs),
        "all_old_runs_removed": dg.MetadataValue.bool(purged.is_done),
    }
    totals: dict[str, int] = {}
    for store in done.stores:
        name = store.plan.store
        numbers = {"kept_bytes": store.plan.plan.kept_bytes if store.plan.plan else 0}
        numbers["hidden_bytes"] = store.plan.hidden.total_bytes
        numbers["damaged_copies"] = len(store.plan.damage)
        if store.removed is not None:
            numbers |= {"files_removed": len(store.removed.files), "freed_bytes": store.removed.freed_bytes}
            numbers["base_backups_removed"] = len(store.removed.base_backups)
            numbers["pieces_removed"] = store.removed.pieces
            numbers["lists_removed"] = store.removed.lists
        for what, number in numbers.items():
            totals[f"{name}_{what}"] = totals.get(f"{name}_{what}", 0) + number
    return found | {name: dg.MetadataValue.int(number) for name, number in totals.items()}


def _raise_problems(context: dg.OpExecutionContext, done: "Expiry") -> None:
    """Fail the run, after all other work, where a person must look at a problem."""
    from wal_pipeline.commands.expire.expire import CLOCK_HINT

    for store in done.stores:
        for warning in (*(store.plan.plan.warnings if store.plan.plan is not None else ()), *store.plan.notes):
            context.log.warning(warning)
    for note in done.notes:
        context.log.warning(note)
    problems = [f"{name} is left out: {message}" for name, message in done.silent.items()]
    problems += [problem for store in done.stores for problem in store.problems]
    hint = "" if done.doubt is None else f"\nHINT: {CLOCK_HINT}"
    if problems:
        raise dg.Failure(
            description=f"{len(problems)} problems, first: {problems[0]}{hint}",
            metadata={"problems": dg.MetadataValue.json(problems[:50])},
            allow_retries=False,
        )
