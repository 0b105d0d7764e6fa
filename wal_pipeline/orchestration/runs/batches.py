"""Writes items in batches from a thread of its own: one flush of the disk for many items."""

import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

_HOLD_SECONDS: Final = 1.0
_MOST: Final = 100
_WAITING: Final = 1000

T = TypeVar("T")


class Batches(Generic[T]):
    """Collects items for up to ``hold_seconds`` and writes them in order, at most ``most`` at once.

    The caller continues meanwhile, and waits only where ``waiting`` items are not written yet. A crash loses the items
    that are held: hand over only what can be found again elsewhere.
    """

    def __init__(
        self,
        write: Callable[[Sequence[T]], None],
        *,
        hold_seconds: float = _HOLD_SECONDS,
        most: int = _MOST,
        waiting: int = _WAITING,
    ) -> None:
        """``write`` runs in the thread."""
        self._write = write
        self._hold_seconds = hold_seconds
        self._most = most
        self._waiting = waiting
        self._items: list[T] = []
        self._ending = False
        self._error: Exception | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="batches", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the held items. Raises: what a write raised, unless the block itself raised."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        self._thread.join()
        if self._error is not None and kind is None:
            raise self._error

    def add(self, item: T) -> None:
        """Hand an item over. Raises: what an earlier write raised."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._items) < self._waiting or self._error is not None)
            if self._error is not None:
                raise self._error
            self._items.append(item)
            self._changed.notify_all()

    def _run(self) -> None:
        try:
            while batch := self._next():
                self._write(batch)
        except Exception as error:  # noqa: BLE001 - raised again in the caller's thread
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _next(self) -> list[T]:
        """Wait for the next batch. An empty one means the end."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._items) or self._ending)
            self._changed.wait_for(lambda: len(self._items) >= self._most or self._ending, self._hold_seconds)
            batch, self._items = self._items[: self._most], self._items[self._most :]
            self._changed.notify_all()
            return batch
