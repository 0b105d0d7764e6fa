"""Predicts how long a restore takes: its bytes by the rates that were measured, and from what each rate is known."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from statistics import median
from typing import Final

from wal_pipeline.archive.restore_time.measure import MeasuredRestore, RestorePhase, RestoreWork

_NEWEST: Final = 5  # a disk or a line that was changed shows soon
_FAR: Final = 10  # times the most that was measured
_LEAST_BYTES: Final = 1 << 20  # less is all overhead, and says nothing of a rate


class RateSource(IntEnum):
    """From where the pace of a phase is known, the best first."""

    HERE = 0  # measured on this host, from these stores
    OTHER_STORE = 1  # on this host, from another store
    OTHER_HOST = 2

    @property
    def is_guess(self) -> bool:
        """Whether it was measured elsewhere."""
        return self is not RateSource.HERE


@dataclass(frozen=True, slots=True)
class PhaseForecast:
    """The prediction for one phase. ``amount_bytes`` is None where its time has nothing to do with bytes.

    ``measured`` are the restores that it is predicted from, the newest first; without one ``seconds`` is None: it is
    not known. ``source`` says how near they are to what is predicted.
    """

    phase: RestorePhase
    amount_bytes: int | None
    seconds: float | None = None
    source: RateSource | None = None
    measured: tuple[MeasuredRestore, ...] = ()

    @property
    def rate(self) -> float | None:
        """Bytes a second; None where it is not known, or has nothing to do with bytes."""
        return self.amount_bytes / self.seconds if self.amount_bytes and self.seconds else None

    @property
    def stores(self) -> tuple[str, ...]:
        """The stores from which the bytes came that were measured."""
        return tuple(dict.fromkeys(store for one in self.measured for store in one.work.stores))

    @property
    def is_far(self) -> bool:
        """Whether it is for many times as many bytes as were ever measured."""
        if not self.amount_bytes or not self.measured:
            return False
        return self.amount_bytes > _FAR * max(one.work.amount(self.phase) or 0 for one in self.measured)


@dataclass(frozen=True, slots=True)
class RestoreForecast:
    """The prediction of one restore, from its plan to a server that is open. ``unread`` says why nothing is known."""

    work: RestoreWork
    host: str
    phases: tuple[PhaseForecast, ...] = ()
    unread: str | None = None

    @property
    def seconds(self) -> float | None:
        """The seconds of all phases that are known; None where neither a download nor a replay was ever measured."""
        carries = [one for one in self.phases if one.phase.is_of_store and one.seconds is not None]
        if not carries:
            return None
        return sum(one.seconds for one in self.phases if one.seconds is not None)

    @property
    def unmeasured(self) -> tuple[RestorePhase, ...]:
        """The phases that were never measured: the prediction lacks them, and is the least that it can be."""
        return tuple(one.phase for one in self.phases if one.seconds is None)

    @property
    def is_guess(self) -> bool:
        """Whether a rate of it was measured from another store or on another host."""
        return any(one.source is not None and one.source.is_guess for one in self.phases)

    @property
    def measured(self) -> tuple[MeasuredRestore, ...]:
        """The restores and drills that it is predicted from, the newest first."""
        found = {id(one): one for phase in self.phases for one in phase.measured}
        return tuple(sorted(found.values(), key=lambda one: one.finished_at, reverse=True))

    @property
    def newest_at(self) -> datetime | None:
        """When the newest of them was measured."""
        return self.measured[0].finished_at if self.measured else None

    def of(self, phases: Iterable[RestorePhase]) -> float | None:
        """Return the predicted seconds of some phases; None where one of them is not known. One without work has 0."""
        known: dict[RestorePhase, float | None] = {one: 0.0 for one in RestorePhase if self.work.amount(one) == 0}
        known.update((one.phase, one.seconds) for one in self.phases)
        found = [known.get(phase) for phase in phases]
        return None if any(one is None for one in found) else sum(one for one in found if one is not None)

    @property
    def without_replay_seconds(self) -> float | None:
        """The seconds that would be left where a new base backup made almost all replay needless."""
        seconds = self.seconds
        return None if seconds is None else seconds - (self.of([RestorePhase.REPLAY]) or 0.0)


def predict_restore(work: RestoreWork, measured: Iterable[MeasuredRestore], host: str) -> RestoreForecast:
    """Predict how long a restore takes on ``host``, from what restores and drills took."""
    newest = sorted(measured, key=lambda one: one.finished_at, reverse=True)
    phases = (phase for phase in RestorePhase if work.amount(phase) != 0)
    return RestoreForecast(work, host, tuple(_phase(phase, work, newest, host) for phase in phases))


def _phase(phase: RestorePhase, work: RestoreWork, newest: Sequence[MeasuredRestore], host: str) -> PhaseForecast:
    amount = work.amount(phase)
    found = [one for one in newest if phase in one.seconds and one.work.amount(phase) != 0]
    usable = [one for one in found if _says_something(phase, one)] or found
    if not usable:
        return PhaseForecast(phase, amount)
    # min keeps the newest of those that are equally near
    nearest = min(usable, key=lambda one: (_source(phase, work, one, host), _is_from_another(work, one)))
    source = _source(phase, work, nearest, host)
    alike = [one for one in usable if _source(phase, work, one, host) is source and _is_alike(phase, one, nearest)]
    chosen = tuple(alike[:_NEWEST])
    return PhaseForecast(phase, amount, _seconds(phase, amount, chosen), source, chosen)


def _says_something(phase: RestorePhase, one: MeasuredRestore) -> bool:
    amount = one.work.amount(phase)
    return amount is None or amount >= _LEAST_BYTES


def _source(phase: RestorePhase, work: RestoreWork, one: MeasuredRestore, host: str) -> RateSource:
    if one.host != host:
        return RateSource.OTHER_HOST
    is_same = not phase.is_of_store or set(one.work.stores) <= set(work.stores)
    return RateSource.HERE if is_same else RateSource.OTHER_STORE


def _is_from_another(work: RestoreWork, one: MeasuredRestore) -> bool:
    """Say whether the bytes came otherwise than they are to come: from all stores together, or from the preferred."""
    return set(one.work.stores) not in ({*work.stores}, {*work.stores[:1]})


def _is_alike(phase: RestorePhase, one: MeasuredRestore, nearest: MeasuredRestore) -> bool:
    """Say whether two measures may be taken together: of one host and, where the pace is a store's, of one store."""
    if one.host != nearest.host:
        return False
    return not phase.is_of_store or set(one.work.stores) == set(nearest.work.stores)


def _seconds(phase: RestorePhase, amount: int | None, chosen: Sequence[MeasuredRestore]) -> float:
    """Return the seconds for an amount: large restores say more of a rate than small ones, which are half overhead."""
    if amount is None:
        return median(one.seconds[phase] for one in chosen)
    return amount * sum(one.seconds[phase] for one in chosen) / sum(one.work.amount(phase) or 0 for one in chosen)
