"""Defines the spool as an external asset, and what the UI shows of it each minute."""

from typing import TYPE_CHECKING

import dagster as dg

from wal_pipeline.orchestration.keys import AssetGroup, Keys
from wal_pipeline.text import counted, length, size

if TYPE_CHECKING:
    from wal_pipeline.commands.health.facts import HealthFacts
    from wal_pipeline.commands.health.rules import HealthLimits

_MIB = 2**20


def build_spool_asset(keys: Keys) -> dg.AssetSpec:
    """Return the spool as an external asset, because PostgreSQL fills it and not Dagster."""
    return dg.AssetSpec(
        keys.spool,
        group_name=keys.group(AssetGroup.WAL),
        kinds={"postgres", "file"},
        description=f"{keys.title('spool')}. The local folder into which PostgreSQL archives finished WAL. A file "
        "leaves it only when every store has a verified copy. The health sensor looks at it each minute.",
    )


def spool_materialization(keys: Keys, facts: "HealthFacts", limits: "HealthLimits") -> dg.AssetMaterialization:
    """Return one look at the spool: the sentence first, then the figures, of which the UI plots the numbers.

    A materialization, because the UI calls an external asset without one "never materialized".
    """
    from wal_pipeline.commands.status.status import FAILED, LAG, SUCCESS_RATE, judge

    status = judge(facts, limits)
    found: dict[str, dg.MetadataValue] = {"answer": dg.MetadataValue.text(spool_sentence(facts, limits))}
    numbers: dict[str, float | None] = {
        "lag_seconds": status.metric(LAG).value,
        "success_rate": status.metric(SUCCESS_RATE).value,
        "failed_archives": status.metric(FAILED).value,
    }
    if facts.spool is not None and facts.spool.error is None:
        numbers |= {"waiting_files": facts.spool.files, "waiting_mib": facts.spool.size_bytes / _MIB}
        numbers["quarantined_files"] = len(facts.spool.quarantined)
    if facts.disks:
        numbers["disk_free_mib"] = round(facts.disks[0].free_bytes / _MIB)
    found |= {name: _number(value) for name, value in numbers.items() if value is not None}
    if facts.server.facts is not None:
        archiver = facts.server.facts.archiver
        found["pg_stat_archiver"] = dg.MetadataValue.text(
            f"{archiver.archived_count} archived, {archiver.failed_count} failed, {archiver.ready_count} ready"
        )
    for store in facts.stores:
        failures = store.state.consecutive_failures
        said = f"{counted(failures, 'failure')} in a row: {store.state.last_error}" if failures else "takes copies"
        found[store.store] = dg.MetadataValue.text(said)
    return dg.AssetMaterialization(keys.spool, metadata=found)


def spool_sentence(facts: "HealthFacts", limits: "HealthLimits") -> str:
    """Say how much waits in the spool, and for how long."""
    spool = facts.spool
    if spool is None:
        return "the spool was not looked at: PG_WAL_ARCHIVE_DIR is not set"
    if spool.error is not None:
        return f"the spool was not looked at: {spool.error}"
    quarantined = f"; {counted(len(spool.quarantined), 'file')} in quarantine" if spool.quarantined else ""
    if not spool.files:
        return f"nothing waits in the spool: each archived file is on every store{quarantined}"
    waits = "" if spool.oldest_at is None else f", the oldest for {length(facts.at - spool.oldest_at)}"
    room = f"{size(spool.size_bytes)} of {size(limits.spool_limit_bytes)}"
    return f"{counted(spool.files, 'file')} in the spool ({room}){waits}{quarantined}"


def _number(value: float) -> dg.MetadataValue:
    return dg.MetadataValue.int(value) if isinstance(value, int) else dg.MetadataValue.float(round(float(value), 3))
