"""Runs one kind of work on many things at the same time, and ends all of it where one fails."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Final, Generic, TypeVar

_Item = TypeVar("_Item")
_POLL_SECONDS: Final = 0.2


def volumes_at_once(workers: int) -> int:
    """Return how many volumes are on the disk at the same time: one is fetched while the one before it is opened."""
    return 2 * workers


class Workers(Generic[_Item]):
    """A number of threads that take one thing after the other.

    Long work calls ``go_on`` now and then, and is ended by it once nobody waits for it any more.
    """

    def __init__(self, count: int, name: str) -> None:
        self._count = max(count, 1)
        self._name = name
        self._given_up = threading.Event()
        self._lock = threading.Lock()
        self._failure: BaseException | None = None

    def run(self, work: Callable[[_Item], object], items: Iterable[_Item]) -> None:
        """Do the work on all items. Raises: what the first one that failed raised; the others are given up."""
        left = iter(items)
        threads = [
            threading.Thread(target=self._work, args=(work, left), name=f"{self._name}-{number}", daemon=True)
            for number in range(self._count)
        ]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except BaseException:  # an interrupted restore does not wait for the others
            self._given_up.set()
            raise
        if self._failure is not None:
            raise self._failure

    def go_on(self) -> None:
        """End a thread whose work nobody waits for any more. Raises: CancelledError."""
        if self._given_up.is_set():
            raise CancelledError

    @contextmanager
    def turn(self, turns: threading.Semaphore) -> Iterator[None]:
        """Wait for one of the turns, and hold it while the block runs. Raises: CancelledError, as ``go_on``."""
        while not turns.acquire(timeout=_POLL_SECONDS):
            self.go_on()
        try:
            yield
        finally:
            turns.release()

    def _work(self, work: Callable[[_Item], object], left: Iterator[_Item]) -> None:
        try:
            while not self._given_up.is_set():
                with self._lock:
                    item = next(left, None)
                if item is None:
                    return
                work(item)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            with self._lock:
                if self._failure is None and not (self._given_up.is_set() and isinstance(error, CancelledError)):
                    self._failure = error
            self._given_up.set()
