"""Reads a timeline history file from the store that answers first, within the seconds that a screen can wait."""

import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from wal_pipeline.commands.archive_get.wal_source import WalSource, WalUnreachableError
from wal_pipeline.errors import StoreUnavailableError, WalPipelineError
from wal_pipeline.wal.names import WalFileName

FETCH_SECONDS: Final = 8.0
_QUIET_SECONDS: Final = 60.0
Answer = bytes | WalPipelineError | None


class HistoryFetch:
    """Asks all stores at once, so that one that never answers delays nobody.

    After a file that no store gave in time, it asks no store for a minute: several files cost no more than one.
    """

    def __init__(self, sources: Callable[[int], Mapping[str, WalSource]], seconds: float = FETCH_SECONDS) -> None:
        """``sources`` returns one source for each store, for a system identifier."""
        self._sources = sources
        self._seconds = seconds
        self._quiet_until = float("-inf")

    def __call__(self, system_identifier: int, name: WalFileName) -> bytes | None:
        """Return the file; None where every store answered and none has it. Raises: WalPipelineError."""
        sources = self._sources(system_identifier)
        if time.monotonic() < self._quiet_until:
            raise WalUnreachableError(name.name, [self._late(store) for store in sources])
        answers: queue.SimpleQueue[tuple[str, Answer]] = queue.SimpleQueue()
        for store, source in sources.items():
            threading.Thread(target=_ask, args=(store, source, name, answers), daemon=True).start()
        faults = self._collect(answers, set(sources))
        if isinstance(faults, bytes):
            return faults
        if faults:
            raise WalUnreachableError(name.name, faults)
        return None

    def _collect(
        self, answers: "queue.SimpleQueue[tuple[str, Answer]]", silent: set[str]
    ) -> bytes | list[WalPipelineError]:
        """Wait for the first good answer; where none comes, return each store's fault."""
        deadline = time.monotonic() + self._seconds
        faults: list[WalPipelineError] = []
        while silent:
            try:
                store, answer = answers.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                self._quiet_until = time.monotonic() + _QUIET_SECONDS
                return [*faults, *map(self._late, sorted(silent))]
            silent.discard(store)
            if isinstance(answer, bytes):
                return answer
            faults += [] if answer is None else [answer]
        return faults

    def _late(self, store: str) -> WalPipelineError:
        return StoreUnavailableError(store, f"no answer within {self._seconds:g} s")


def _ask(store: str, source: WalSource, name: WalFileName, answers: "queue.SimpleQueue[tuple[str, Answer]]") -> None:
    try:
        fetched = source.fetch(name)
    except WalPipelineError as error:
        answers.put((store, error))
    else:
        answers.put((store, None if fetched is None else fetched.data))
