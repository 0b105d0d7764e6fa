"""Plans the retention of one store: which objects stay and why, which expire and in which order."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from wal_pipeline.archive.recovery.coverage import ArchiveContents, Coverage, chain_of
from wal_pipeline.archive.retention.pieces import PiecesOnStore, judge_pieces, pieces_name
from wal_pipeline.archive.retention.relations import HeldList, judge_lists, list_name
from wal_pipeline.archive.retention.remains import BrokenBackup, Remains
from wal_pipeline.archive.retention.rules import RetentionRule, Selection, restorable_ids
from wal_pipeline.archive.retention.wal import NOT_OURS, Keep, WalKeeper
from wal_pipeline.errors import RetentionError
from wal_pipeline.wal.names import parse_file_name

_CLOCK_TOLERANCE: Final = timedelta(hours=1)


class ObjectKind(StrEnum):
    """The kind of an object that stays."""

    BASE_BACKUP = "base_backup"
    WAL_FILE = "wal_file"
    PIECES = "pieces"
    RELATIONS = "relations"


class Step(StrEnum):
    """The objects that one step of the expiry removes."""

    BACKUP_MANIFEST = "backup_manifest"  # from here on the base backup does not exist
    BACKUP_OBJECTS = "backup_objects"  # all its other objects
    PIECES = "pieces"
    RELATIONS = "relations"
    WAL_FILE = "wal_file"


@dataclass(frozen=True, slots=True)
class Kept:
    """A base backup (its id), a file (its name), a segment's pieces or a list of relations that stay, and why.

    ``pieces_name`` and ``list_name`` make the names of the last two.

    ``pieces`` is the number of pieces.
    """

    name: str
    kind: ObjectKind
    stored_bytes: int
    reason: str
    pieces: int = 0


@dataclass(frozen=True, slots=True)
class Expired:
    """One step of the expiry: a base backup's id, or the name of anything else, and why it expires.

    A base backup's bytes are counted with its objects, not with its manifest. ``pieces`` is the number of pieces.
    """

    name: str
    step: Step
    stored_bytes: int
    reason: str
    pieces: int = 0


@dataclass(frozen=True, slots=True)
class RetentionPlan:
    """The objects that one store keeps, and the steps by which others expire.

    Do the steps of ``expire`` in their order. Do none after a manifest that could not be removed, but plan again with
    its id among ``locked``. After a crash between two steps every base backup that has a manifest can be restored.
    """

    store: str
    planned_at: datetime
    window_starts_at: datetime
    keep: tuple[Kept, ...]
    expire: tuple[Expired, ...]
    warnings: tuple[str, ...]

    @property
    def kept_bytes(self) -> int:
        """The bytes that stay."""
        return sum(entry.stored_bytes for entry in self.keep)

    @property
    def freed_bytes(self) -> int:
        """The bytes that the steps free."""
        return sum(step.stored_bytes for step in self.expire)


def plan_retention(
    contents: ArchiveContents,
    store: str,
    now: datetime,
    rule: RetentionRule | None = None,
    *,
    stored_bytes: Mapping[str, int] | None = None,
    locked: Collection[str] = (),
    remains: Remains | None = None,
    tail: PiecesOnStore | None = None,
    lists: Mapping[str, HeldList] | None = None,
) -> RetentionPlan:
    """Plan which objects ``store`` keeps at ``now`` and which expire.

    ``stored_bytes`` is the size of each object of the WAL archive on this store by file name, including copies that are
    not verified; by default the verified ones, with the files' own sizes. ``locked`` are ids of base backups that
    the store refused to remove. ``remains`` is what the store has that ``contents`` leaves out. ``tail`` are the pieces
    that it has, ``lists`` its lists of relations by their moments.

    Raises: RetentionError where the store would be left without a restorable base backup, or already is.
    """
    rule, remains, tail = rule or RetentionRule(), remains or Remains(), tail or PiecesOnStore()
    sizes = _sizes(contents, store) if stored_bytes is None else stored_bytes
    held = sorted(key for key, one in contents.backups.items() if store in one.stores)
    alone = Coverage.of(contents, [store])
    there = len(held) + sum(not one.is_unfinished for one in remains.broken)
    if there and not restorable_ids(alone):
        raise RetentionError(
            f"{store}: none of {there} base backups is restorable, so nothing expires",
            hint="Refill the WAL that they need ('wal-pipeline verify --repair'), or take a new base backup.",
        )
    names = sizes.keys() | tail.pieces_at.keys()  # of a segment with pieces the store may get the whole one tomorrow
    selection = Selection.of(
        alone, store, rule, now, names=names, locked=locked, remains=remains, pieces_at=tail.pieces_at
    )
    keeper = WalKeeper.of(alone, store, selection, rule.starts_at(now), remains)
    kept_wal, expired_wal = _sort_wal(sizes, keeper)
    kept_pieces, expired_pieces = _sort_pieces(tail, keeper)
    kept_backups = (*_kept_backups(contents, held, selection), *_kept_remains(selection, remains))
    ids = [one.name for one in kept_backups]
    kept_lists, expired_lists = _sort_lists(lists or {}, judge_lists(lists or {}, ids, rule.starts_at(now), now))
    plan = RetentionPlan(
        store=store,
        planned_at=now,
        window_starts_at=rule.starts_at(now),
        keep=(*kept_backups, *kept_wal, *kept_pieces, *kept_lists),
        expire=(
            *_expired_broken(selection.obsolete),
            *_expired_backups(contents, held, selection, rule.starts_at(now)),
            *expired_pieces,
            *expired_lists,
            *expired_wal,
        ),
        warnings=tuple(_warnings(contents, store, keeper, rule, now)),
    )
    _check(alone, plan, selection)
    return plan


def _sizes(contents: ArchiveContents, store: str) -> dict[str, int]:
    files = contents.files
    return {name: files[name].size_bytes if name in files else 0 for name in contents.copies.get(store, ())}


def _kept_backups(contents: ArchiveContents, held: list[str], selection: Selection) -> list[Kept]:
    return [
        Kept(key, ObjectKind.BASE_BACKUP, contents.backups[key].backup.stored_size_bytes, selection.reasons[key])
        for key in held
        if key in selection.reasons
    ]


def _expired_backups(
    contents: ArchiveContents, held: list[str], selection: Selection, begins_at: datetime
) -> list[Expired]:
    expiring = [contents.backups[key].backup for key in held if key not in selection.reasons]
    depth = {backup.backup_id: len(chain_of(contents, backup) or (backup,)) for backup in expiring}
    steps = []
    for backup in sorted(expiring, key=lambda one: (-depth[one.backup_id], one.backup_id)):
        reason = (
            f"finished before the window began at {begins_at.isoformat()}, and no moment in it needs this base backup"
        )
        steps.append(Expired(backup.backup_id, Step.BACKUP_MANIFEST, 0, reason))
        steps.append(Expired(backup.backup_id, Step.BACKUP_OBJECTS, backup.stored_size_bytes, reason))
    return steps


def _kept_remains(selection: Selection, remains: Remains) -> list[Kept]:
    """Return the base backups that stay because they are not whole, are not understood or cannot be compared."""
    word = "not whole, and what it could need stays"
    found = [(one.backup_id, one.stored_bytes, f"{word}: {one.fault}") for one in selection.broken]
    found += [(key, one.stored_bytes, one.reason) for key, one in remains.backups.items()]
    return [Kept(key, ObjectKind.BASE_BACKUP, size_bytes, reason) for key, size_bytes, reason in found]


def _expired_broken(obsolete: tuple[BrokenBackup, ...]) -> list[Expired]:
    reason = "not whole on this store, and even if it were, no moment in the window would need it"
    return [
        Expired(one.backup_id, step, size_bytes, reason)
        for one in sorted(obsolete, key=lambda one: (-len(one.chain or ()), one.backup_id))
        for step, size_bytes in ((Step.BACKUP_MANIFEST, 0), (Step.BACKUP_OBJECTS, one.stored_bytes))
    ]


def _sort_wal(sizes: Mapping[str, int], keeper: WalKeeper) -> tuple[list[Kept], list[Expired]]:
    kept: list[Kept] = []
    tails: list[tuple[tuple[int, int, str], Expired]] = []
    heads: list[tuple[tuple[int, int, str], Expired]] = []
    for name in sorted(sizes):
        file = parse_file_name(name)
        verdict = keeper.judge(file) if file is not None else NOT_OURS
        if verdict.kept or file is None:
            kept.append(Kept(name, ObjectKind.WAL_FILE, sizes[name], verdict.reason))
        else:
            order = (keeper.number(file), file.timeline, name)
            step = Expired(name, Step.WAL_FILE, sizes[name], verdict.reason)
            (tails if verdict.is_tail else heads).append((order, step))
    # on an abandoned branch the newest first, before the oldest base backup the oldest first: a crash leaves no hole
    tails.sort(reverse=True, key=lambda one: one[0])
    heads.sort(key=lambda one: one[0])
    return kept, [step for _, step in (*tails, *heads)]


def _sort_pieces(tail: PiecesOnStore, keeper: WalKeeper) -> tuple[list[Kept], list[Expired]]:
    kept: list[Kept] = []
    expired: list[Expired] = []
    for segment, held in sorted(tail.segments.items(), reverse=True):  # the newest first: a crash leaves no hole
        found, name = judge_pieces(segment, tail, keeper), pieces_name(segment)
        if found.kept:
            kept.insert(0, Kept(name, ObjectKind.PIECES, held.stored_bytes, found.reason, held.objects))
        else:
            expired.append(Expired(name, Step.PIECES, held.stored_bytes, found.reason, held.objects))
    return kept, expired


def _sort_lists(lists: Mapping[str, HeldList], verdicts: Mapping[str, Keep]) -> tuple[list[Kept], list[Expired]]:
    kept: list[Kept] = []
    expired: list[Expired] = []
    for moment, held in sorted(lists.items()):
        found, name = verdicts[moment], list_name(moment)
        if found.kept:
            kept.append(Kept(name, ObjectKind.RELATIONS, held.stored_bytes, found.reason))
        else:
            expired.append(Expired(name, Step.RELATIONS, held.stored_bytes, found.reason))
    return kept, expired


def _warnings(
    contents: ArchiveContents, store: str, keeper: WalKeeper, rule: RetentionRule, now: datetime
) -> list[str]:
    warnings = []
    if keeper.by_age:
        warnings.append(f"{store}: has no base backup, so no recovery from it is possible; files expire by their age")
    warnings += [
        f"{store}: all WAL of timeline {timeline} stays, because its history is not known"
        for timeline in sorted(keeper.undescribed)
    ]
    latest_at = now + _CLOCK_TOLERANCE
    ahead = [key for key, one in contents.backups.items() if one.backup.finished_at > latest_at]
    warnings += [f"base backup '{key}' finished in the future: a clock was wrong" for key in ahead]
    spooled = [file.spooled_at for file in contents.files.values()]
    if any(at > latest_at for at in spooled):
        newest_at = max(spooled)
        warnings.append(f"a file was spooled in the future, at {newest_at.isoformat()}: a clock was or is wrong")
    elif spooled and max(spooled) < rule.starts_at(now):
        warnings.append(f"nothing was archived since {max(spooled).isoformat()}: check archiving and this clock")
    return warnings


def _check(alone: Coverage, plan: RetentionPlan, selection: Selection) -> None:
    """Prove the plan: compute again which base backups can be restored from the objects that stay.

    Raises: RetentionError.
    """
    contents = alone.contents
    staying = frozenset(one.name for one in plan.keep if one.kind is ObjectKind.WAL_FILE)
    verified = contents.copies.get(plan.store, frozenset()) & staying
    backups = {key: one for key, one in contents.backups.items() if key in selection.reasons}
    after = Coverage.of(replace(contents, copies={plan.store: verified}, backups=backups), [plan.store])
    for path in selection.live:
        reach = {backup.backup_id: run[1] for backup, run in after.restorable(path)}
        for backup, run in alone.restorable(path):
            if backup.backup_id in selection.reasons and reach.get(backup.backup_id) != run[1]:
                raise RetentionError(
                    f"{plan.store}: the plan would remove WAL that base backup '{backup.backup_id}' needs "
                    f"on the path to timeline {path.timeline}; nothing expires",
                    hint="This is an error in the program: report it with the output of 'wal-pipeline status --json'.",
                )
    lost = restorable_ids(alone) & set(selection.reasons) - restorable_ids(after)
    if lost or (restorable_ids(alone) and not restorable_ids(after)):
        raise RetentionError(f"{plan.store}: the plan would leave base backups {sorted(lost)} not restorable")
