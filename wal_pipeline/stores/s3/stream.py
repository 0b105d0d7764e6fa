"""Reads one object's bytes as a stream that never ends early: a cut connection is resumed, or is an error."""

import io
from collections.abc import Mapping
from typing import Any, Final

from wal_pipeline.errors import StoreUnavailableError
from wal_pipeline.stores.s3.client import S3Client
from wal_pipeline.stores.s3.errors import PastEndError, PreconditionFailedError

MAX_RESUMES: Final = 3


class S3Stream(io.RawIOBase):
    """The bytes of one object from ``start`` on.

    A cut connection is opened again at its position, up to three times without a byte in between. ``answer`` is the
    first answer, which describes the object.
    """

    def __init__(self, client: S3Client, key: str, start: int = 0, *, needs: tuple[str, ...] = ()) -> None:
        """Open the object. ``needs`` are the further fields that the answer must have."""
        super().__init__()
        self.answer: Mapping[str, Any] = {}
        self._needs = needs
        self._client = client
        self._key = key
        self._position = start
        self._etag: str | None = None
        self._body: Any = None
        self._left = 0
        self._open()

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer``; 0 only at the object's end. Raises: StoreUnavailableError."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        """Return all bytes that are left. Raises: StoreUnavailableError."""
        return b"".join(iter(lambda: self.read(1024 * 1024), b""))

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to ``size`` bytes; none only at the object's end. Raises: StoreUnavailableError."""
        if size is None or size < 0:
            return self.readall()
        wanted = min(size, self._left)
        data = self._read(wanted) if wanted else b""
        self._position += len(data)
        self._left -= len(data)
        self._client.meter.add_bytes(received=len(data))
        return data

    def close(self) -> None:
        """Close the connection where bytes are left on it."""
        if self._body is not None:
            self._body.close()
            self._body = None
        super().close()

    def _read(self, wanted: int) -> bytes:
        for tries_left in range(MAX_RESUMES, -1, -1):
            try:
                return self._read_once(wanted)
            except StoreUnavailableError:
                if not tries_left:
                    raise
                self._open()
        raise AssertionError("unreachable")

    def _read_once(self, wanted: int) -> bytes:
        call = self._client.describe("get_object", f"read object '{self._key}'", self._key)
        with self._client.translating(call):
            data: bytes = self._body.read(wanted)
        if not data:
            raise StoreUnavailableError(
                call.store, f"object '{self._key}' was cut short at byte {self._position}, {self._left} are missing"
            )
        return data

    def _open(self) -> None:
        parameters: dict[str, Any] = {"Range": f"bytes={self._position}-"} if self._position else {}
        if self._etag is not None:
            parameters["IfMatch"] = self._etag
        try:
            answer = self._client.call(
                "get_object", f"read object '{self._key}'", key=self._key, needs=self._needs, **parameters
            )
        except PastEndError:
            return
        except PreconditionFailedError:
            store = self._client.connection.store
            raise StoreUnavailableError(store, f"object '{self._key}' changed while it was read") from None
        if self._body is not None:
            self._body.close()
        self.answer = self.answer or answer
        self._body = answer["Body"]
        self._etag = answer.get("ETag")
        self._left = self._length(answer)

    def _length(self, answer: Mapping[str, Any]) -> int:
        store = self._client.connection.store
        length = answer.get("ContentLength")
        if length is None:
            raise StoreUnavailableError(store, f"object '{self._key}' came without its length, so its end is unknown")
        if self._position and not str(answer.get("ContentRange", "")).startswith(f"bytes {self._position}-"):
            raise StoreUnavailableError(
                store,
                f"object '{self._key}' came as {answer.get('ContentRange')!r}, expected from byte {self._position}",
            )
        return int(length)
