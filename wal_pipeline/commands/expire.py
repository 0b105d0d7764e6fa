"""Expire what the recovery window no longer needs: planned from the stores themselves, each store for itself.

What goes is decided in archive/retention.py. A base backup's manifest goes first, so that a crash never leaves a base
backup that looks restorable and is not. What a crash leaves behind is removed by the next run: objects without a
manifest by ``remove_unfinished``, records of what is gone by the plan, which judges recorded files too.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from wal_pipeline.archive.alerts import AlertKind, Observation
from wal_pipeline.archive.retention_rules import RetentionRule
from wal_pipeline.catalog.area import many_objects
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.commands.audit import AuditLog
from wal_pipeline.commands.base_backup_cleanup import RemovedUnfinished, remove_unfinished
from wal_pipeline.commands.expire_alerts import settle_seen
from wal_pipeline.commands.expire_clock import CLOCK_HINT, clock_doubt
from wal_pipeline.commands.expire_plan import StorePlan, plan_store
from wal_pipeline.commands.expire_steps import Removed, StepRunner
from wal_pipeline.commands.expire_survey import ClusterSurvey, Survey, Surveyor
from wal_pipeline.errors import StoreError
from wal_pipeline.stores.base import Store

UNFINISHED_AFTER: Final = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class StoreExpiry:
    """One store and system identifier: its plan, and what was removed (None: only planned)."""

    plan: StorePlan
    removed: Removed | None = None
    unfinished: RemovedUnfinished | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        """What a person has to look at."""
        found = [self.plan.refusal]
        if self.removed is not None:
            found += [self.removed.error, *self.removed.locked]
        return tuple(text for text in found if text is not None)


@dataclass(frozen=True, slots=True)
class Expiry:
    """One expiry of all stores. ``silent``: why a store was left out. ``notes``: what could not be read.

    ``doubt``: why this host's clock may be wrong; nothing was removed then.
    """

    planned_at: datetime
    rule: RetentionRule
    stores: tuple[StoreExpiry, ...]
    silent: Mapping[str, str]
    notes: tuple[str, ...]
    confirmed: bool
    doubt: str | None = None

    @property
    def is_complete(self) -> bool:
        """Whether every store answered and let go all that its plan lets go."""
        return not self.silent and not any(store.problems for store in self.stores)


class Expirer:
    """Plans and does the expiry of one cluster's archive on every store."""

    def __init__(
        self,
        stores: Mapping[str, Store],
        catalog: Catalog,
        surveyor: Surveyor,
        audit: AuditLog,
        *,
        rule: RetentionRule,
        clock: Callable[[], datetime],
        concurrency: int,
    ) -> None:
        """``concurrency`` is how many files of a store are removed at once."""
        self._stores = stores
        self._catalog = catalog
        self._surveyor = surveyor
        self._audit = audit
        self._rule = rule
        self._clock = clock
        self._concurrency = concurrency

    def plan(self) -> Expiry:
        """Say what every store would keep and lose now; nothing is changed. Raises: CatalogError."""
        return self._each(self._planned, confirmed=False)

    def expire(self, *, trust_clock: bool = False) -> Expiry:
        """Plan, and do it. A store that fails holds back no other one.

        Nothing is removed where the clock may be wrong, unless a person said that it is right: ``trust_clock``.

        Raises: CatalogError.
        """
        done = self._each(self._expired, confirmed=True, trust_clock=trust_clock)
        settle_seen(
            self._catalog, AlertKind.RETENTION_FAILED, _observations(done), self._clock(), silent=done.silent.keys()
        )
        return done

    def _each(
        self,
        deal: Callable[[ClusterSurvey, str, datetime], StoreExpiry],
        *,
        confirmed: bool,
        trust_clock: bool = True,
    ) -> Expiry:
        now = self._clock()
        survey: Survey = self._surveyor.survey()
        doubt = None if trust_clock else clock_doubt(survey, self._rule, now)
        deal = deal if doubt is None else partial(_refused, doubt)
        stores = tuple(deal(cluster, name, now) for cluster in survey.clusters for name in cluster.listings)
        notes = tuple(note for cluster in survey.clusters for note in cluster.notes)
        return Expiry(now, self._rule, stores, survey.silent, notes, confirmed, doubt)

    def _planned(self, cluster: ClusterSurvey, store: str, now: datetime) -> StoreExpiry:
        with many_objects():
            return StoreExpiry(plan_store(cluster, store, self._rule, now))

    def _expired(self, cluster: ClusterSurvey, store: str, now: datetime) -> StoreExpiry:
        planned = self._planned(cluster, store, now)
        replan = partial(self._replanned, cluster, store, now)
        runner = StepRunner(self._stores[store], self._catalog, self._audit, self._concurrency)
        plan, removed = runner.run(planned.plan, replan)
        return StoreExpiry(plan, removed, self._remove_unfinished(cluster, store, now))

    def _replanned(self, cluster: ClusterSurvey, store: str, now: datetime, locked: frozenset[str]) -> StorePlan:
        return plan_store(cluster, store, self._rule, now, locked=locked)

    def _remove_unfinished(self, cluster: ClusterSurvey, store: str, now: datetime) -> RemovedUnfinished | None:
        try:
            return remove_unfinished(self._stores[store], cluster.layout, now=now, older_than=UNFINISHED_AFTER)
        except StoreError:
            return None  # the next run removes it; a store that is down is told of elsewhere


def _refused(doubt: str, cluster: ClusterSurvey, store: str, _now: datetime) -> StoreExpiry:
    hidden = cluster.listings[store].hidden
    return StoreExpiry(StorePlan(store, cluster.layout, plan=None, refusal=doubt, keys={}, forget=(), hidden=hidden))


def _observations(done: Expiry) -> list[Observation]:
    found = []
    for store in done.stores:
        if store.problems:
            subject = f"{store.plan.store}/{store.plan.layout.system_identifier}"
            message = store.problems[0] + ("" if done.doubt is None else f"; {CLOCK_HINT[0].lower()}{CLOCK_HINT[1:-1]}")
            found.append(Observation(subject, message, details={"problems": list(store.problems[:20])}))
    return found
