"""Uploads a base backup's objects to one store, in its own threads, until the store fails or all is verified."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, TypeVar

from wal_pipeline.commands.backup.confirm import ProvenObjects
from wal_pipeline.commands.copies.prove import prove, prove_described
from wal_pipeline.commands.copies.stored_bytes import StoredBytes
from wal_pipeline.errors import DamagedCopyError, StoreError, StoreUnavailableError
from wal_pipeline.stores.base import Body, MultipartUpload, PutOutcome, Store, UploadedPart

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_MOST_UPLOADS: Final = 16


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """The sizes and times of a base backup's upload.

    Memory: ``parts_in_memory`` x ``part_size_bytes``, for all stores together. ``tries`` and ``retry_seconds``
    (doubled each time) come on top of the store's own retries. A store that stores no part and verifies no byte for
    ``stall_seconds`` is dropped, so that it cannot delay the others for ever.
    """

    part_size_bytes: int = 8 << 20
    parts_in_memory: int = 8
    uploads_per_store: int = 2
    tries: int = 4
    retry_seconds: float = 2.0
    stall_seconds: float = 900.0

    def for_workers(self, workers: int) -> "UploadLimits":
        """Return limits under which so many workers do not wait for each other: an upload and two parts for each."""
        return replace(
            self,
            parts_in_memory=max(self.parts_in_memory, 2 * workers),
            uploads_per_store=max(self.uploads_per_store, min(workers, _MOST_UPLOADS)),
        )


class SharedPart:
    """One part's bytes, which several stores send. ``free`` is called once the last of them has released it."""

    def __init__(self, number: int, body: Body, holders: set[str], free: Callable[[], None]) -> None:
        self.number = number
        self.body = body
        self._holders = holders
        self._free = free
        self._lock = threading.Lock()

    def release(self, store: str) -> None:
        """Note that a store is done with the part. A second call does no harm."""
        with self._lock:
            last = store in self._holders and len(self._holders) == 1
            self._holders.discard(store)
        if last:
            self._free()


@dataclass(slots=True)
class ObjectUpload:
    """The upload of one object to one store."""

    key: str
    metadata: Mapping[str, str]
    begun: Future[MultipartUpload] | None = None
    parts: list[Future[UploadedPart]] = field(default_factory=list)


class PartUploader:
    """Uploads the objects of one base backup to one store.

    The first error that retries do not cure fails the upload to this store: ``error`` holds it, waiting parts are
    dropped, and every later call does nothing. The uploads to the other stores continue.
    """

    def __init__(self, store: Store, limits: UploadLimits, *, read_back: bool) -> None:
        self.store = store
        self.error: Exception | None = None
        self._limits = limits
        self._read_back = read_back
        self._pool = ThreadPoolExecutor(limits.uploads_per_store, thread_name_prefix=f"upload-{store.name}")
        self._finisher = ThreadPoolExecutor(limits.uploads_per_store, thread_name_prefix=f"verify-{store.name}")
        self._finished: list[Future[None]] = []
        self._proven = ProvenObjects(store)
        self._open: dict[str, MultipartUpload] = {}
        self._held: set[SharedPart] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._progress_at = time.monotonic()
        self._stalled = False

    def begin(self, key: str, metadata: Mapping[str, str]) -> ObjectUpload:
        """Begin an object; nothing is sent before its first part."""
        return ObjectUpload(key, metadata)

    def send(self, upload: ObjectUpload, part: SharedPart) -> None:
        """Send one part of an object that has several."""
        with self._lock:
            if not self._held:
                self._progress_at = time.monotonic()
            self._held.add(part)
        if upload.begun is None:
            upload.begun = self._pool.submit(self._begin, upload)
        upload.parts.append(self._pool.submit(self._send, upload.begun, part))
        if self.error is not None:
            self._release_all()

    def finish(self, upload: ObjectUpload, stored: StoredBytes) -> None:
        """Make the object from its parts and verify it, while the next object is being sent."""
        self._finished.append(self._finisher.submit(self._guarded, lambda: self._finish(upload, stored)))

    def put(self, upload: ObjectUpload, part: SharedPart, stored: StoredBytes) -> None:
        """Store and verify an object of one part."""
        with self._lock:
            self._held.add(part)
        self._finished.append(self._finisher.submit(self._put, upload, part, stored))
        if self.error is not None:
            self._release_all()

    def proves(self, key: str, stored: StoredBytes) -> bool:
        """Whether the store proves to have an object with these bytes; one that does not is no reason to drop it."""
        try:
            prove(self.store, key, stored, read_back=self._read_back, on_bytes=self._on_bytes)
        except StoreError as error:
            _log.warning("an object is not copied: %s", error.message)
            return False
        return True

    def copy(self, source_key: str, upload: ObjectUpload, stored: StoredBytes) -> None:
        """Let the store copy an object that it has, and verify the copy."""
        self._finished.append(
            self._finisher.submit(self._guarded, lambda: self._copy_and_verify(source_key, upload, stored))
        )

    def wait(self) -> None:
        """Return once every object is verified, or the store has failed."""
        for future in self._finished:
            while self.error is None and not future.done():
                wait([future], timeout=1.0)
                self.check_stall()

    def look_again(self) -> None:
        """Look once more at every object that was verified: one that is gone or changed fails the store."""
        if self.error is None:
            self._guarded(lambda: self._retried(self._proven.require_all))

    def check_stall(self) -> None:
        """Fail where there was work for ``stall_seconds`` without any progress."""
        with self._lock:
            busy = bool(self._held) or any(not future.done() for future in self._finished)
            idle_seconds = time.monotonic() - self._progress_at if busy else 0.0
        if idle_seconds > self._limits.stall_seconds:
            self._stalled = True
            self.fail(StoreUnavailableError(self.store.name, f"stored no part for {idle_seconds:.0f} seconds"))

    def fail(self, error: Exception) -> None:
        """Give up the store for this base backup."""
        with self._lock:
            if self.error is not None or self._stop.is_set():
                return
            self.error = error
        self._stop.set()
        self._release_all()
        _log.warning("base backup continues without store %s: %s", self.store.name, error)

    def close(self) -> None:
        """Stop, and abort the uploads that were not completed. A thread that hangs in a call is left behind."""
        self._stop.set()
        self._pool.shutdown(wait=not self._stalled, cancel_futures=True)
        self._finisher.shutdown(wait=not self._stalled, cancel_futures=True)
        self._release_all()
        for upload in list(self._open.values()):
            self._abort(upload)

    def _begin(self, upload: ObjectUpload) -> MultipartUpload:
        begun = self._retried(lambda: self.store.begin_upload(upload.key, upload.metadata))
        with self._lock:
            self._open[upload.key] = begun
        return begun

    def _send(self, begun: Future[MultipartUpload], part: SharedPart) -> UploadedPart:
        try:
            target = begun.result()
            return self._retried(lambda: self.store.upload_part(target, part.number, part.body))
        except Exception as error:
            self.fail(error)
            raise
        finally:
            self._done_with(part)

    def _finish(self, upload: ObjectUpload, stored: StoredBytes) -> None:
        parts = tuple(future.result() for future in upload.parts)
        target = self._open[upload.key]
        outcome = self._retried(lambda: self.store.complete_upload(target, parts))
        with self._lock:
            del self._open[upload.key]
        self._verify(upload.key, outcome, stored)

    def _put(self, upload: ObjectUpload, part: SharedPart, stored: StoredBytes) -> None:
        try:
            self._guarded(lambda: self._put_and_verify(upload, part, stored))
        finally:
            self._done_with(part)

    def _put_and_verify(self, upload: ObjectUpload, part: SharedPart, stored: StoredBytes) -> None:
        outcome = self._retried(lambda: self.store.put_if_absent(upload.key, part.body, upload.metadata))
        self._verify(upload.key, outcome, stored)

    def _copy_and_verify(self, source_key: str, upload: ObjectUpload, stored: StoredBytes) -> None:
        outcome = self._retried(lambda: self.store.copy(source_key, upload.key, upload.metadata))
        self._verify(upload.key, outcome, stored)

    def _verify(self, key: str, outcome: PutOutcome, stored: StoredBytes) -> None:
        """Verify an object; one that was there already is always read back: an answer was lost, or it is another's."""
        self._note_progress()
        read_back = self._read_back or outcome is PutOutcome.EXISTS
        look = partial(prove_described, self.store, key, stored, read_back=read_back, on_bytes=self._on_bytes)
        self._proven.note(self._retried(look))
        self._note_progress()

    def _guarded(self, step: Callable[[], None]) -> None:
        """Run a step. Any error fails the store, and stands in the base backup's result."""
        try:
            step()
        except Exception as error:  # noqa: BLE001
            self.fail(error)

    def _retried(self, call: Callable[[], _T]) -> _T:
        for tries_left in range(self._limits.tries - 1, -1, -1):
            if self._stop.is_set():
                raise self.error or StoreError(self.store.name, "the base backup was given up")
            try:
                return call()
            except (StoreUnavailableError, DamagedCopyError) as error:
                if not tries_left:
                    raise
                _log.info("%s; %d tries left", error.message, tries_left)
                self._stop.wait(self._limits.retry_seconds * 2 ** (self._limits.tries - 1 - tries_left))
        raise AssertionError("unreachable")

    def _abort(self, upload: MultipartUpload) -> None:
        try:
            self.store.abort_upload(upload)
        except StoreError as error:
            _log.warning("upload of '%s' stays until the next base backup aborts it: %s", upload.key, error.message)

    def _on_bytes(self, _count: int) -> None:
        self._note_progress()
        if self._stop.is_set():
            raise self.error or StoreError(self.store.name, "the base backup was given up")

    def _note_progress(self) -> None:
        self._progress_at = time.monotonic()

    def _done_with(self, part: SharedPart) -> None:
        self._note_progress()
        with self._lock:
            self._held.discard(part)
        part.release(self.store.name)

    def _release_all(self) -> None:
        with self._lock:
            held, self._held = self._held, set()
        for part in held:
            part.release(self.store.name)
