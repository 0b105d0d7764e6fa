"""Remembers what the server had flushed at each look, which says how complete a store's tail is, and how late."""

import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from typing import Final

from wal_pipeline.postgres.flushed_wal import FlushedWal
from wal_pipeline.wal.lsn import Lsn

_MOST_LOOKS: Final = 20_000
_MOST_SAMPLES: Final = 20_000
_SAMPLE_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Look:
    """One answer of the server. ``monotonic`` is this process's clock just before the question."""

    seen: FlushedWal
    monotonic: float

    @property
    def acknowledged_at(self) -> datetime | None:
        """A moment before which the primary acknowledged no commit that lies behind the look's LSN.

        None for a standby: it says nothing of commits that it has not received yet.
        """
        return None if self.seen.is_standby else self.seen.at


class WalLooks:
    """The looks at one history, in order. Of looks at the same LSN only the last is kept.

    They wake the threads that ship. Safe from several threads.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._looks: list[Look] = []
        self._serial = 0

    def add(self, look: Look) -> None:
        """Add a look. One at another cluster, another timeline or an earlier LSN begins a new history."""
        with self._changed:
            last = self._looks[-1] if self._looks else None
            if last is not None and (_history(last) != _history(look) or look.seen.lsn < last.seen.lsn):
                self._looks.clear()
            elif last is not None and last.seen.lsn == look.seen.lsn:
                self._looks.pop()
            self._looks.append(look)
            del self._looks[:-_MOST_LOOKS]
            self._wake()

    def wake(self) -> None:
        """Wake the threads that wait, though there is no new look."""
        with self._changed:
            self._wake()

    def wait(self, serial: int, timeout_seconds: float | None) -> int:
        """Wait for something newer than ``serial``, and return its number."""
        with self._changed:
            self._changed.wait_for(lambda: self._serial != serial, timeout_seconds)
            return self._serial

    @property
    def last(self) -> Look | None:
        """The newest look."""
        with self._changed:
            return self._looks[-1] if self._looks else None

    def complete_at(self, timeline: int, lsn: Lsn) -> Look | None:
        """Return the newest look at which nothing beyond ``lsn`` was flushed; None where there was none."""
        with self._changed:
            if not self._looks or self._looks[-1].seen.timeline != timeline:
                return None
            place = bisect_right(self._looks, lsn, key=lambda look: look.seen.lsn)
            return self._looks[place - 1] if place else None

    def _wake(self) -> None:
        self._serial += 1
        self._changed.notify_all()


def _history(look: Look) -> tuple[int, int]:
    return (look.seen.system_identifier, look.seen.timeline)


class BehindTimes:
    """How late the pieces of the last hour were: median and 99th percentile, in seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._samples: deque[tuple[float, float]] = deque(maxlen=_MOST_SAMPLES)
        self._lock = threading.Lock()

    def add(self, seconds: float) -> None:
        """Add one piece."""
        with self._lock:
            self._samples.append((self._monotonic(), seconds))

    def quantiles(self) -> tuple[float | None, float | None]:
        """Return the median and the 99th percentile (nearest rank); None where no piece was shipped."""
        since = self._monotonic() - _SAMPLE_SECONDS
        with self._lock:
            while self._samples and self._samples[0][0] < since:
                self._samples.popleft()
            ordered = sorted(seconds for _, seconds in self._samples)
        if not ordered:
            return None, None
        return ordered[ceil(0.5 * len(ordered)) - 1], ordered[ceil(0.99 * len(ordered)) - 1]
