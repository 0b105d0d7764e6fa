"""Builds an archiver over a spool and folder stores, with a catalog, a movable clock and stores that misbehave."""

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.format.object_metadata import from_metadata
from wal_pipeline.archive.records import Codec, CopyStatus
from wal_pipeline.catalog.catalog import Catalog, open_catalog
from wal_pipeline.codec.decoder import open_stored
from wal_pipeline.codec.encoder import Encoder
from wal_pipeline.commands.archive_push.events import ArchiveEvent
from wal_pipeline.commands.archive_push.flow_control import ArchiveOptions
from wal_pipeline.commands.archive_push.prepare import Preparer
from wal_pipeline.commands.archive_push.run import Archiver
from wal_pipeline.commands.cluster_identity import ClusterIdentity
from wal_pipeline.commands.continuity.archived import ArchivedWal
from wal_pipeline.commands.continuity.guard import ContinuityGuard
from wal_pipeline.commands.refill.wal_files import Refiller
from wal_pipeline.errors import SpoolError, StoreUnavailableError
from wal_pipeline.spool import Spool, SpoolFile
from wal_pipeline.stores.base import Body, MultipartUpload, PutOutcome, Store, StoredObject, StoredVersion, UploadedPart
from wal_pipeline.stores.local.store import LocalFolderStore
from wal_pipeline_tests.support.segments import SEGMENT_BYTES, SYSTEM_IDENTIFIER, NoCommits, name_of

CLUSTER = "main"
PATIENCE_SECONDS = 30


def layout(system_identifier: int = SYSTEM_IDENTIFIER) -> Layout:
    """Return the keys of the scene's cluster."""
    return Layout("", CLUSTER, system_identifier)


class WatchedStore(Store):
    """A store that passes every call on, and calls ``before`` and ``after`` it with the call's name and key.

    ``created`` are the keys of the objects that were made, in order.
    """

    def __init__(self, inner: Store) -> None:
        self.name = inner.name
        self.inner = inner
        self.before: Callable[[str, str], None] = lambda _call, _key: None
        self.after: Callable[[str, str], None] = lambda _call, _key: None
        self.created: list[str] = []
        self.calls: list[tuple[str, str]] = []

    @property
    def keeps_versions(self) -> bool:
        return self.inner.keeps_versions

    def _around(self, call: str, key: str) -> None:
        self.calls.append((call, key))
        self.before(call, key)

    def put_if_absent(self, key: str, body: Body, metadata: Mapping[str, str]) -> PutOutcome:
        self._around("put", key)
        outcome = self.inner.put_if_absent(key, body, metadata)
        if outcome is PutOutcome.CREATED:
            self.created.append(key)
        self.after("put", key)
        return outcome

    def open(self, key: str, *, start: int = 0) -> AbstractContextManager[BinaryIO]:
        self._around("open", key)
        opened = self.inner.open(key, start=start)
        self.after("open", key)
        return opened

    def head(self, key: str) -> StoredObject | None:
        self._around("head", key)
        return self.inner.head(key)

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[StoredObject]:
        self._around("list", prefix)
        return self.inner.list(prefix, start_after=start_after)

    def delete(self, key: str) -> int:
        self._around("delete", key)
        return self.inner.delete(key)

    def versions(self, prefix: str, *, start_after: str = "") -> Iterator[StoredVersion]:
        return self.inner.versions(prefix, start_after=start_after)

    def begin_upload(self, key: str, metadata: Mapping[str, str]) -> MultipartUpload:
        return self.inner.begin_upload(key, metadata)

    def upload_part(self, upload: MultipartUpload, number: int, body: Body) -> UploadedPart:
        return self.inner.upload_part(upload, number, body)

    def complete_upload(self, upload: MultipartUpload, parts: tuple[UploadedPart, ...]) -> PutOutcome:
        return self.inner.complete_upload(upload, parts)

    def abort_upload(self, upload: MultipartUpload) -> None:
        self.inner.abort_upload(upload)

    def uploads(self, prefix: str) -> Iterator[MultipartUpload]:
        return self.inner.uploads(prefix)

    def check_access(self) -> None:
        self.inner.check_access()


def folder_store(name: str, folder: Path) -> LocalFolderStore:
    """Return a prepared local folder as the store of that name."""
    folder.mkdir(parents=True, exist_ok=True)
    store = LocalFolderStore(name, folder)
    store.prepare()
    return store


@dataclass
class ArchiveScene:
    """Everything below one folder. ``ahead`` is added to the real time to make the clock.

    ``passed`` is the part that really passed; the rest is a step of the clock.
    """

    folder: Path
    stores: dict[str, WatchedStore] = field(default_factory=dict)
    codec: Codec = Codec.ZSTD
    server_identifier: int | None = SYSTEM_IDENTIFIER
    fixed_identifier: int | None = None
    asked: int = 0
    settle_seconds: float = 60.0
    options: ArchiveOptions = field(default_factory=ArchiveOptions)
    ahead: timedelta = timedelta(0)
    passed: timedelta = timedelta(0)

    def __post_init__(self) -> None:
        self.spool_folder.mkdir(exist_ok=True)
        if not self.stores:
            self.stores = {name: WatchedStore(folder_store(name, self.folder / name)) for name in ("r2", "b2")}
        self.spool = self.open_spool()
        self.catalog: Catalog = self.open_catalog()

    @property
    def spool_folder(self) -> Path:
        return self.folder / "spool"

    @property
    def quarantine_folder(self) -> Path:
        return self.folder / "quarantine"

    def clock(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def monotonic(self) -> float:
        return time.monotonic() + self.passed.total_seconds()

    def open_spool(self, kind: type[Spool] = Spool) -> Spool:
        return kind(self.spool_folder, self.quarantine_folder, self.settle_seconds, monotonic=self.monotonic)

    def open_catalog(self) -> Catalog:
        return open_catalog(f"sqlite:///{self.folder}/catalog.sqlite", CLUSTER, clock=self.clock)

    def lose_catalog(self) -> None:
        """Remove the catalog's file and open a new one."""
        self.catalog.close()
        for path in self.folder.glob("catalog.sqlite*"):
            path.unlink()
        self.catalog = self.open_catalog()

    def settle(self) -> None:
        """Move the clock until every file of the spool has settled and every store may be tried again."""
        self.ahead += timedelta(hours=1)
        self.passed += timedelta(hours=1)

    def identity(self) -> ClusterIdentity:
        return ClusterIdentity(self.catalog, self.ask_server, self.clock, fixed=self.fixed_identifier)

    def ask_server(self) -> int | None:
        """Answer as the server does; ``asked`` counts the questions."""
        self.asked += 1
        return self.server_identifier

    def encoder(self) -> Encoder:
        return Encoder(self.codec)

    def archiver(self) -> Archiver:
        return Archiver(
            spool=self.spool,
            stores=self.stores,
            catalog=self.catalog,
            identity=self.identity(),
            preparer=Preparer(self.spool, self.encoder(), NoCommits()),
            guard=self.guard,
            layout=layout,
            clock=self.clock,
            options=self.options,
        )

    def guard(self) -> ContinuityGuard:
        archived = ArchivedWal(self.stores, self.catalog, layout)
        return ContinuityGuard(archived, self.spool_folder, self.quarantine_folder)

    def refiller(self, *, with_spool: bool = True) -> Refiller:
        preparer = Preparer(self.spool, self.encoder(), NoCommits())
        return Refiller(
            stores=self.stores,
            catalog=self.catalog,
            identity=self.identity(),
            layout=layout,
            clock=self.clock,
            read_back=True,
            concurrency=2,
            spool=self.spool if with_spool else None,
            preparer=preparer if with_spool else None,
        )

    def run(self) -> list[ArchiveEvent]:
        """Archive the spool and return the events."""
        return list(self.archiver().drain())

    def spooled(self) -> list[str]:
        """Return the names of the files in the spool, without our lock."""
        return sorted(path.name for path in self.spool_folder.iterdir() if not path.name.startswith("."))

    def quarantined(self) -> list[str]:
        return sorted(path.name for path in self.quarantine_folder.glob("*"))

    def verified(self, store: str) -> set[str]:
        """Return the names of a store's verified copies, by the catalog."""
        return {name for _, name in self.catalog.files.names_on(store, CopyStatus.VERIFIED)}


def contents(store: Store) -> dict[str, bytes]:
    """Return the content of each file on a store by name, opened and proved by the digests in its metadata.

    Bytes that differ from the metadata, and a second object of one name, are errors.
    """
    found: dict[str, bytes] = {}
    for listed in store.list(""):
        described = store.head(listed.key)
        assert described is not None
        file, encoding = from_metadata(listed.key, described.metadata)
        with store.open(listed.key) as stream:
            stored = stream.read()
        assert hashlib.sha256(stored).hexdigest() == encoding.sha256, listed.key
        content = open_stored(stored, encoding.codec, encrypted=False, max_size_bytes=1 << 30)
        assert hashlib.sha256(content).hexdigest() == file.sha256, listed.key
        assert file.name not in found, listed.key
        found[file.name] = content
    return found


def fail(store: str) -> Callable[[str, str], None]:
    """Return a function that makes every call of a store fail, as if the store were down."""

    def down(call: str, key: str) -> None:
        raise StoreUnavailableError(store, f"cannot {call}: it is down")

    return down


def nothing(_call: str, _key: str) -> None:
    """Do nothing."""


class StubbornSpool(Spool):
    """A spool in which one file can be neither read nor removed, as on a failing disk."""

    unreadable: str = ""
    unremovable: str = ""

    def read(self, file: SpoolFile) -> bytes | None:
        if file.name.name == self.unreadable:
            raise SpoolError(f"spool has '{file.name.name}', which cannot be read: Input/output error")
        return super().read(file)

    def release(self, file: SpoolFile) -> bool:
        if file.name.name == self.unremovable:
            raise SpoolError(f"spool has '{file.name.name}', which cannot be removed: Operation not permitted")
        return super().release(file)


def fill(folder: Path, count: int) -> None:
    """Put ``count`` sparse files of a segment's size into a spool."""
    for number in range(1, count + 1):
        os.close(os.open(folder / name_of(number), os.O_CREAT | os.O_WRONLY))
        os.truncate(folder / name_of(number), SEGMENT_BYTES)


def names(events: Iterable[ArchiveEvent], kind: type) -> list[str]:
    """Return the file names of the events of one kind."""
    return [event.file.name if hasattr(event, "file") else event.name for event in events if isinstance(event, kind)]  # type: ignore[union-attr]


def one(events: Iterable[ArchiveEvent], kind: type) -> Any:
    """Return the one event of a kind."""
    (found,) = [event for event in events if isinstance(event, kind)]
    return found


def assert_archived(scene: ArchiveScene, made: dict[str, bytes]) -> None:
    """Require that both stores hold exactly these files, once each, and that the spool is empty."""
    assert scene.spooled() == []
    for name, store in scene.stores.items():
        assert contents(store) == made
        assert scene.verified(name) == set(made)
        assert max(Counter(store.created).values()) == 1
