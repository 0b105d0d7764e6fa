"""Judges the shipping of the open segment by its records: whether it runs, and how far each store is behind."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Protocol, Self

from wal_pipeline.catalog.values import Values
from wal_pipeline.commands.health.reach import ServerLook
from wal_pipeline.commands.pause import Pause
from wal_pipeline.commands.ship.records import ShippedTail, Shipping, read_shipping, read_tails
from wal_pipeline.errors import WalPipelineError
from wal_pipeline.postgres.server_facts import ServerFacts
from wal_pipeline.text import length, moment_utc
from wal_pipeline.wal.lsn import Lsn

SILENT_AFTER: Final = timedelta(minutes=3)
"""A running shipper says so once a minute."""
GRACE_SECONDS: Final = 60.0
"""A tail may be older than promised for so long before a person must look: one slow upload needs nobody."""
_UPLOAD_SECONDS: Final = 1.0
_NOTICED_KEY: Final = "shipping_stop_noticed_at"


class ShippingState(StrEnum):
    """Whether the open segment is shipped now, on the whole or to one store."""

    OFF = "off"
    UNKNOWN = "not known"
    PAUSED = "paused"
    NOT_POSSIBLE = "not possible"
    STOPPED = "stopped"
    FAILING = "failing"
    RUNNING = "running"

    @property
    def is_wrong(self) -> bool:
        """Whether it should be shipped and is not."""
        return self in (ShippingState.NOT_POSSIBLE, ShippingState.STOPPED, ShippingState.FAILING)


@dataclass(frozen=True, slots=True)
class ShipGoal:
    """The promise of the settings. ``source`` is the word of the setting ``ship_from``."""

    interval_seconds: float
    source: str = "host"

    @property
    def promise_seconds(self) -> float:
        """A commit is on each store so long after its acknowledgement, in 99 of 100 cases."""
        return self.interval_seconds + _UPLOAD_SECONDS

    @property
    def limit_seconds(self) -> float:
        """A tail that is older than this needs a person."""
        return self.promise_seconds + GRACE_SECONDS


@dataclass(frozen=True, slots=True)
class HeldWal:
    """The WAL that the server keeps for a receiver's slot; ``error`` says why that is not known."""

    slot: str
    held_bytes: int | None
    error: str | None = None


class SlotLook(Protocol):
    """Asks the server how much WAL it keeps for a receiver's slot."""

    def __call__(self) -> HeldWal:
        """Return the answer; a server that does not answer is an ``error`` in it."""


@dataclass(frozen=True, slots=True)
class TailHealth:
    """The tail on one store. ``tail`` is None where nothing is recorded.

    ``behind_seconds``: the age of the oldest bytes that the server has flushed and the store lacks now, 0 where it
    lacks none, at most that where ``is_at_most``, None where it is not known. ``reason`` says why it is not shipped.
    """

    store: str
    state: ShippingState
    tail: ShippedTail | None = None
    behind_seconds: float | None = None
    is_at_most: bool = False
    reason: str | None = None

    @property
    def is_conflict(self) -> bool:
        """Whether the store holds pieces of another history."""
        return self.tail is not None and self.tail.conflict is not None

    def is_late(self, goal: ShipGoal) -> bool:
        """Whether the tail is so much older than promised that a person must look.

        It is older now, or half of the last hour's commits came too late, which no outage that has ended explains.
        """
        p50 = None if self.tail is None else self.tail.behind_p50_seconds
        is_old = self.behind_seconds is not None and self.behind_seconds > goal.limit_seconds
        return is_old or (p50 is not None and p50 > goal.promise_seconds)

    def was_late(self, goal: ShipGoal) -> bool:
        """Whether the promise was not kept in the last hour, or is not at this moment."""
        p99 = None if self.tail is None else self.tail.behind_p99_seconds
        is_behind = not self.is_at_most and (self.behind_seconds or 0.0) > goal.promise_seconds
        return is_behind or (p99 is not None and p99 > goal.promise_seconds)


@dataclass(frozen=True, slots=True)
class ShippingHealth:
    """The shipping of a cluster's open segment.

    ``goal`` is None where it is off. ``reason`` and ``since_at`` say why and since when it does not run. A stop was
    first seen at ``noticed_at``: after a start of the host, or a pause, nobody has had time yet to start a shipper.
    """

    state: ShippingState = ShippingState.OFF
    goal: ShipGoal | None = None
    shipping: Shipping | None = None
    tails: tuple[TailHealth, ...] = ()
    reason: str | None = None
    since_at: datetime | None = None
    slot: HeldWal | None = None
    noticed_at: datetime | None = None

    @classmethod
    def not_known(cls, goal: ShipGoal | None) -> Self:
        """Return the health where the records cannot be read."""
        return cls() if goal is None else cls(ShippingState.UNKNOWN, goal, reason="the records cannot be read")

    def tail(self, store: str) -> TailHealth | None:
        """Return the tail on one store; None where shipping is off."""
        return next((one for one in self.tails if one.store == store), None)


def look_at_shipping(
    values: Values,
    stores: Sequence[str],
    goal: ShipGoal | None,
    *,
    pause: Pause | None,
    server: ServerLook,
    slot: HeldWal | None,
    now: datetime,
) -> ShippingHealth:
    """Return the health of shipping by the records, and by the server where it was asked. Raises: CatalogError."""
    if goal is None:
        return ShippingHealth(slot=slot)
    shipping, recorded = read_shipping(values), read_tails(values, stores)
    overall = _noticed(values, _overall(shipping, pause, now), now)
    seen = _Seen(shipping, overall, server.facts, now)
    tails = tuple(seen.judge(store, recorded.get(store)) for store in stores)
    health = replace(overall, goal=goal, shipping=shipping, tails=tails, slot=slot)
    failing = [one for one in tails if one.state is ShippingState.FAILING]
    if not failing:
        return health
    reason = "; ".join(f"{one.store}: {one.reason}" for one in failing)
    return replace(health, state=ShippingState.FAILING, reason=reason)


def ask_slot(slot: SlotLook | None) -> HeldWal | None:
    """Ask for the slot's WAL; None where there is no slot. An error becomes part of the answer."""
    if slot is None:
        return None
    try:
        return slot()
    except WalPipelineError as error:
        return HeldWal("", None, error.message)


def _overall(shipping: Shipping | None, pause: Pause | None, now: datetime) -> ShippingHealth:
    """Return the state on the whole, why, and since when."""
    if pause is not None:
        return ShippingHealth(ShippingState.PAUSED, reason=pause.describe(), since_at=pause.since_at)
    if shipping is None:
        return ShippingHealth(ShippingState.STOPPED, reason="nothing has ever shipped the open segment")
    silent, when = now - shipping.seen_at, moment_utc(shipping.seen_at)
    if abs(silent) > SILENT_AFTER:
        reason = f"nothing ships since {when}"
        if silent < timedelta(0):
            reason = f"the shipper's last sign is of {when}, in the future: a clock is or was wrong"
        return ShippingHealth(ShippingState.STOPPED, reason=reason, since_at=shipping.seen_at)
    if shipping.error is not None:
        return ShippingHealth(ShippingState.NOT_POSSIBLE, reason=shipping.error, since_at=shipping.failing_since)
    return ShippingHealth(ShippingState.RUNNING)


def _noticed(values: Values, health: ShippingHealth, now: datetime) -> ShippingHealth:
    """Add when a stop was first seen, and keep it for the next look. Raises: CatalogError."""
    kept = values.get(_NOTICED_KEY)
    if health.state is not ShippingState.STOPPED:
        if kept is not None:
            values.remove(_NOTICED_KEY)
        return health
    noticed_at = now if kept is None else datetime.fromisoformat(kept)
    if kept is None or noticed_at > now:  # a clock that was set back
        noticed_at = now
        values.put(_NOTICED_KEY, now.isoformat())
    return replace(health, noticed_at=noticed_at)


@dataclass(frozen=True, slots=True)
class _Seen:
    """Judges the tails by the shipper's record, its state, and the server where it was asked."""

    shipping: Shipping | None
    overall: ShippingHealth
    server: ServerFacts | None
    now: datetime

    def judge(self, store: str, tail: ShippedTail | None) -> TailHealth:
        """Return the health of one store's tail."""
        state, reason = self.overall.state, self.overall.reason
        if tail is None or not self._is_current(tail):
            is_running = state is ShippingState.RUNNING
            return TailHealth(store, state, reason="nothing was shipped there yet" if is_running else reason)
        trouble = tail.conflict or tail.error
        if state is ShippingState.RUNNING and trouble is not None:
            state, reason = ShippingState.FAILING, trouble
        behind, at_most = self._behind(tail, is_running=state is ShippingState.RUNNING)
        return TailHealth(store, state, tail, behind, at_most, reason)

    def _is_current(self, tail: ShippedTail) -> bool:
        """Whether a tail is of the cluster that is shipped now, and not of the one before an upgrade."""
        known = (one.system_identifier for one in (self.shipping, self.server) if one is not None)
        return all(one is None or one == tail.system_identifier for one in known)

    def _behind(self, tail: ShippedTail, *, is_running: bool) -> tuple[float | None, bool]:
        """Return the age of the oldest bytes that the store lacks, and whether it is only the most that it can be."""
        shipped = tail.shipped_lsn
        if shipped is None:
            return tail.behind_seconds or None, False
        if self._server_wrote_nothing_after(shipped, tail.timeline):
            return 0.0, False
        flushed = None if self.shipping is None else self.shipping.flushed_lsn
        lacks = flushed is not None and flushed > shipped
        if is_running and not lacks:
            return tail.behind_seconds, False
        # All that the server had acknowledged at these moments is on the store. What is missing is younger.
        had_all_at = None if self.shipping is None or flushed is None or lacks else self.shipping.seen_at
        complete = [at for at in (tail.complete_at, had_all_at) if at is not None]
        return (max(0.0, (self.now - max(complete)).total_seconds()), True) if complete else (None, False)

    def _server_wrote_nothing_after(self, shipped: Lsn, timeline: int) -> bool:
        """Whether it is known that the server has committed nothing that lies behind a position."""
        server = self.server
        if server is None or server.in_recovery or server.timeline != timeline:
            return False
        is_idle = server.idle_since_lsn is not None and server.idle_since_lsn <= shipped
        return is_idle or server.wal_lsn <= shipped


def behind_text(tail: TailHealth) -> str:
    """Return how far a store is behind now: ``0 s``, ``1.2 s``, ``at most 5 min``, ``not known``."""
    if tail.behind_seconds is None:
        return "not known"
    if not tail.behind_seconds:
        return "0 s"
    return ("at most " if tail.is_at_most else "") + length(tail.behind_seconds)


def tail_numbers(tail: TailHealth) -> dict[str, float]:
    """Return the numbers of a tail that are known, by names with their units."""
    one = tail.tail
    found: dict[str, float | None] = {"seconds_behind": tail.behind_seconds}
    if one is not None:
        found |= {"seconds_behind_p50": one.behind_p50_seconds, "seconds_behind_p99": one.behind_p99_seconds}
        found |= {"pieces": len(one.pieces), "stored_bytes": one.stored_bytes}
    return {name: value for name, value in found.items() if value is not None}


def hour_text(tail: ShippedTail) -> str:
    """Return how late the last hour's commits came: ``p50 2.6 s, p99 5.1 s``; empty where none came."""
    known = (("p50", tail.behind_p50_seconds), ("p99", tail.behind_p99_seconds))
    return ", ".join(f"{name} {length(seconds)}" for name, seconds in known if seconds is not None)


def tail_sentence(tail: TailHealth, goal: ShipGoal) -> str:
    """Say in one sentence, without a full stop, how far a store's tail is behind, and why it is not shipped."""
    one = tail.tail
    if one is None:
        return f"nothing is shipped to {tail.store} ({tail.state.value}): {tail.reason or 'nothing is recorded'}"
    hour = f"; in the last hour {said}" if (said := hour_text(one)) else ""
    trouble = f"; {tail.state.value}: {tail.reason}" if tail.state is not ShippingState.RUNNING else ""
    return f"{tail.store} is {behind_text(tail)} behind{hour}; promised {length(goal.promise_seconds)}{trouble}"


def shipping_sentence(health: ShippingHealth) -> str:
    """Say in one sentence, without a full stop, whether the open segment is shipped, and how far each store is."""
    if health.goal is None:
        return "off: a lost host costs the commits since the last finished segment"
    said = health.state.value + ("" if health.reason is None else f": {health.reason}")
    stores = [f"{one.store} {behind_text(one)} behind{_p99(one)}" for one in health.tails if one.tail is not None]
    return "; ".join([said, *stores, f"promised {length(health.goal.promise_seconds)}"])


def _p99(tail: TailHealth) -> str:
    seconds = None if tail.tail is None else tail.tail.behind_p99_seconds
    return "" if seconds is None else f", p99 {length(seconds)}"
