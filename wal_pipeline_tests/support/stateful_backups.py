"""The base backups of the stateful test: what was made, what accidents did to it, and what expiry may take."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from wal_pipeline.archive.format.base_backup.manifest import BaseBackupManifest
from wal_pipeline.archive.format.lease import Lease, LeasedWork
from wal_pipeline.stores.base import Body
from wal_pipeline.wal.names import require_file_name
from wal_pipeline_tests.support.archive_scene import WatchedStore, layout
from wal_pipeline_tests.support.segments import SEGMENT_BYTES
from wal_pipeline_tests.support.stateful_store import damaged

_AT = datetime(2026, 11, 22, tzinfo=UTC)
ACCIDENTS = ("flip", "half", "swallow")


@dataclass
class MadeBackups:
    """The base backups that were put on the stores, by id, with the bytes of their objects.

    ``running``: the keys of those that a living process stores now, without a manifest, and of its lease.
    """

    stores: Mapping[str, WatchedStore]
    made: dict[str, tuple[BaseBackupManifest, dict[str, bytes]]] = field(default_factory=dict)
    running: dict[str, list[str]] = field(default_factory=dict)

    def put(self, manifest: BaseBackupManifest, parts: dict[str, bytes]) -> None:
        """Put a base backup on every store."""
        self.made[manifest.backup_id] = (manifest, parts)
        for store in self.stores.values():
            for name, data in parts.items():
                store.inner.put_if_absent(layout().base_key(manifest.backup_id, name), Body.of(data), {})

    def begin(self, manifest: BaseBackupManifest, parts: dict[str, bytes]) -> None:
        """Put a lease and the volumes on every store, as a process does that then waits for PostgreSQL's archiver."""
        lease = Lease(
            secrets.token_hex(8), LeasedWork.BASE_BACKUP, manifest.backup_id, (), "db1", 4711, "", "1.0", _AT, _AT
        )
        objects = {layout().lease_key(lease.token, 1): lease.to_json()}
        objects |= {
            layout().base_key(manifest.backup_id, name): data for name, data in parts.items() if name.endswith(".tar")
        }
        for store in self.stores.values():
            for key, data in objects.items():
                store.inner.put_if_absent(key, Body.of(data), {})
        self.running[manifest.backup_id] = list(objects)
        self.made[manifest.backup_id] = (manifest, parts)

    def finish(self) -> BaseBackupManifest:
        """Let the oldest that runs store the rest, the manifest last, and remove its lease."""
        backup_id = min(self.running)
        lease = self.running.pop(backup_id)[0]
        manifest, parts = self.made[backup_id]
        self.put(manifest, parts)
        for store in self.stores.values():
            store.inner.delete(lease)
        return manifest

    def check_running(self) -> None:
        """Check that nobody removed what a living process stores. Raises: AssertionError."""
        for backup_id, keys in self.running.items():
            for store in self.stores.values():
                gone = [key for key in keys if store.inner.head(key) is None]
                assert not gone, f"{store.name}: '{backup_id}' is stored now, and {gone} went"

    def spoil(self, store: str, number: int, how: str) -> None:
        """Damage or remove one object of a base backup on a store."""
        there = sorted(self.ids_on(store) - self.running.keys())
        if not there:
            return
        backup_id = there[number % len(there)]
        names = sorted(self.made[backup_id][1])
        key = layout().base_key(backup_id, names[number % len(names)])
        inner = self.stores[store].inner
        if inner.head(key) is None:
            return
        with inner.open(key) as stream:
            data = stream.read()
        inner.delete(key)
        if how != "swallow":
            inner.put_if_absent(key, Body.of(damaged(data, how)), {})

    def ids_on(self, store: str) -> set[str]:
        """Return the base backups of which a store has an object, whole or not."""
        found = {layout().backup_id_of(listed.key) for listed in self.stores[store].inner.list("")}
        return {one for one in found if one is not None}

    def whole_on(self, store: str) -> set[str]:
        """Return the base backups that a store has exactly as they were made."""
        return {backup_id for backup_id in self.ids_on(store) if self._is_whole(store, backup_id)}

    def start_of(self, backup_id: str) -> int:
        """Return the number of the segment in which a base backup begins."""
        return require_file_name(backup_id.rpartition("-")[2]).number(SEGMENT_BYTES)

    def check_gone(self, store: str, before: set[str], window_begins_at: datetime) -> None:
        """Check that a newer whole base backup from before the window stands for each one that went.

        Raises: AssertionError.
        """
        standing = [
            backup_id for backup_id in self.whole_on(store) if self.made[backup_id][0].finished_at <= window_begins_at
        ]
        for backup_id in before - self.ids_on(store):
            assert any(one > backup_id for one in standing), f"{store}: '{backup_id}' was removed, and {standing} stay"

    def _is_whole(self, store: str, backup_id: str) -> bool:
        inner = self.stores[store].inner
        for name, data in self.made[backup_id][1].items():
            key = layout().base_key(backup_id, name)
            if inner.head(key) is None:
                return False
            with inner.open(key) as stream:
                if stream.read() != data:
                    return False
        return True
