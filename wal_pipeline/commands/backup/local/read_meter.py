"""Counts what the workers of a base backup read, limits how fast they read together, and ends their reading."""

import threading
import time

from wal_pipeline.errors import BaseBackupError


class ReadMeter:
    """Counts ``read_bytes``, and lets ``max_rate_kib`` a second pass (None: no limit). For all threads together."""

    def __init__(self, max_rate_kib: int | None = None) -> None:
        self.read_bytes = 0
        self._bytes_a_second = None if max_rate_kib is None else max_rate_kib << 10
        self._free_at = 0.0
        self._stop = threading.Event()
        self._lock = threading.Lock()

    def stop(self) -> None:
        """Let the next ``note`` in each thread raise."""
        self._stop.set()

    def note(self, size_bytes: int) -> None:
        """Count bytes that were read, and wait until more may be read.

        Raises: BaseBackupError where the base backup was stopped, because another worker failed.
        """
        with self._lock:
            self.read_bytes += size_bytes
            wait_seconds = 0.0
            if self._bytes_a_second is not None:
                now = time.monotonic()
                self._free_at = max(self._free_at, now) + size_bytes / self._bytes_a_second
                wait_seconds = self._free_at - now
        if wait_seconds:
            self._stop.wait(wait_seconds)
        if self._stop.is_set():
            raise BaseBackupError("the base backup was stopped")
