"""Plans from a survey which objects of one store stay and which expire, with hidden versions and leftovers."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.retention.plan import Expired, ObjectKind, RetentionPlan, Step, plan_retention
from wal_pipeline.archive.retention.rules import RetentionRule
from wal_pipeline.commands.inventory.listing import HiddenVersions
from wal_pipeline.commands.inventory.survey import ClusterSurvey
from wal_pipeline.errors import RetentionError


@dataclass(frozen=True, slots=True)
class StorePlan:
    """The plan of one store and system identifier, and the keys that each step removes.

    ``plan`` is None where nothing may expire; ``refusal`` says why. ``keys`` are by the step's name: a base backup's
    without its manifest. A file that is recorded and not stored any more has no keys: only its record goes. ``forget``
    are base backups of which only the record is left.
    """

    store: str
    layout: Layout
    plan: RetentionPlan | None
    refusal: str | None
    keys: Mapping[str, tuple[str, ...]]
    forget: tuple[str, ...]
    hidden: HiddenVersions


def plan_store(
    survey: ClusterSurvey,
    store: str,
    rule: RetentionRule,
    now: datetime,
    *,
    locked: Collection[str] = (),
) -> StorePlan:
    """Plan one store of a survey; ``locked`` are the base backups whose manifests it refused to remove."""
    keys, sizes = _keys(survey, store), _sizes(survey, store)
    plan: RetentionPlan | None = None
    refusal: str | None = None
    forget: tuple[str, ...] = ()
    try:
        plan = plan_retention(survey.contents, store, now, rule, stored_bytes=sizes, locked=locked)
    except RetentionError as error:
        refusal = error.message
    else:
        plan = _without_absent(_with_broken_backups(plan, survey, store), keys)
        forget = _gone_backups(plan, survey, store)
    return StorePlan(store, survey.layout, plan, refusal, keys, forget, survey.listings[store].hidden)


def _keys(survey: ClusterSurvey, store: str) -> dict[str, tuple[str, ...]]:
    """Return the keys of each file and base backup in order, hidden ones too, without those of manifests."""
    listing, layout = survey.listings[store], survey.layout
    keys = {name: tuple([item.key for item in objects]) for name, objects in listing.wal.items()}
    more = defaultdict[str, set[str]](set)
    for backup_id, objects in listing.base.items():
        more[backup_id].update(item.key for item in objects.values())
    for key in listing.hidden.size_bytes:
        parsed = layout.parse_wal_key(key)
        name = parsed.file.name if parsed is not None else layout.backup_id_of(key)
        if name is not None:
            more[name].add(key)
    manifests = {layout.manifest_key(backup_id) for backup_id in listing.manifests}
    return keys | {name: tuple(sorted(found.union(keys.get(name, ())) - manifests)) for name, found in more.items()}


def _sizes(survey: ClusterSurvey, store: str) -> dict[str, int]:
    """Return the stored bytes of each file, hidden ones too.

    A file that is only recorded has no bytes: where it may go, its record goes.
    """
    listing = survey.listings[store]
    sizes = dict.fromkeys(survey.records.copies.get(store, {}), 0)
    sizes |= {name: sum([item.size_bytes for item in objects]) for name, objects in listing.wal.items()}
    for key, size_bytes in listing.hidden.size_bytes.items():
        parsed = survey.layout.parse_wal_key(key)
        if parsed is not None:
            sizes[parsed.file.name] = sizes.get(parsed.file.name, 0) + size_bytes
    return sizes


def _without_absent(plan: RetentionPlan, keys: Mapping[str, Collection[str]]) -> RetentionPlan:
    """Leave out what only the catalog has and should be there: verification says so."""
    kept = tuple(one for one in plan.keep if one.kind is ObjectKind.BASE_BACKUP or keys.get(one.name))
    return replace(plan, keep=kept)


def _with_broken_backups(plan: RetentionPlan, survey: ClusterSurvey, store: str) -> RetentionPlan:
    """Add the base backups that are not whole here and finished before every one that is kept: nobody heals them."""
    manifests = survey.listings[store].manifests
    kept = _kept_backups(plan)
    if not kept:
        return plan
    settled = {one.name for one in plan.expire}.union(kept, *(manifests[key].chain for key in kept))
    before_at = min(plan.window_starts_at, *(manifests[key].started_at for key in kept))
    broken = [one for key, one in manifests.items() if key not in settled and one.finished_at < before_at]
    reason = "not whole on this store, and older than every base backup that is kept"
    steps = [
        Expired(one.backup_id, step, size_bytes, reason)
        for one in sorted(broken, key=lambda one: (-len(one.chain), one.backup_id))
        for step, size_bytes in ((Step.BACKUP_MANIFEST, 0), (Step.BACKUP_OBJECTS, one.stored_size_bytes))
    ]
    return replace(plan, expire=(*steps, *plan.expire))


def _gone_backups(plan: RetentionPlan, survey: ClusterSurvey, store: str) -> tuple[str, ...]:
    """Return the base backups that are recorded, have no manifest here and are older than all that is kept.

    A crash between a manifest's removal and its record's leaves such a record.
    """
    oldest = min(_kept_backups(plan), default="")  # an id begins with the time of its start
    there = survey.listings[store].manifests
    return tuple(
        sorted(key for held, key in survey.records.backups if held == store and key not in there and key < oldest)
    )


def _kept_backups(plan: RetentionPlan) -> set[str]:
    return {one.name for one in plan.keep if one.kind is ObjectKind.BASE_BACKUP}
