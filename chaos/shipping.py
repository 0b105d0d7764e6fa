"""Ships the open segment during a schedule, and watches for when nothing could be shipped."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from chaos.kept_running import KeptRunning
from chaos.troubles import Troubles
from testbed.processes import lock_holder

LOCK_NAME: Final = "ship.lock"
INTERVAL_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.1
_START_SECONDS: Final = 1.0  # from the shipper's lock to its first look at the server: it lists the stores before


class Shipping:
    """The shipper of one schedule. ``kept`` is None where the daemon's sensor keeps it running."""

    def __init__(self, state_folder: Path, kept: KeptRunning | None) -> None:
        self.troubles = Troubles()
        self._lock = state_folder / LOCK_NAME
        self._kept = kept
        self._ending = threading.Event()
        self._watching = threading.Thread(target=self._watch, daemon=True)
        self.starts = 0

    def start(self) -> None:
        """Begin."""
        if self._kept is not None:
            self._kept.start()
        self._watching.start()

    def stop(self) -> None:
        """End the shipper and the watching."""
        self._ending.set()
        if self._kept is not None:
            self._kept.stop()
        if self._watching.is_alive():
            self._watching.join()

    def kill(self) -> None:
        """SIGKILL the process that holds the lock; another one follows."""
        _signal(lock_holder(self._lock), signal.SIGKILL)

    def freeze(self) -> Callable[[], None]:
        """SIGSTOP the shipper, as a host that swaps or a paused machine does, and return what lets it go on."""
        pid = lock_holder(self._lock)
        _signal(pid, signal.SIGSTOP)
        return lambda: _signal(pid, signal.SIGCONT)

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """SIGKILL the shipper, and start no other one during the block."""
        if self._kept is None:
            self.kill()  # the daemon, which would start it again, is ended by its own
            yield
            return
        with self._kept.standing_still():
            yield

    def wait_until_it_runs(self, timeout_seconds: float) -> bool:
        """Wait until a shipper has the lock; return whether one has."""
        deadline = time.monotonic() + timeout_seconds
        while lock_holder(self._lock) is None:
            if time.monotonic() > deadline:
                return False
            time.sleep(_LOOK_SECONDS)
        return True

    def problems(self) -> Iterator[str]:
        """Yield what the shipper said and should not have. The daemon keeps the words of its runs to itself."""
        said = "" if self._kept is None else self._kept.log_tail(100_000)
        if "Traceback" in said:
            yield f"the shipper says:\n{said[said.index('Traceback') :][:4000]}"

    def _watch(self) -> None:
        """Remember each time without a shipper as a trouble of all shipping."""
        holder: int | None = None
        before = time.monotonic()
        while not self._ending.wait(_LOOK_SECONDS):
            pid, now = lock_holder(self._lock), time.monotonic()
            if pid is None or pid != holder:
                self.troubles.add(before, now + _START_SECONDS)
            if pid is not None and pid != holder:
                self.starts += 1
            holder, before = pid, now


def _signal(pid: int | None, number: signal.Signals) -> None:
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
