"""Finds the causes of alerts about the shipping of the open segment in the facts. Pure."""

from datetime import timedelta
from typing import Final

from wal_pipeline.archive.alerts import Observation
from wal_pipeline.commands.health.facts import HealthFacts
from wal_pipeline.commands.health.shipping import SILENT_AFTER, ShipGoal, ShippingState, TailHealth
from wal_pipeline.text import coarse_length, coarse_size, moment_utc

SLOT_HOLDS_MUCH: Final = 2**30  # bytes; a receiver that works is behind by a few segments
_SWITCH_OFF: Final = "WAL_PIPELINE_SHIP_INTERVAL_SECONDS=off switches it off"


def not_shipping(facts: HealthFacts) -> list[Observation] | None:
    """Judge whether anything ships. Some minutes are given to a start, of the host, the shipper or the server."""
    health = facts.shipping
    if health.state is ShippingState.UNKNOWN:
        return None
    if health.state not in (ShippingState.NOT_POSSIBLE, ShippingState.STOPPED):
        return []
    since_at = health.since_at if health.state is ShippingState.NOT_POSSIBLE else health.noticed_at
    if not facts.files or (since_at is not None and facts.at - since_at < SILENT_AFTER):
        return []  # nothing is archived yet: setup, not neglect
    since = "" if health.since_at is None else f" since {moment_utc(health.since_at)}"
    if health.state is ShippingState.NOT_POSSIBLE:
        message = f"the open segment cannot be shipped{since}: {health.reason}; {_SWITCH_OFF}"
    else:
        message = f"{health.reason}: start Dagster's daemon or 'wal-pipeline ship'; {_SWITCH_OFF}"
    return [Observation("shipping", message)]


def tail_old(facts: HealthFacts, down: set[str]) -> list[Observation] | None:
    """Judge how old the tail of each store is. ``down`` are stores whose own alert says that they fail.

    While nothing ships, the alert about that says so once, and not one for each store.
    """
    health = facts.shipping
    if health.state is ShippingState.UNKNOWN:
        return None
    if health.goal is None or health.state not in (ShippingState.RUNNING, ShippingState.FAILING):
        return []
    return [
        Observation(tail.store, _old(tail, health.goal))
        for tail in health.tails
        if tail.store not in down and not tail.is_conflict and tail.is_late(health.goal)
    ]


def tail_conflict(facts: HealthFacts) -> list[Observation] | None:
    """Judge the stores that hold pieces of two histories: one of the two is not this server's."""
    if facts.shipping.state is ShippingState.UNKNOWN:
        return None
    return [
        Observation(
            tail.store,
            f"{tail.tail.conflict}: two servers ship under one cluster name, or this one went back in time; nothing "
            "more of this segment is shipped there, and whole segments go on",
        )
        for tail in facts.shipping.tails
        if tail.tail is not None and tail.tail.conflict is not None
    ]


def slot_holds_wal(facts: HealthFacts) -> list[Observation] | None:
    """Judge how much WAL the server keeps for the receiver's slot: it fills the server's disk."""
    slot = facts.shipping.slot
    if slot is None:
        return []
    if slot.held_bytes is None:
        return None
    if slot.held_bytes < SLOT_HOLDS_MUCH:
        return []
    message = (
        f"the server keeps {coarse_size(slot.held_bytes)} of WAL for slot '{slot.slot}', expected less than "
        f"{coarse_size(SLOT_HOLDS_MUCH)}: start the receiver, or drop the slot before the server's disk is full"
    )
    return [Observation(slot.slot, message)]


def _old(tail: TailHealth, goal: ShipGoal) -> str:
    """Say how old the tail is, what was promised, since when, and what a person does."""
    one, promise = tail.tail, coarse_length(timedelta(seconds=goal.promise_seconds))
    p50 = None if one is None else one.behind_p50_seconds
    if tail.behind_seconds is not None and tail.behind_seconds > goal.limit_seconds:
        said = f"the newest commits are missing there for {'at most ' if tail.is_at_most else ''}"
        said += coarse_length(timedelta(seconds=tail.behind_seconds))
    else:
        said = f"half of the last hour's commits came after {coarse_length(timedelta(seconds=p50 or 0))} or more"
    since = None if one is None else one.failing_since or one.complete_at
    when = "" if since is None else f", since {moment_utc(since)}"
    return f"{said}, promised {promise}{when}: {tail.reason or 'the store is slow'}; 'wal-pipeline check' tries it"
