"""Delivers one file of the WAL archive from whichever store has a good copy, for a ``restore_command``."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, BinaryIO, Final

from wal_pipeline.archive.format.keys import Layout, StoredName
from wal_pipeline.archive.format.object_metadata import from_metadata
from wal_pipeline.archive.format.words import METADATA_MARK
from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.decoder import open_stored
from wal_pipeline.commands.copies.find import find_copies
from wal_pipeline.commands.copies.stored_bytes import (
    StoredBytes,
    require_bytes,
    require_content,
    require_size,
    require_wal_size,
)
from wal_pipeline.errors import (
    CodecError,
    DamagedCopyError,
    InvalidWalFileError,
    ObjectMissingError,
    RestoreError,
    SettingsError,
    StoreError,
    StoreUnavailableError,
    WalPipelineError,
)
from wal_pipeline.host.limits import look_at_memory
from wal_pipeline.stores.base import Store, StoredObject
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.names import MAX_WAL_SEGMENT_SIZE, FileKind, WalFileName
from wal_pipeline.wal.page_header import LONG_HEADER_BYTES, check_segment, segment_size_of

MAX_TEXT_BYTES: Final = 1 << 20  # history and backup history files are some hundred bytes
_SHUN_SECONDS: Final = 60.0
_LARGE_BYTES: Final = 64 * 2**20
_FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 5.0


class WalUnreachableError(RestoreError):
    """A file could not be had, and its absence is not proven either; ``faults`` holds each store's error."""

    def __init__(self, name: str, faults: Sequence[WalPipelineError]) -> None:
        reasons = "\n".join(fault.message for fault in faults)
        super().__init__(
            f"'{name}' could not be had from any store:\n{reasons}",
            hint="Recovery stops here rather than take this for the end of the archive; start it again when a "
            "store answers with a good copy. Where a store is gone for good, add --store with the other one's name to "
            "the restore_command.",
        )
        self.faults = tuple(faults)

    @property
    def may_pass(self) -> bool:
        """Whether the same call may succeed later."""
        return any(isinstance(fault, StoreUnavailableError) for fault in self.faults)

    @property
    def is_damage(self) -> bool:
        """Whether each store answered, and all copies that they have are damaged."""
        return all(isinstance(one, DamagedCopyError) and not isinstance(one, UnopenedCopyError) for one in self.faults)


class UnopenedCopyError(DamagedCopyError):
    """A copy cannot be opened here, by these identities or this version: whether it is damaged is not known."""


@dataclass(frozen=True, slots=True)
class FetchedWal:
    """One file, opened and verified. ``notes`` say what was wrong on the way, for the server's log."""

    name: WalFileName
    data: bytes
    store: str
    object_key: str
    notes: tuple[str, ...] = ()


class StoreHealth:
    """Which stores failed lately, so that a dead one is asked last and not waited for at every file."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._failed_at: dict[str, float] = {}

    def order(self, stores: Sequence[Store]) -> list[Store]:
        """Return the stores in their order, those that failed in the last minute last."""
        since = self._now() - _SHUN_SECONDS
        return sorted(stores, key=lambda store: self._failed_at.get(store.name, since) > since)

    def failed(self, store: Store) -> None:
        """Note that a store was unavailable just now."""
        self._failed_at[store.name] = self._now()


class LastEncodings:
    """How the segment that each store delivered last was stored: most likely the next one is stored the same way."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[Codec, bool]] = {}

    def likely(self, store: Store, name: WalFileName) -> StoredName | None:
        """Return how a store may hold a segment; None where its listing has to tell."""
        found = self._found.get(store.name)
        return None if found is None or name.kind is not FileKind.SEGMENT else StoredName(name, *found)

    def note(self, store: Store, stored: StoredName) -> None:
        """Note how a file was stored that a store delivered just now."""
        if stored.file.kind is FileKind.SEGMENT:
            self._found[store.name] = (stored.codec, stored.encrypted)

    def forget(self, store: Store) -> None:
        """Let the listing tell the next time: at the end of the archive nothing is to be found at a likely key."""
        self._found.pop(store.name, None)


@dataclass(frozen=True, slots=True)
class WalSource:
    """Where a cluster's WAL can be fetched from: the stores in the order in which they are asked."""

    layout: Layout
    stores: tuple[Store, ...]
    identities: tuple[Any, ...] = ()
    health: StoreHealth = field(default_factory=StoreHealth)
    encodings: LastEncodings = field(default_factory=LastEncodings)

    def fetch(self, name: WalFileName) -> FetchedWal | None:
        """Return the file from the first store with a good copy; None where every store answered and none has it.

        Raises: WalUnreachableError where a store failed or holds only damaged copies, and no other has the file;
        SettingsError where no store has anything at all of this cluster.
        """
        faults: list[WalPipelineError] = []
        for store in self.health.order(self.stores):
            try:
                fetched = self._fetch_from(store, name)
            except WalPipelineError as error:
                faults.append(error)
                if isinstance(error, StoreUnavailableError):
                    self.health.failed(store)
                continue
            if fetched is not None:
                return replace(fetched, notes=(*(fault.message for fault in faults), *fetched.notes))
        if faults:
            raise WalUnreachableError(name.name, faults)
        self._require_known_cluster(name)
        return None

    def _fetch_from(self, store: Store, name: WalFileName) -> FetchedWal | None:
        """Return the file from one store; None where it answered that it has no copy."""
        likely = self._fetch_likely(store, name)
        return self._fetch_listed(store, name) if likely is None else likely

    def _fetch_likely(self, store: Store, name: WalFileName) -> FetchedWal | None:
        """Return a segment from the key that it most likely has, in one request; else the listing has to decide.

        Raises: StoreUnavailableError.
        """
        stored = self.encodings.likely(store, name)
        if stored is None:
            return None
        key = self.layout.wal_key(name, stored.codec, encrypted=stored.encrypted)
        try:
            return self._fetch_copy(store, key, stored)
        except StoreUnavailableError:
            raise
        except WalPipelineError:  # not there, or damaged, or refused: what the listing leads to will say so
            self.encodings.forget(store)
            return None

    def _fetch_listed(self, store: Store, name: WalFileName) -> FetchedWal | None:
        faults: list[WalPipelineError] = []
        for key, stored in find_copies(ClusterStore(store, self.layout), name):
            try:
                fetched = self._fetch_copy(store, key, stored)
            except ObjectMissingError:
                continue
            except WalPipelineError as error:
                faults.append(error)
            else:
                return replace(fetched, notes=(*(fault.message for fault in faults), *fetched.notes))
        if faults:  # a copy that could not be looked at may be good
            raise next((one for one in faults if not isinstance(one, DamagedCopyError)), faults[0])
        return None

    def open_copy(self, store: Store, key: str) -> FetchedWal:
        """Return the file from one copy of it, which nothing replaces.

        Raises: UnopenedCopyError, DamagedCopyError, ObjectMissingError, StoreError.
        """
        stored = self.layout.parse_wal_key(key)
        if stored is None:
            raise DamagedCopyError(store.name, f"object '{key}' has no key of a WAL file")
        return self._fetch_copy(store, key, stored)

    def _fetch_copy(self, store: Store, key: str, stored: StoredName) -> FetchedWal:
        try:
            with store.open_described(key) as (described, stream):
                copy = _Copy(store, described, stored, self.layout, self.identities)
                body = copy.read(stream)
            data, notes = copy.open(body)
        except StoreError:
            raise
        except WalPipelineError as error:
            # Encrypted bytes that are as they were stored, or have no checksum: the identity may be the wrong one.
            unopened = stored.encrypted and isinstance(error, CodecError)
            kind = UnopenedCopyError if unopened else DamagedCopyError
            raise kind(store.name, f"object '{key}' cannot be used: {error.message}") from error
        self.encodings.note(store, stored)
        return FetchedWal(stored.file, data, store.name, key, notes)

    def _require_known_cluster(self, name: WalFileName) -> None:
        """Refuse to call a file absent where nothing of the cluster is found: that is a wrong setting, not an end."""
        if any(next(iter(store.list(self.layout.root)), None) is not None for store in self.stores):
            return
        names = ", ".join(store.name for store in self.stores) or "none"
        raise SettingsError(
            f"no store ({names}) has anything below '{self.layout.root}', so '{name.name}' cannot be called absent",
            hint="Check the cluster's name, the prefix, the buckets and the system identifier.",
        )


@dataclass(frozen=True, slots=True)
class _Copy:
    """One copy on one store: downloaded, compared with what is recorded of it, and opened."""

    store: Store
    described: StoredObject
    stored: StoredName
    layout: Layout
    identities: tuple[Any, ...]

    def read(self, stream: BinaryIO) -> bytes:
        """Return the stored bytes. Raises: DamagedCopyError where they are not as many as described."""
        require_wal_size(self.store, self.described.key, self.described.size_bytes)
        self._require_memory()
        body = stream.read()
        require_size(self.store, self.described.key, len(body), self.described.size_bytes)
        return body

    def _require_memory(self) -> None:
        """Refuse a large copy that would get this process killed. Raises: StoreUnavailableError: it may fit later."""
        stored_bytes = self.described.size_bytes
        memory = look_at_memory() if stored_bytes >= _LARGE_BYTES else None
        needed = (3 if self.stored.encrypted else 2) * stored_bytes
        if memory is not None and needed > memory.available_bytes:
            raise StoreUnavailableError(
                self.store.name,
                f"object '{self.described.key}' needs {needed / 2**20:,.0f} MiB of memory to be opened, "
                f"{memory.available_bytes / 2**20:,.0f} MiB are free",
                hint="Give this host or its container more memory, at least three times the segment.",
            )

    def open(self, body: bytes) -> tuple[bytes, tuple[str, ...]]:
        """Return the file's bytes and what has to be said about them."""
        if METADATA_MARK in self.described.metadata:
            return self._open_recorded(body), ()
        data, notes = self._open_unrecorded(body)
        self._check_form(data)
        return data, notes

    def _open_recorded(self, body: bytes) -> bytes:
        try:
            file, encoding = from_metadata(self.described.key, self.described.metadata)
        except InvalidWalFileError as error:  # it names the object already
            raise DamagedCopyError(self.store.name, error.message, hint=error.hint) from error
        if (file.name, file.system_identifier) != (self.stored.file.name, self.layout.system_identifier):
            raise self._damaged(
                f"its metadata is of '{file.name}' of system identifier {file.system_identifier}, "
                f"expected '{self.stored.file.name}' of {self.layout.system_identifier}"
            )
        try:
            data = self._opened(body, min(file.size_bytes, self._largest_bytes), has_pages=not file.is_unread)
            require_content(self.store, self.described.key, data, file)
        except WalPipelineError:  # the content's SHA-256 proves all; that of the stored bytes tells what is damaged
            require_bytes(self.store, self.described.key, StoredBytes.of(body), encoding)
            raise
        if not file.is_unread:
            self._check_form(data)
        return data

    def _open_unrecorded(self, body: bytes) -> tuple[bytes, tuple[str, ...]]:
        """Open a copy whose metadata was lost, as in a copy between buckets by another tool."""
        data = self._opened(body, self._largest_bytes)
        key = self.described.key
        return data, (
            f"{self.store.name}: object '{key}' has no metadata: there is no checksum to compare, only its form",
        )

    def _opened(self, body: bytes, limit: int, *, has_pages: bool = True) -> bytes:
        return open_stored(
            body,
            self.stored.codec,
            encrypted=self.stored.encrypted,
            identities=self.identities,
            max_size_bytes=limit,
            size_of_start=partial(segment_size_of, self.stored.file) if has_pages and self._has_pages else None,
        )

    @property
    def _has_pages(self) -> bool:
        return self.stored.file.kind in (FileKind.SEGMENT, FileKind.PARTIAL)

    @property
    def _largest_bytes(self) -> int:
        return MAX_WAL_SEGMENT_SIZE if self._has_pages else MAX_TEXT_BYTES

    def _check_form(self, data: bytes) -> None:
        """Check that a segment is one by its first page; the other kinds are short texts."""
        if self._has_pages:
            check_segment(self.stored.file, data[:LONG_HEADER_BYTES], len(data), {self.layout.system_identifier})
        elif not 0 < len(data) <= MAX_TEXT_BYTES or b"\0" in data:
            raise self._damaged(f"it is not a text of 1 to {MAX_TEXT_BYTES} bytes")

    def _damaged(self, reason: str) -> DamagedCopyError:
        return DamagedCopyError(self.store.name, f"object '{self.described.key}' cannot be used: {reason}")


def fetch_patiently(
    fetch: Callable[[], FetchedWal | None],
    retry_seconds: float,
    *,
    say: Callable[[str], None],
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> FetchedWal | None:
    """Call ``fetch`` again while the stores are unavailable, for ``retry_seconds``: a failure stops a standby.

    Raises: what ``fetch`` raised last.
    """
    deadline = now() + retry_seconds
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            return fetch()
        except (WalUnreachableError, StoreUnavailableError) as error:
            if not error.may_pass or now() + pause > deadline:
                raise
            say(f"{error.message}\ntrying again in {pause:g} s")
        sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
