"""Counts a store's requests, bytes and seconds, for cost, metrics and slow stores."""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class RequestTotals:
    """The requests to one store since its meter began.

    ``requests`` counts HTTP requests by S3 operation, retries included; ``failures`` the calls that ended in an error.
    ``seconds`` is the time spent waiting for answers, by operation, over all threads; reading a body is not in it.
    """

    requests: Mapping[str, int]
    failures: Mapping[str, int]
    seconds: Mapping[str, float]
    sent_bytes: int
    received_bytes: int


class RequestMeter:
    """Counts the requests of one store. Safe from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._seconds: dict[str, float] = {}
        self._sent_bytes = 0
        self._received_bytes = 0

    def count(self, operation: str, *, seconds: float, requests: int = 1, failed: bool = False) -> None:
        """Add one call of ``operation``, which took ``seconds`` and ``requests`` HTTP requests."""
        with self._lock:
            self._requests[operation] += requests
            self._failures[operation] += failed
            self._seconds[operation] = self._seconds.get(operation, 0.0) + seconds

    def add_bytes(self, *, sent: int = 0, received: int = 0) -> None:
        """Add payload bytes, without headers."""
        with self._lock:
            self._sent_bytes += sent
            self._received_bytes += received

    def totals(self) -> RequestTotals:
        """Return the totals so far."""
        with self._lock:
            return RequestTotals(
                requests=MappingProxyType(dict(self._requests)),
                failures=MappingProxyType(dict(+self._failures)),
                seconds=MappingProxyType(dict(self._seconds)),
                sent_bytes=self._sent_bytes,
                received_bytes=self._received_bytes,
            )
