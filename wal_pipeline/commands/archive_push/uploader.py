"""One store's uploader in an archiving run: its uploads, and when it may be tried again after it failed."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.records import Copy, Encoding, WalFile
from wal_pipeline.catalog.store_states import StoreState
from wal_pipeline.codec.encoder import Encoded
from wal_pipeline.commands.copies.put import is_held, store_copy
from wal_pipeline.errors import StoreError
from wal_pipeline.stores.base import Store
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.names import FileKind, require_file_name

FIRST_BACKOFF_SECONDS = 5.0
_SUCCESSES_TO_WIDEN = 16
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoredCopy:
    """A verified copy: its key, how it is encoded there, and the wall time of put and read-back.

    ``is_new``: the store had none before.
    """

    object_key: str
    encoding: Encoding
    seconds: float
    is_new: bool


class StoreUploader:
    """Stores copies on one store in threads of its own, so that no store waits for another.

    After a failure the store is left alone for a while that doubles up to ``max_backoff_seconds``; then one upload
    is tried, and only its success lets more follow. The state outlives the run: the next one takes it up.
    """

    def __init__(
        self, store: Store, state: StoreState, *, width: int, read_back: bool, max_backoff_seconds: float
    ) -> None:
        """``width``: how many uploads run at once, and as many read-backs beside them: a line carries both ways.

        Without places of their own the threads fall into step, all sending and then all reading, and half of the line
        is idle at any time. The run counts in ``in_flight`` what it has promised the uploader.
        """
        self.store = store
        self.state = state
        self.in_flight = 0
        self._width = width
        self._read_back = read_back
        self._max_backoff_seconds = max_backoff_seconds
        self._uploads = Gate(width)
        self._failures = 0
        self._pool = ThreadPoolExecutor(2 * width, thread_name_prefix=f"store-{store.name}")
        self._holdings = _Holdings(store)
        self._submitted: set[Future[Any]] = set()

    def is_closed(self, now: datetime) -> bool:
        """Whether the store failed and is not to be tried yet."""
        return is_resting(self.state, now)

    def has_room(self) -> bool:
        """Whether one more file may begin: as many as are prepared, sent and read back at once; one after a failure."""
        return self.in_flight < (1 if self.state.consecutive_failures else 3 * self._uploads.width)

    def submit(
        self, layout: Layout, file: WalFile, encoded: Encoded, done: Callable[["Future[StoredCopy]"], None]
    ) -> None:
        """Begin to store a file; ``done`` is called from another thread when it ended in any way.

        Where the store failed before the file's turn came, the future is cancelled or raises CancelledError.
        """
        failures = self._failures
        future = self._pool.submit(self._guarded, file, lambda: self._store(layout, file, encoded, failures))
        self._submitted.add(future)
        future.add_done_callback(self._submitted.discard)
        future.add_done_callback(done)

    def confirm(self, file: WalFile, copy: Copy, done: Callable[["Future[bool]"], None]) -> None:
        """Begin to ask whether the store still has a copy that is recorded; else as ``submit``."""
        future = self._pool.submit(self._guarded, file, lambda: is_held(self.store, copy, file))
        self._submitted.add(future)
        future.add_done_callback(self._submitted.discard)
        future.add_done_callback(done)

    def succeeded(self, now: datetime) -> bool:
        """Note a success; return whether the store had been failing until now."""
        self._uploads.widen()
        had_failed = self.state.consecutive_failures > 0
        self.state = StoreState(self.store.name, last_failure_at=self.state.last_failure_at, last_success_at=now)
        return had_failed

    def failed(self, now: datetime, message: str, *, too_slow: bool = False) -> None:
        """Note a failure, and when the store is tried next. Uploads that fail together count once.

        Those that did not begin are cancelled: each would wait for the same timeouts. ``too_slow``: our own time limit
        passed, so that half as many are sent at once from now on.
        """
        self._failures += 1
        if too_slow and not self.is_closed(now):
            self._uploads.narrow()
        for future in tuple(self._submitted):
            future.cancel()
        if self.is_closed(now):
            return
        failures = self.state.consecutive_failures + 1
        wait = min(self._max_backoff_seconds, FIRST_BACKOFF_SECONDS * 2.0 ** min(failures - 1, 30))
        self.state = replace(
            self.state,
            consecutive_failures=failures,
            last_error=message,
            last_failure_at=now,
            retry_at=now + timedelta(seconds=wait),
        )

    def close(self) -> None:
        """Wait for the uploads that run; those that did not begin are dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    @contextmanager
    def _upload(self, failures: int) -> Iterator[None]:
        """Wait for a place among the uploads. Raises: CancelledError where the store failed meanwhile."""
        with self._uploads:
            if self._failures != failures:
                raise CancelledError
            yield

    def _store(self, layout: Layout, file: WalFile, encoded: Encoded, failures: int) -> StoredCopy:
        begun = time.monotonic()
        found = self._holdings.find(layout, file)
        key, encoding = store_copy(
            ClusterStore(self.store, layout),
            file,
            encoded,
            read_back=self._read_back,
            found=found,
            uploads=self._upload(failures),
        )
        return StoredCopy(key, encoding, time.monotonic() - begun, is_new=not found)

    def _guarded(self, file: WalFile, work: Callable[[], _T]) -> _T:
        try:
            return work()
        except (StoreError, CancelledError):
            raise
        except Exception as error:  # whatever goes wrong with one store must not end the run of the others
            _log.exception("%s: cannot store '%s'", self.store.name, file.name)
            message = f"cannot store '{file.name}': unexpected {type(error).__name__}: {error}"
            raise StoreError(self.store.name, message) from error


def is_resting(state: StoreState, now: datetime) -> bool:
    """Whether a store that failed is not to be tried yet. A clock that was set back does not hold it."""
    if state.retry_at is None:
        return False
    return now < state.retry_at and (state.last_failure_at is None or now >= state.last_failure_at)


class Gate:
    """Lets so many through at once. Narrowed to half after a time limit, it widens by one after a row of successes."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._most = width
        self._inside = 0
        self._successes = 0
        self._changed = threading.Condition()

    def __enter__(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._inside < self.width)
            self._inside += 1

    def __exit__(self, *_error: object) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify()

    def narrow(self) -> None:
        """Let half as many through, at least one."""
        with self._changed:
            self.width, self._successes = max(1, self.width // 2), 0

    def widen(self) -> None:
        """Count a success. After enough of them one more may be inside."""
        with self._changed:
            self._successes += 1
            if self.width < self._most and self._successes >= _SUCCESSES_TO_WIDEN * self.width:
                self.width, self._successes = self.width + 1, 0
                self._changed.notify()


class _Holdings:
    """The objects that a store held when the run first looked, to find a file that was stored in another encoding."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._keys: dict[str, str] = {}
        self._listed: set[str] = set()

    def find(self, layout: Layout, file: WalFile) -> str | None:
        """Return the key of the store's object for a file, listing the file's folder the first time."""
        name = require_file_name(file.name)
        prefix = layout.wal_stem(name) if name.kind is FileKind.HISTORY else layout.wal_folder(name)
        with self._lock:
            if prefix not in self._listed:
                self._list(layout, prefix)
            return self._keys.get(layout.wal_stem(name))

    def _list(self, layout: Layout, prefix: str) -> None:
        for stored in self._store.list(prefix):
            name = layout.parse_wal_key(stored.key)
            if name is not None:
                self._keys[layout.wal_stem(name.file)] = stored.key
        self._listed.add(prefix)
