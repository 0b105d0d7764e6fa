"""Expire what the recovery window no longer needs: planned from the stores themselves, each store for itself.

What goes is decided in archive/retention. A store with damage that no verification has settled expires nothing. A base
backup's manifest goes first, so that a crash never leaves a base backup that looks restorable and is not. What a crash
leaves behind is removed by the next run: objects without a manifest by the plan, and those of a base backup that never
was whole by ``remove_unfinished``; records of what is gone by the plan, which judges recorded files too.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from wal_pipeline.archive.alerts import AlertKind, Observation
from wal_pipeline.archive.format.keys import MANIFEST_NAME
from wal_pipeline.archive.retention.plan import ObjectKind
from wal_pipeline.archive.retention.rules import RetentionRule
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.commands.alerts.settle import settle_seen
from wal_pipeline.commands.audit import AuditLog
from wal_pipeline.commands.backup.leftovers import RemovedUnfinished, remove_unfinished
from wal_pipeline.commands.expire.damage import FindDamage, Unsettled, told_verification
from wal_pipeline.commands.expire.plan import StorePlan, plan_store
from wal_pipeline.commands.expire.steps import Removed, StepRunner
from wal_pipeline.commands.inventory.leases import needed_backups, possible_leases
from wal_pipeline.commands.inventory.survey import ClusterSurvey, Survey, Surveyor
from wal_pipeline.errors import StoreError
from wal_pipeline.host.gc_pause import many_objects
from wal_pipeline.stores.base import Store
from wal_pipeline.stores.cluster_store import ClusterStore

UNFINISHED_AFTER: Final = timedelta(days=2)
_NEVER: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class StoreExpiry:
    """One store and system identifier: its plan, and what was removed (None: only planned)."""

    plan: StorePlan
    removed: Removed | None = None
    unfinished: RemovedUnfinished | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        """The problems that a person must look at."""
        found = [self.plan.refusal, *self.plan.damage]
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
        """Whether every store answered and removed all that its plan expires."""
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
        find_damage: FindDamage,
    ) -> None:
        """``concurrency`` is how many files of a store are removed at once."""
        self._stores = stores
        self._catalog = catalog
        self._surveyor = surveyor
        self._audit = audit
        self._rule = rule
        self._clock = clock
        self._concurrency = concurrency
        self._find_damage = find_damage

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
        deal: Callable[["_Judged", str, datetime], StoreExpiry],
        *,
        confirmed: bool,
        trust_clock: bool = True,
    ) -> Expiry:
        now = self._clock()
        survey: Survey = self._surveyor.survey()
        doubt = None if trust_clock else clock_doubt(survey, self._rule, now)
        deal = deal if doubt is None else partial(_refused, doubt)
        with many_objects():
            clusters = [
                _Judged(cluster, self._find_damage(cluster, now), _every_store_told(survey, cluster))
                for cluster in survey.clusters
            ]
        stores = tuple(deal(cluster, name, now) for cluster in clusters for name in cluster.survey.listings)
        notes = [note for cluster in survey.clusters for note in cluster.notes]
        verified_at = min((one.unsettled.verified_at or _NEVER for one in clusters), default=now)
        late = told_verification(None if verified_at == _NEVER else verified_at, now)
        notes += [] if late is None else [late]
        return Expiry(now, self._rule, stores, survey.silent, tuple(notes), confirmed, doubt)

    def _planned(self, cluster: "_Judged", store: str, now: datetime) -> StoreExpiry:
        with many_objects():
            return StoreExpiry(self._replanned(cluster, store, now, frozenset()))

    def _expired(self, cluster: "_Judged", store: str, now: datetime) -> StoreExpiry:
        planned = self._planned(cluster, store, now)
        if planned.plan.refusal is not None:
            return StoreExpiry(planned.plan, Removed())
        replan = partial(self._replanned, cluster, store, now)
        runner = StepRunner(self._stores[store], self._catalog, self._audit, self._concurrency)
        plan, removed = runner.run(planned.plan, replan)
        return StoreExpiry(plan, removed, self._remove_unfinished(cluster, store, now))

    def _replanned(self, cluster: "_Judged", store: str, now: datetime, locked: frozenset[str]) -> StorePlan:
        damage, leased = cluster.unsettled.damage, self._leased(cluster.survey, store)
        return plan_store(cluster.survey, store, self._rule, now, locked=locked | leased, damage=damage)

    def _leased(self, cluster: ClusterSurvey, store: str) -> frozenset[str]:
        """Return the base backups that a process may be storing on the store, or building on."""
        try:
            return needed_backups(possible_leases(ClusterStore(self._stores[store], cluster.layout)))
        except StoreError:  # nothing is removed from a store that does not answer
            return frozenset(cluster.listings[store].base)

    def _remove_unfinished(self, cluster: "_Judged", store: str, now: datetime) -> RemovedUnfinished | None:
        known = _known_backups(cluster.survey)
        target = ClusterStore(self._stores[store], cluster.survey.layout)
        try:
            return remove_unfinished(
                target, now=now, older_than=UNFINISHED_AFTER, keep=known, keeps_all_known=cluster.every_store_told
            )
        except StoreError:
            return None  # the next run removes it; a store that is down has an alert of its own


@dataclass(frozen=True, slots=True)
class _Judged:
    """A survey of one system identifier, and the damage that holds its stores back.

    ``every_store_told``: no store was silent, nor about the versions that it hides.
    """

    survey: ClusterSurvey
    unsettled: Unsettled
    every_store_told: bool


def _every_store_told(survey: Survey, cluster: ClusterSurvey) -> bool:
    return not survey.silent and all(one.hidden.error is None for one in cluster.listings.values())


def _known_backups(cluster: ClusterSurvey) -> frozenset[str]:
    """Return the base backups that were whole once as far as anything says: no leftovers, whatever lacks now."""
    layout, listings = cluster.layout, cluster.listings.values()
    hidden = (layout.backup_id_of(key) for one in listings for key in one.hidden.size_bytes if _is_manifest(key))
    finished = (key for one in listings for key in one.finished)
    return frozenset(cluster.records.base_backups).union(finished, (key for key in hidden if key is not None))


def _is_manifest(key: str) -> bool:
    return key.endswith(f"/{MANIFEST_NAME}")


def _refused(doubt: str, cluster: _Judged, store: str, _now: datetime) -> StoreExpiry:
    layout, hidden = cluster.survey.layout, cluster.survey.listings[store].hidden
    return StoreExpiry(StorePlan(store, layout, plan=None, refusal=doubt, keys={}, forget=(), hidden=hidden))


def _observations(done: Expiry) -> list[Observation]:
    found = []
    for store in done.stores:
        if store.problems:
            subject = f"{store.plan.store}/{store.plan.layout.system_identifier}"
            message = store.problems[0] + ("" if done.doubt is None else f"; {CLOCK_HINT[0].lower()}{CLOCK_HINT[1:-1]}")
            found.append(Observation(subject, message, details={"problems": list(store.problems[:20])}))
    return found


CLOCK_HINT = (
    "Set this host's clock right; if it is right and nothing was archived for so long, "
    "'wal-pipeline expire --confirm --trust-clock' goes on."
)


def clock_doubt(survey: Survey, rule: RetentionRule, now: datetime) -> str | None:
    """Say why the clock may be wrong: the newest thing in the whole archive is older than the window.

    Times later than ``now`` prove nothing: a clock was wrong then, or is now.
    """
    clusters, listings = survey.clusters, [one for cluster in survey.clusters for one in cluster.listings.values()]
    files = (file.spooled_at for cluster in clusters for file in cluster.files.values())
    backups = (manifest.finished_at for one in listings for manifest in one.manifests.values())
    pieces = (item.modified_at for one in listings for items in one.pieces.values() for item in items)
    newest_at = max((at for times in (files, backups, pieces) for at in times if at <= now), default=None)
    if newest_at is None or newest_at >= rule.starts_at(now):
        return None
    return (
        f"nothing expires: it is {now:%Y-%m-%d %H:%M}Z by this host's clock, and the newest file of the whole archive "
        f"is from {newest_at:%Y-%m-%d %H:%M}Z, before the window of {rule.window.days} days began"
    )


@dataclass(frozen=True, slots=True)
class HeldNames:
    """Names of files and ids of base backups that are not gone everywhere."""

    files: frozenset[str]
    base_backups: frozenset[str]


def held_names(done: Expiry, catalog: Catalog, waiting: Callable[[], frozenset[str]]) -> HeldNames:
    """Return what is held after an expiry in which every store answered.

    ``waiting`` lists the spool. It is asked before the catalog: a file that leaves the spool in between is recorded by
    then. Raises: CatalogError, SpoolError.
    """
    files, base_backups = set(waiting()), set[str]()
    for store in done.stores:
        files |= _kept(store.plan, ObjectKind.WAL_FILE)
        base_backups |= _kept(store.plan, ObjectKind.BASE_BACKUP)
    files.update(file.name for file in catalog.files.files())
    base_backups.update(backup.backup_id for backup in catalog.base_backups.all())
    return HeldNames(frozenset(files), frozenset(base_backups))


def _kept(plan: StorePlan, kind: ObjectKind) -> set[str]:
    if plan.plan is None:
        return set(plan.keys)
    return {one.name for one in plan.plan.keep if one.kind is kind}
