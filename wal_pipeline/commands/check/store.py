"""Checks one store with a small object of its own: writes it, reads it back, removes it."""

import hashlib
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from wal_pipeline.commands.check.item import CheckItem, try_item
from wal_pipeline.errors import DamagedCopyError, StoreError
from wal_pipeline.stores.base import Body, Store

CHECK_FOLDER: Final = "check/"
_MAX_SKEW_SECONDS: Final = 300.0  # S3 refuses signatures that are 15 minutes off
_METADATA: Final = {"wal-pipeline-check": "1"}


class StoreCheck:
    """The items of one store. An item says so where it needs an earlier one that failed."""

    def __init__(self, store: Store, cluster_prefix: str, now: Callable[[], datetime]) -> None:
        """``cluster_prefix`` ends in ``/``. The object lies below ``check/`` there, under a random name."""
        self._store = store
        self._key = f"{cluster_prefix}{CHECK_FOLDER}{secrets.token_hex(16)}"
        data = secrets.token_bytes(1024)
        md5 = hashlib.md5(data, usedforsecurity=False).digest()
        self._body = Body(data, md5, hashlib.sha256(data).hexdigest())
        self._now = now
        self._written_at: datetime | None = None

    def run(self) -> tuple[CheckItem, ...]:
        """Run all items. The object is removed even where it could not be read back."""
        name = self._store.name
        return (
            try_item(f"{name}: bucket and credentials", self._access),
            try_item(f"{name}: write", self._write),
            try_item(f"{name}: read back", self._read),
            try_item(f"{name}: clock", self._clock),
            try_item(f"{name}: delete", self._delete),
        )

    def _access(self) -> str:
        self._store.check_access()
        return "the bucket answers"

    def _write(self) -> str:
        begun_at = self._now()
        self._store.put_if_absent(self._key, self._body, _METADATA)
        self._written_at = begun_at + (self._now() - begun_at) / 2
        return f"wrote {self._body.size_bytes} bytes"

    def _read(self) -> str:
        self._require_written()
        with self._store.open(self._key) as stream:
            data = stream.read()
        if data != self._body.data:
            raise DamagedCopyError(
                self._store.name, f"object '{self._key}' has other bytes than were written ({len(data)} of them)"
            )
        return "the same bytes came back"

    def _clock(self) -> str:
        written_at = self._require_written()
        described = self._store.head(self._key)
        if described is None:
            raise StoreError(self._store.name, f"object '{self._key}' is not there, expected the one just written")
        skew_seconds = (written_at - described.modified_at.astimezone(UTC)).total_seconds()
        if abs(skew_seconds) > _MAX_SKEW_SECONDS:
            direction = "ahead of" if skew_seconds > 0 else "behind"
            raise StoreError(
                self._store.name,
                f"this host's clock is {abs(skew_seconds):.0f} s {direction} the store's",
                hint="Let NTP set this host's clock: S3 refuses requests that are 15 minutes off.",
            )
        return "this host's clock agrees with the store's"

    def _delete(self) -> str:
        """Delete the object even after a failed write: the store may hold it though its answer was lost."""
        removed = self._store.delete(self._key)
        self._require_written()
        if removed == 0:
            raise StoreError(self._store.name, f"object '{self._key}' was gone before it was deleted")
        return "removed it again"

    def _require_written(self) -> datetime:
        if self._written_at is None:
            raise StoreError(self._store.name, "not tried, because the write failed")
        return self._written_at
