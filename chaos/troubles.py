"""Remembers when shipping could not be expected to work, and says which commits a lost host owes nevertheless."""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from chaos.schedule import STORES


@dataclass(frozen=True, slots=True)
class Span:
    """A time from ``begin`` to ``end``, on the clock of ``time.monotonic``."""

    begin: float
    end: float


@dataclass(slots=True)
class Troubles:
    """The troubles of one schedule: those of one store by its name, and those of all shipping. Safe from threads."""

    _spans: list[tuple[str | None, Span]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, begin: float, end: float, store: str | None = None) -> None:
        """Remember a trouble of a store; of all shipping where ``store`` is None."""
        with self._lock:
            self._spans.append((store, Span(begin, end)))

    def owed_before(self, lost_at: float, needed_seconds: float, *, begun_at: float, usable: Sequence[str]) -> float:
        """Return the moment before which each acknowledged commit must have been on one of the usable stores.

        A commit is owed once shipping to one store has worked for ``needed_seconds`` on end, anywhere between its
        acknowledgement and the loss of the host. Where shipping never worked for so long, it is ``begun_at``.
        """
        with self._lock:
            known = list(self._spans)
        moments = [begun_at]
        for store in usable:
            spans = [span for name, span in known if name is None or name == store]
            calm = calm_spans(spans, Span(begun_at, lost_at))
            moments += [span.end - needed_seconds for span in calm if span.end - span.begin >= needed_seconds]
        return max(moments)

    def last_end(self) -> float:
        """Return the moment at which the last trouble ended, or will end; 0 where there was none."""
        with self._lock:
            return max((span.end for _, span in self._spans), default=0.0)


def calm_spans(troubles: Iterable[Span], within: Span) -> list[Span]:
    """Return what is left of a time without the troubles, in order."""
    found, begin = [], within.begin
    for trouble in sorted(troubles, key=lambda span: span.begin):
        if trouble.begin > begin:
            found.append(Span(begin, min(trouble.begin, within.end)))
        begin = max(begin, trouble.end)
        if begin >= within.end:
            return [span for span in found if span.end > span.begin]
    return [span for span in (*found, Span(begin, within.end)) if span.end > span.begin]


def either_store(lying: str | None) -> tuple[str, ...]:
    """Return the stores whose pieces a restore can use while one of them lies."""
    return tuple(store for store in STORES if store != lying)
