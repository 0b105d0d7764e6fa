"""Answers in people's words to which moment the cluster can be recovered, and from which store.

All screens share it: the terminal, Dagster's assets and checks, the report. It formats facts, and looks at nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from wal_pipeline.archive.recovery.gaps import Gap, GapState
from wal_pipeline.archive.recovery.reach import RecoveryReach
from wal_pipeline.archive.recovery.window import RecoveryWindow
from wal_pipeline.commands.health.facts import HealthFacts
from wal_pipeline.commands.health.no_records import has_records
from wal_pipeline.text import counted, length, moment_text, size

ANY_STORE: Final = "any store"
_UTC: Final = " UTC"
_GAP_WORDS: Final = (
    (GapState.OPEN, "open"),
    (GapState.ON_ITS_WAY, "on its way"),
    (GapState.ACKNOWLEDGED, "accepted"),
    (GapState.CLOSED, "past"),
)


@dataclass(frozen=True, slots=True)
class StoreAnswer:
    """One row of the table of recovery windows, as text: a store's, or that of any store.

    ``begins`` and ``ends`` are moments of UTC to the second, ``-`` where nothing can be restored from there.
    """

    store: str
    begins: str
    ends: str
    rpo: str
    gaps: str
    base_backups: str
    segments: str
    size: str


COLUMNS: Final = ("store", "from", "to", "RPO", "gaps", "base backups", "segments", "bytes")
"""The titles of the fields of ``StoreAnswer``, in order."""


def recovery_answer(facts: HealthFacts) -> str:
    """Return the answer for the whole cluster as one sentence, without a full stop.

    ``orders can be recovered to 2026-11-29 14:05:31 UTC from r2 and b2, nothing committed since``
    """
    if facts.catalog_error is not None:
        return f"whether {facts.cluster} can be recovered is not known: the records cannot be read"
    window, reach = facts.windows.main(None), facts.reaches.get(None)
    if window is None or reach is None:
        return why_not(facts)
    best, lagging = _by_reach(facts, window)
    said = f"{facts.cluster} can be recovered to {end_text(window, _UTC)} from {best}, {since_text(reach)}"
    return "; ".join([said, *lagging])


def store_answer(facts: HealthFacts, store: str | None) -> str:
    """Return the answer for one store (None: for any store) as one sentence, without a full stop and the cluster."""
    name, window, reach = store_name(store), facts.windows.main(store), facts.reaches.get(store)
    if window is None or reach is None:
        return f"nothing can be restored from {name}: {_lack(facts, store)}"
    begins = moment_text(window.earliest_at)
    return f"from {name} each moment from {begins} to {end_text(window, _UTC)} can be restored, {since_text(reach)}"


def why_not(facts: HealthFacts) -> str:
    """Say why nothing can be recovered from any store, as far as this host's records tell."""
    if not has_records(facts):
        return (
            f"this host has no records of {facts.cluster}: whether it can be recovered was not looked at; "
            "'wal-pipeline catalog rebuild' asks the stores"
        )
    return f"{facts.cluster} cannot be recovered: {_lack(facts, None)}"


def answer_rows(facts: HealthFacts) -> list[StoreAnswer]:
    """Return the table of recovery windows: a row for any store, then one for each store."""
    return [_row(facts, store) for store in (None, *facts.windows.stores)]


def store_name(store: str | None) -> str:
    """Return a store's name for people; None is any store."""
    return ANY_STORE if store is None else store


def end_text(window: RecoveryWindow, zone: str = "") -> str:
    """Return the last moment that a window surely holds: its last commit, or the end of its newest base backup.

    ``zone`` (`` UTC``) stands behind the moment, for a sentence.
    """
    return moment_text(window.reaches_at_least) + zone + ("" if window.commit_times_known else " or later")


def since_text(reach: RecoveryReach) -> str:
    """Say what a window lacks of what was committed since its end."""
    if reach.lacks_nothing:
        return "nothing committed since"
    if reach.rpo_seconds is None:
        return f"what was committed since is not known: {reach.unknown}"
    if reach.rpo_is_bound:
        return f"at most the last {length(reach.rpo_seconds)} are missing ({reach.unknown})"
    return f"the commits of the last {length(reach.rpo_seconds)} are not there yet"


def rpo_text(reach: RecoveryReach | None) -> str:
    """Return the RPO of a window: ``0 s``, ``12 s``, ``at most 29 min``, ``not known``; ``-`` without a window."""
    if reach is None:
        return "-"
    if reach.rpo_seconds is None:
        return "not known"
    if not reach.rpo_seconds and not reach.rpo_is_bound:
        return "0 s"
    return ("at most " if reach.rpo_is_bound else "") + length(reach.rpo_seconds)


def gaps_text(facts: HealthFacts, store: str | None) -> str:
    """Return the gaps of a store by their state: ``none``, ``1 open, 2 past``."""
    counts = ((len(facts.windows.gaps_in(store, state)), word) for state, word in _GAP_WORDS)
    return ", ".join(f"{count} {word}" for count, word in counts if count) or "none"


def gap_text(gap: Gap) -> str:
    """Describe one gap: its moments, its segments, and whether they can be refilled.

    ``2026-11-29 13:02:10 to 13:20:44, 4 segments, refillable from r2``
    """
    return f"{gap_moments(gap)}, {counted(gap.segments, 'segment')}, {_refill(gap)}"


def gap_moments(gap: Gap) -> str:
    """Return the moments around a gap; where a commit is not known, the segment stands instead."""
    before, after = gap.last_commit_before_at, gap.first_commit_after_at
    begin = f"before '{gap.first_missing}'" if before is None else moment_text(before)
    if after is None:
        return f"from {begin} to after '{gap.last_missing}'"
    is_same_day = before is not None and before.date() == after.date()
    return f"from {begin} to {f'{after:%H:%M:%S}' if is_same_day else moment_text(after)}"


def names_text(names: Sequence[str]) -> str:
    """Join names as people do: ``r2``, ``r2 and b2``, ``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _refill(gap: Gap) -> str:
    if not gap.held_elsewhere:
        return "on no store" if gap.store is None else "on no other store"
    stores = names_text(gap.held_by)
    if gap.held_elsewhere < gap.segments:
        return f"{gap.held_elsewhere} of them refillable from {stores}"
    return f"refillable from {stores}"


def _by_reach(facts: HealthFacts, window: RecoveryWindow) -> tuple[str, list[str]]:
    """Return from where the answer's moment can be reached, and a clause for each store that reaches less far."""
    mains = {store: facts.windows.main(store) for store in facts.windows.stores}
    best = [store for store, one in mains.items() if one is not None and _is_as_far(one, window)]
    lagging = list(_lagging(facts, [store for store in mains if store not in best]))
    return (names_text(best) if best else f"{names_text(facts.windows.stores)} together"), lagging


def _is_as_far(one: RecoveryWindow, other: RecoveryWindow) -> bool:
    return (one.timeline, one.latest_lsn) == (other.timeline, other.latest_lsn)


def _lagging(facts: HealthFacts, stores: Sequence[str]) -> Iterator[str]:
    for store in stores:
        window = facts.windows.main(store)
        yield f"from {store} {'nothing' if window is None else f'to {end_text(window, _UTC)} only'}"


def _lack(facts: HealthFacts, store: str | None) -> str:
    """Say what is missing for a recovery."""
    windows = facts.windows
    held = [one for one in windows.backups if store is None or store in windows.holders[one.backup_id]]
    if not held:
        return "no base backup is recorded on any store" if store is None else "no base backup is recorded there"
    where = "on any store" if store is None else "there"
    return f"{counted(len(held), 'base backup')} recorded, and none has all the WAL that it needs {where}"


def _row(facts: HealthFacts, store: str | None) -> StoreAnswer:
    windows = facts.windows
    window = windows.main(store)
    usable = {backup_id for one in windows.windows.get(store, ()) for backup_id in one.backup_ids}
    stored = sum(one.stored_bytes for one in facts.stores if store in (None, one.store))
    return StoreAnswer(
        store=store_name(store),
        begins=moment_text(None if window is None else window.earliest_at),
        ends="-" if window is None else end_text(window),
        rpo=rpo_text(facts.reaches.get(store)),
        gaps=gaps_text(facts, store),
        base_backups=str(len(usable)),
        segments=str(0 if window is None else window.segments),
        size=size(stored),
    )
