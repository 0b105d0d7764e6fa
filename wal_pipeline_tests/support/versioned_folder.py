"""A folder as a store that keeps versions: what is hidden stays, is listed as a version, and goes with its key."""

from collections.abc import Iterator
from pathlib import Path

from wal_pipeline.stores.base import StoredObject, StoredVersion
from wal_pipeline_tests.support.archive_scene import WatchedStore, folder_store


class VersionedFolder(WatchedStore):
    """A local folder whose objects can be hidden, as a delete without a version does on B2."""

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(folder_store(name, folder))
        self._hidden: dict[str, list[StoredObject]] = {}

    @property
    def keeps_versions(self) -> bool:
        return True

    def hide(self, key: str) -> None:
        """Hide an object: no listing shows it any more."""
        found = self.inner.head(key)
        assert found is not None
        self._hidden.setdefault(key, []).append(found)
        self.inner.delete(key)

    def hidden_keys(self) -> set[str]:
        """Return the keys of the hidden versions that are left."""
        return set(self._hidden)

    def delete(self, key: str) -> int:
        return super().delete(key) + len(self._hidden.pop(key, ()))

    def versions(self, prefix: str, *, start_after: str = "") -> Iterator[StoredVersion]:
        shown = [(item, True) for item in self.inner.list(prefix, start_after=start_after)]
        hidden = [
            (item, False)
            for key, items in self._hidden.items()
            if key.startswith(prefix) and key > start_after
            for item in items
        ]
        for item, is_latest in sorted(shown + hidden, key=lambda pair: pair[0].key):
            yield StoredVersion(
                item.key, "v", item.size_bytes, item.modified_at, is_latest=is_latest, is_delete_marker=False
            )
