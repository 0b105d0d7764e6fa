"""Reads one object of a local folder, and turns the disk's errors into the store's."""

import io
from collections.abc import Callable
from typing import Any, BinaryIO

from wal_pipeline.errors import StoreError


class LocalStream(io.RawIOBase):
    """The bytes of one open file. A disk that fails in the middle of a read is a store that fails.

    Whoever reads from several stores then asks the next one, as for a bucket whose connection is cut.
    """

    def __init__(self, file: BinaryIO, failed: Callable[[OSError], StoreError]) -> None:
        """``failed`` makes the store's error from the operating system's."""
        super().__init__()
        self._file = file
        self._failed = failed

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer``; 0 only at the object's end. Raises: StoreError."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        """Return all bytes that are left. Raises: StoreError."""
        return self.read()

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to ``size`` bytes; none only at the object's end. Raises: StoreError."""
        try:
            return self._file.read(-1 if size is None else size)
        except OSError as error:
            raise self._failed(error) from error
