"""Plans from a survey which objects of one store stay and which expire, with hidden versions, remains and damage.

A plan counts only where nothing speaks against it: the proof goes over the store's own listing, and damage that a
verification has not settled yet holds everything back.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from wal_pipeline.archive.format.base_backup.manifest import is_backup_object
from wal_pipeline.archive.format.keys import MANIFEST_NAME, Layout
from wal_pipeline.archive.retention.pieces import PiecesOnStore, pieces_name
from wal_pipeline.archive.retention.plan import Kept, ObjectKind, RetentionPlan, Step, plan_retention
from wal_pipeline.archive.retention.proof import Listed, prove_plan
from wal_pipeline.archive.retention.rules import RetentionRule
from wal_pipeline.commands.expire.damage import Damage, told_damage
from wal_pipeline.commands.expire.evidence import backup_ids, part_of, read_remains, segment_sizes, told_remains
from wal_pipeline.commands.expire.pieces import piece_keys, read_tail_of
from wal_pipeline.commands.expire.relations import read_lists_of
from wal_pipeline.commands.inventory.listing import HiddenVersions
from wal_pipeline.commands.inventory.survey import ClusterSurvey
from wal_pipeline.errors import RetentionError

_KINDS: Final = {
    Step.WAL_FILE: ObjectKind.WAL_FILE,
    Step.PIECES: ObjectKind.PIECES,
    Step.RELATIONS: ObjectKind.RELATIONS,
}


@dataclass(frozen=True, slots=True)
class StorePlan:
    """The plan of one store and system identifier, and the keys that each step removes.

    ``refusal`` says why nothing may expire: ``plan`` is None then, or keeps everything because of ``damage``. ``keys``
    are by the step's name: a base backup's without its manifest. A file that is recorded and not stored any more has no
    keys: only its record goes. ``forget`` are base backups of which only the record is left. ``notes`` name what stays
    because nobody can judge it.
    """

    store: str
    layout: Layout
    plan: RetentionPlan | None
    refusal: str | None
    keys: Mapping[str, tuple[str, ...]]
    forget: tuple[str, ...]
    hidden: HiddenVersions
    damage: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def plan_store(
    survey: ClusterSurvey,
    store: str,
    rule: RetentionRule,
    now: datetime,
    *,
    locked: Collection[str] = (),
    damage: Sequence[Damage] = (),
) -> StorePlan:
    """Plan one store of a survey.

    ``locked`` are the base backups whose manifests it refused to remove. ``damage`` is what a verification must settle
    before anything goes.
    """
    keys, sizes, tail = _keys(survey, store), _sizes(survey, store), read_tail_of(survey, store)
    keys |= {pieces_name(segment): found for segment, found in piece_keys(survey, store).items()}
    lists, list_keys = read_lists_of(survey, store)
    keys |= list_keys
    remains = read_remains(survey, store, rule.starts_at(now))
    plan: RetentionPlan | None = None
    refusal: str | None = None
    hint: str | None = None
    forget: tuple[str, ...] = ()
    try:
        plan = plan_retention(
            survey.contents,
            store,
            now,
            rule,
            stored_bytes=sizes,
            locked=locked,
            remains=remains,
            tail=tail,
            lists=lists,
        )
        prove_plan(plan, replace(_listed(survey, store, rule.starts_at(now), tail), lists=frozenset(lists)))
    except RetentionError as error:
        plan, refusal, hint = None, error.message, error.hint
    going = frozenset(step.name for step in plan.expire) if plan is not None else frozenset()
    needed = [one for one in damage if one.store == store and one.name not in going]  # nobody needs those whole
    if plan is not None:
        refusal = told_damage(store, needed)
        plan = _without_absent(plan if refusal is None else _holding(plan), keys)
        forget = _gone_backups(plan, survey, store) if refusal is None else ()
    hidden = survey.listings[store].hidden
    notes = (*told_remains(survey, store, remains, going), *(() if hint is None else (f"{store}: {hint}",)))
    texts = tuple(one.reason for one in needed)
    return StorePlan(store, survey.layout, plan, refusal, keys, forget, hidden, texts, notes)


def _holding(plan: RetentionPlan) -> RetentionPlan:
    """Return a plan that keeps what it would remove."""
    held = tuple(
        Kept(
            step.name,
            _KINDS.get(step.step, ObjectKind.BASE_BACKUP),
            step.stored_bytes,
            f"held back by damage on this store; otherwise it could go: {step.reason}",
            step.pieces,
        )
        for step in plan.expire
        if step.step is not Step.BACKUP_MANIFEST
    )
    return replace(plan, keep=(*plan.keep, *held), expire=())


def _listed(survey: ClusterSurvey, store: str, begins_at: datetime, tail: PiecesOnStore) -> Listed:
    """Return what a store lists, name by name, for the proof."""
    held, listing = survey.contents.backups, survey.listings[store]
    whole = (
        manifest.record()
        for key, manifest in listing.manifests.items()
        if listing.is_whole(key) and (key not in held or store in held[key].stores)
    )
    mine = (one for one in whole if one.system_identifier == survey.layout.system_identifier)
    return Listed(
        backup_ids=frozenset(backup_ids(survey, store, begins_at)),
        whole={one.backup_id: one for one in mine},
        chains={key: one.chain for key, one in listing.manifests.items()},
        names=frozenset(listing.wal),
        files=survey.files,
        wal_segment_size=survey.contents.wal_segment_size,
        segment_sizes=frozenset(segment_sizes(survey)),
        histories=survey.contents.histories,
        pieces_at={segment: one.newest_at for segment, one in tail.segments.items()},
        proven=tail.proven,
    )


def _keys(survey: ClusterSurvey, store: str) -> dict[str, tuple[str, ...]]:
    """Return the keys of each file and base backup in order, hidden ones too, without those of manifests."""
    listing, layout = survey.listings[store], survey.layout
    keys = {name: tuple([item.key for item in objects]) for name, objects in listing.wal.items()}
    more = defaultdict[str, set[str]](set)
    for backup_id, objects in listing.base.items():
        named = {item.name for item in listing.manifests[backup_id].objects} if backup_id in listing.manifests else ()
        ours = (name for name in objects if name in named or is_backup_object(name))
        more[backup_id].update(objects[name].key for name in ours if name != MANIFEST_NAME)
    for key in listing.hidden.size_bytes:
        parsed = layout.parse_wal_key(key)
        name = parsed.file.name if parsed is not None else _backup_of(layout, key)
        if name is not None:
            more[name].add(key)
    return keys | {name: tuple(sorted(found.union(keys.get(name, ())))) for name, found in more.items()}


def _backup_of(layout: Layout, key: str) -> str | None:
    """Return the base backup of which a key is an object that we make, other than its manifest."""
    part = part_of(key)
    return layout.backup_id_of(key) if is_backup_object(part) and part != MANIFEST_NAME else None


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


def _gone_backups(plan: RetentionPlan, survey: ClusterSurvey, store: str) -> tuple[str, ...]:
    """Return the base backups that are recorded, have no object here and are older than all that is kept.

    A crash between a manifest's removal and its record's leaves such a record.
    """
    kept = (one.name for one in plan.keep if one.kind is ObjectKind.BASE_BACKUP)
    oldest = min(kept, default="")  # an id begins with the time of its start
    there = survey.listings[store].base
    return tuple(
        sorted(key for held, key in survey.records.backups if held == store and key not in there and key < oldest)
    )
