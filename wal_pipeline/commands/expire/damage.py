"""Damage that a verification has to settle before a store may expire anything."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from wal_pipeline.commands.inventory.survey import ClusterSurvey
from wal_pipeline.text import counted

VERIFIED_WITHIN: Final = timedelta(days=2)
WAY_OUT: Final = (
    "Run 'wal-pipeline verify --repair': it heals what another store has whole. What no store has whole is then known "
    "to be lost, blocks nothing else, and keeps all that it could need"
)


@dataclass(frozen=True, slots=True)
class Damage:
    """A copy that retention wants and that is not there or not whole: of a file or a base backup, by its name or id.

    ``reason`` begins with the store's name.
    """

    store: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Unsettled:
    """The damage that names and sizes show now, without what a verification found to be lost on every store.

    ``verified_at`` is when the last verification of all stores began; None where there was none.
    """

    damage: tuple[Damage, ...] = ()
    verified_at: datetime | None = None


FindDamage = Callable[[ClusterSurvey, datetime], Unsettled]
"""Find the unsettled damage of one system identifier, on every store."""


def told_damage(store: str, damage: Sequence[Damage]) -> str | None:
    """Say why a store with damage expires nothing; None where it has none."""
    if not damage:
        return None
    copies = counted(len(damage), "copy") if len(damage) == 1 else f"{len(damage)} copies"
    return f"{store}: nothing expires while {copies} on it may be needed and cannot be used. {WAY_OUT}"


def told_verification(verified_at: datetime | None, now: datetime) -> str | None:
    """Say that no verification of all stores came before this expiry; None where one did."""
    if verified_at is not None and now - verified_at <= VERIFIED_WITHIN:
        return None
    last = (
        "no verification of all stores is on record"
        if verified_at is None
        else (f"the last verification of all stores began at {verified_at:%Y-%m-%d %H:%M}Z")
    )
    return f"{last}: run 'wal-pipeline verify --repair' before expiry, so that damage is healed before anything goes"
