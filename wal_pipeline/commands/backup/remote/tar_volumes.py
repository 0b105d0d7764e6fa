"""Cuts a tar into volumes while it is read and hashed once."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Final

from wal_pipeline.codec.stream_encoder import Source
from wal_pipeline.errors import BaseBackupError
from wal_pipeline.postgres.tar_watch import TarWatch

_READ_BYTES: Final = 1 << 20


class TarStream:
    """Reads a tar from ``source``, hashes it, and passes it through the watch."""

    def __init__(self, source: Source, watch: TarWatch, on_read: Callable[[int], object] = lambda _: None) -> None:
        """Call ``on_read`` after each read, with the number of bytes."""
        self.size_bytes = 0
        self._on_read = on_read
        self._source = source
        self._watch = watch
        self._sha256 = hashlib.sha256()
        self._chunk = memoryview(b"")

    @property
    def sha256(self) -> str:
        """The SHA-256 of the bytes that were read so far, as hex digits."""
        return self._sha256.hexdigest()

    def has_more(self) -> bool:
        """Return whether a byte is left; the first call reads the tar's first MiB."""
        if not self._chunk:
            data = self._source.read(_READ_BYTES)
            self._sha256.update(data)
            self._watch.feed(data)
            self.size_bytes += len(data)
            self._chunk = memoryview(data)
            self._on_read(len(data))
        return bool(self._chunk)

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes; none only at the end."""
        if not self.has_more():
            return b""
        data, self._chunk = self._chunk[:size], self._chunk[size:]
        return bytes(data)

    def volumes(self, volume_size_bytes: int) -> Iterator["Volume"]:
        """Yield the tar's volumes; each must be read to its end before the next."""
        while self.has_more():
            volume = Volume(self, volume_size_bytes)
            yield volume
            if volume.size_bytes < volume_size_bytes and self.has_more():
                raise BaseBackupError("a volume of the tar was not read to its end")

    def require_complete(self) -> None:
        """Raise BaseBackupError where the tar was cut short: it has no end."""
        if not self._watch.complete:
            raise BaseBackupError(f"pg_basebackup's tar was cut short after {self.size_bytes} bytes")


class Volume:
    """The next bytes of a tar, up to the volume's size; ``size_bytes`` counts those that were read."""

    def __init__(self, tar: TarStream, limit: int) -> None:
        self.size_bytes = 0
        self._tar = tar
        self._limit = limit

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes; none only at the volume's end."""
        data = self._tar.read(min(size, self._limit - self.size_bytes)) if self.size_bytes < self._limit else b""
        self.size_bytes += len(data)
        return data
