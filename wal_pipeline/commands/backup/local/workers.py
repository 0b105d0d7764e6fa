"""Runs a function on many items in several threads, until all are done or one fails."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Final, TypeVar

_Item = TypeVar("_Item")
_TICK_SECONDS: Final = 0.5


def work_through(
    items: Iterable[_Item],
    work: Callable[[_Item], object],
    *,
    workers: int,
    stop: Callable[[], object],
    tick: Callable[[], object],
    tick_seconds: float = _TICK_SECONDS,
) -> None:
    """Call ``work`` with each item, ``workers`` at once, the first ones first.

    ``tick`` is called from this thread every now and then, and once at the end. Where it or an item's work raises,
    ``stop`` is called, which must end the work that goes on; what has not begun never begins, and the first error is
    raised once no thread is left.
    """
    left, lock, is_stopped = iter(items), threading.Lock(), threading.Event()

    def take_items() -> None:
        while not is_stopped.is_set():
            with lock:
                item = next(left, None)
            if item is None:
                return
            work(item)

    with ThreadPoolExecutor(workers, thread_name_prefix="base-backup") as pool:
        waiting: set[Future[None]] = {pool.submit(take_items) for _ in range(workers)}
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=tick_seconds, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
                tick()
        except BaseException:
            is_stopped.set()
            stop()
            raise
