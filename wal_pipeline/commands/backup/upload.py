"""Uploads the objects of a base backup to every store at once: the same bytes, read once, in equal parts."""

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from wal_pipeline.commands.backup.part_uploader import ObjectUpload, PartUploader, SharedPart, UploadLimits
from wal_pipeline.commands.copies.stored_bytes import StoredBytes, difference
from wal_pipeline.errors import BaseBackupError
from wal_pipeline.stores.base import Body, Store

MAX_PARTS: Final = 10_000
Sink = Callable[[bytes], None]


class BackupUpload:
    """The upload of one base backup to several stores; a context manager that aborts unfinished objects.

    Buffers are bounded: the slowest store sets the pace, and a store that fails is dropped. Where every store has
    failed, the next call raises. Objects may be handed over from several threads at once.
    """

    def __init__(self, stores: Sequence[Store], limits: UploadLimits, *, read_back: bool = True) -> None:
        self.stored_bytes = 0
        self._limits = limits
        self._uploaders = [PartUploader(store, limits, read_back=read_back) for store in stores]
        self._slots = threading.Semaphore(limits.parts_in_memory)
        self._lock = threading.Lock()
        self._is_given_up = False

    @property
    def part_size_bytes(self) -> int:
        """The size of each part of an object but its last."""
        return self._limits.part_size_bytes

    @property
    def failures(self) -> dict[str, Exception]:
        """The error of each store that was dropped, by the store's name."""
        return {uploader.store.name: uploader.error for uploader in self._uploaders if uploader.error is not None}

    @property
    def live_stores(self) -> tuple[Store, ...]:
        """The stores that have not failed."""
        return tuple(uploader.store for uploader in self._uploaders if uploader.error is None)

    def store_object(
        self, key: str, metadata: Mapping[str, str], write: Callable[[Sink], None], expected: StoredBytes | None = None
    ) -> StoredBytes:
        """Upload the bytes that ``write`` passes to its sink, as one object.

        Returns as soon as all bytes are handed over; ``wait`` returns when they are verified. With ``expected``, other
        bytes are refused before the object exists.

        Raises: BaseBackupError where every store has failed or the bytes are not the expected ones.
        """
        cutter = _PartCutter(self, key, metadata)
        write(cutter.take)
        return cutter.finish(expected)

    def all_prove(self, key: str, stored: StoredBytes) -> bool:
        """Whether every store proves to have an object with these bytes. Raises: BaseBackupError where all failed."""
        self.require_live()
        return all(uploader.proves(key, stored) for uploader in self.live_uploaders)

    def copy_object(self, source_key: str, key: str, metadata: Mapping[str, str], stored: StoredBytes) -> None:
        """Let every store copy an object with these bytes; ``wait`` returns when the copies are verified.

        Raises: BaseBackupError where every store has failed.
        """
        self.require_live()
        for uploader in self.live_uploaders:
            uploader.copy(source_key, uploader.begin(key, metadata), stored)

    def wait(self) -> None:
        """Return once each store has verified every object or has failed.

        Raises: BaseBackupError where every store has failed.
        """
        for uploader in self._uploaders:
            uploader.wait()
        self.require_live()

    def look_again(self) -> None:
        """Look again at all that was stored; a store that lost or changed an object is dropped.

        Raises: BaseBackupError where every store has failed.
        """
        for uploader in self._uploaders:
            uploader.look_again()
        self.require_live()

    def give_up(self) -> None:
        """Let every thread that hands over an object raise, because another one failed."""
        self._is_given_up = True

    def require_live(self) -> None:
        """Raise BaseBackupError where every store has failed, or the upload was given up."""
        if self._is_given_up:
            raise BaseBackupError("the base backup was stopped")
        if not self.live_stores:
            reasons = "; ".join(str(getattr(error, "message", error)) for error in self.failures.values())
            raise BaseBackupError(
                f"no store took the base backup: {reasons}",
                hint="No part of it counts. Repair the stores and take it again.",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop all threads; uploads that were not completed are aborted."""
        for uploader in self._uploaders:
            uploader.close()

    def take_buffer(self) -> bytearray:
        """Wait for room in memory, and return the empty buffer of a part."""
        while not self._slots.acquire(timeout=min(1.0, self._limits.stall_seconds)):
            for uploader in self._uploaders:
                uploader.check_stall()
            self.require_live()
        self.require_live()
        return bytearray()  # most objects are much smaller than a part

    def share(self, number: int, data: memoryview, sha256: str | None = None) -> SharedPart:
        """Make a part that every live store keeps until it has sent it. ``sha256``: its digest, where it is known."""
        live = {uploader.store.name for uploader in self.live_uploaders}
        with self._lock:
            self.stored_bytes += len(data)
        return SharedPart(number, Body.of(data, sha256), live, self._slots.release)

    @property
    def live_uploaders(self) -> list[PartUploader]:
        """The uploaders whose stores have not failed."""
        return [uploader for uploader in self._uploaders if uploader.error is None]


class _PartCutter:
    """Cuts one object's bytes into equal parts and hands each to the uploaders."""

    def __init__(self, upload: BackupUpload, key: str, metadata: Mapping[str, str]) -> None:
        self._upload = upload
        self._key = key
        self._uploaders = [(uploader, uploader.begin(key, metadata)) for uploader in upload.live_uploaders]
        self._buffer = upload.take_buffer()
        self._number = 1
        self._sha256 = hashlib.sha256()
        self._size_bytes = 0

    def take(self, data: bytes) -> None:
        """Take the object's next bytes."""
        self._sha256.update(data)
        self._size_bytes += len(data)
        view = memoryview(data)
        while view:
            if len(self._buffer) == self._upload.part_size_bytes:
                self._send_full_part()
            room = self._upload.part_size_bytes - len(self._buffer)
            self._buffer += view[:room]
            view = view[room:]

    def finish(self, expected: StoredBytes | None) -> StoredBytes:
        """Send the last part, and let each store finish the object."""
        stored = StoredBytes(self._size_bytes, self._sha256.hexdigest())
        fault = None if expected is None else difference(self._key, stored, expected)
        if fault is not None:
            raise BaseBackupError(fault)
        if self._number == 1:
            part = self._part(stored.sha256)
            self._each(lambda uploader, upload: uploader.put(upload, part, stored), part)
        else:
            self._send()
            self._each(lambda uploader, upload: uploader.finish(upload, stored))
        return stored

    def _send_full_part(self) -> None:
        self._send()
        self._number += 1
        if self._number > MAX_PARTS:
            raise BaseBackupError(
                f"object '{self._key}' would have more than {MAX_PARTS} parts of {self._upload.part_size_bytes} bytes"
            )
        self._buffer = self._upload.take_buffer()

    def _send(self) -> None:
        part = self._part()
        self._each(lambda uploader, upload: uploader.send(upload, part), part)

    def _part(self, sha256: str | None = None) -> SharedPart:
        return self._upload.share(self._number, memoryview(self._buffer), sha256)

    def _each(self, act: Callable[[PartUploader, ObjectUpload], None], part: SharedPart | None = None) -> None:
        for uploader, upload in self._uploaders:
            if uploader.error is None:
                act(uploader, upload)
            elif part is not None:
                part.release(uploader.store.name)  # it failed after the part was made for it
