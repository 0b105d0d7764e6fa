"""Finds the causes of alerts about the newest base backup in the facts. Pure."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from wal_pipeline.archive.alerts import Observation
from wal_pipeline.archive.records import BaseBackup
from wal_pipeline.commands.alerts.base_backups import (
    failure_observations,
    lasting_waits,
    page_observations,
    warning_observations,
)
from wal_pipeline.commands.health.facts import HealthFacts
from wal_pipeline.commands.health.windows import newest_finished_at, newest_id

_RESTORABLE_WITHIN: Final = timedelta(hours=1)


def base_backup_failed(facts: HealthFacts) -> list[Observation]:
    """Judge the last try and the newest base backup: a later one that succeeded makes an earlier failure moot."""
    failed = failure_observations(facts.backup_failure)
    newest = newest_id({copy.backup_id for store in facts.stores for copy in store.base_backups}, facts.at)
    if newest is None:
        return failed
    finished_at = newest_finished_at([one for one in facts.windows.backups if one.backup_id == newest], facts.at)
    if finished_at is not None and facts.at - finished_at < _RESTORABLE_WITHIN:
        return failed
    return [*failed, *_failed_backups(facts, newest)]


def pages_damaged(facts: HealthFacts) -> list[Observation]:
    """Judge the newest base backup: a later one without damage makes the damage in earlier ones moot."""
    return page_observations(_newest_backup(facts))


def base_backup_warning(facts: HealthFacts) -> list[Observation]:
    """Return the warnings of the newest base backup alone."""
    return warning_observations(_newest_backup(facts))


def base_backup_waiting(facts: HealthFacts) -> list[Observation]:
    """Return the waits that a running base backup told lately."""
    return lasting_waits(facts.alerts, facts.at)


def _failed_backups(facts: HealthFacts, newest: str) -> Iterator[Observation]:
    for store in facts.stores:
        copy = next((one for one in store.base_backups if one.backup_id == newest), None)
        if copy is None:
            yield Observation(store.store, f"base backup '{newest}' is not there")
        elif copy.restorable_at is None:
            reason = f": {copy.last_error}" if copy.last_error else ""
            yield Observation(store.store, f"base backup '{newest}' cannot be restored from there{reason}")


def _newest_backup(facts: HealthFacts) -> BaseBackup | None:
    newest = newest_id({one.backup_id for one in facts.windows.backups}, facts.at)
    return next((one for one in facts.windows.backups if one.backup_id == newest), None)
