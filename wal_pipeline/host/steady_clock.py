"""Tells how long ago a file changed, whatever was done to the clock since."""

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from wal_pipeline.host.durable_file import write_whole

RECORD_NAME: Final = ".wal-pipeline.clock"
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class SteadyTime:
    """Tells the age of files by the wall clock, but only for as long as that clock is known to have been steady.

    The kernel stamps files with the wall clock, and a step of it makes a young file look old. The monotonic clock makes
    no steps and is the same for all processes since the machine was started, so the difference of the two shows a step.
    Since when the difference is what it is, is kept in a small file: a process may live for less than a file takes to
    settle. Where it cannot be kept, ages count from the first look of this process.
    """

    def __init__(self, folder: Path, tolerance_seconds: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        """``tolerance_seconds``: a difference that changed by less is no step, but a clock that is being adjusted."""
        self._path = folder / RECORD_NAME
        self._tolerance_seconds = tolerance_seconds
        self._monotonic = monotonic
        self._known: tuple[float, float] | None = None

    def age_seconds(self, changed_at: float, now: float) -> float:
        """Return how much time has surely passed since a file's time of change, both in seconds since 1970."""
        return self.ages(now)(changed_at)

    def ages(self, now: float) -> Callable[[float], float]:
        """Read both clocks once, and return the function from a file's time of change to its age in seconds.

        For many files: while a large folder is listed ``now`` stands still and the monotonic clock does not, which
        would look like a step.
        """
        monotonic = self._monotonic()
        steady_since = self._steady_since(now - monotonic, monotonic)
        steady_seconds = monotonic - steady_since

        def age(changed_at: float) -> float:
            seconds = now - changed_at
            # A time before the last step, or in the future, was stamped before it: how long before is not known.
            return seconds if 0 <= seconds <= steady_seconds else steady_seconds

        return age

    def _steady_since(self, difference: float, monotonic: float) -> float:
        if self._known is None:
            self._known = self._read(monotonic)
        if self._known is None or abs(difference - self._known[0]) > self._tolerance_seconds:
            self._known = (difference, monotonic)
            self._write(self._known)
        return self._known[1]

    def _read(self, monotonic: float) -> tuple[float, float] | None:
        with suppress(OSError, ValueError, KeyError, TypeError):
            record = json.loads(self._path.read_text())
            difference, since = float(record["difference"]), float(record["since"])
            if record["boot_id"] == _boot_id() and since <= monotonic:
                return difference, since
        return None

    def _write(self, known: tuple[float, float]) -> None:
        record = {"boot_id": _boot_id(), "difference": known[0], "since": known[1]}
        with suppress(OSError):  # no right to write, or no room: this process then counts from its own first look
            write_whole(json.dumps(record).encode(), self._path, durable=False, mode=None)


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return os.uname().nodename
