"""Puts, finds, opens and copies lists of relations on one store, with the bytes proven."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from wal_pipeline.archive.format.keys import moment_name, read_moment_name
from wal_pipeline.archive.format.relation_object import DescribedList, list_from_metadata, list_to_metadata
from wal_pipeline.archive.format.relations import MAX_LIST_BYTES, KnownRelations, RelationList
from wal_pipeline.archive.records import Encoding
from wal_pipeline.codec.decoder import open_stored
from wal_pipeline.codec.encoder import Encoded
from wal_pipeline.commands.copies.prove import head_proved, prove, read_proved
from wal_pipeline.commands.copies.stored_bytes import require_content, require_size
from wal_pipeline.errors import CodecError, DamagedCopyError, ObjectMissingError, RelationListError
from wal_pipeline.stores.base import Body, PutOutcome
from wal_pipeline.stores.cluster_store import ClusterStore


@dataclass(frozen=True, slots=True)
class StoredList:
    """One object of a store that holds a list, by what its key says."""

    store: str
    moment: str
    key: str
    size_bytes: int

    @property
    def taken_at(self) -> datetime:
        """When the list was taken."""
        at = read_moment_name(self.moment)
        if at is None:
            raise ValueError(f"'{self.moment}' is no moment")
        return at


def find_lists(place: ClusterStore) -> list[StoredList]:
    """Return the lists on one store, the oldest first. One LIST. Raises: StoreError."""
    found = []
    for item in place.store.list(place.layout.relations_root):
        name = place.layout.parse_relations_key(item.key)
        if name is not None:
            found.append(StoredList(place.name, name.moment, item.key, item.size_bytes))
    return found


def describe_list(listed: RelationList, content: bytes) -> DescribedList:
    """Return the description of a list whose JSON is ``content``."""
    return DescribedList(listed.taken_at, listed.system_identifier, len(content), hashlib.sha256(content).hexdigest())


def put_list(place: ClusterStore, described: DescribedList, encoded: Encoded, *, read_back: bool) -> str:
    """Make sure that the store has a verified list of that second, and return its key.

    One that is there already was taken in the same second by another process: it is proven and stays. One whose stored
    bytes are not those that its metadata promise is removed and stored again.

    Raises: StoreError, RelationListError where the metadata of the one that is there cannot be read.
    """
    store, encoding = place.store, encoded.encoding
    key = place.layout.relations_key(moment_name(described.taken_at), encoding.codec, encrypted=encoding.encrypted)
    metadata = list_to_metadata(described, encoding)
    try:
        outcome = store.put_if_absent(key, encoded.body, metadata)
        is_ours = outcome is PutOutcome.CREATED
        there = encoding if is_ours else list_from_metadata(key, head_proved(store, key).metadata)[1]
        prove(store, key, there, read_back=read_back)
    except (DamagedCopyError, ObjectMissingError):
        store.delete(key)
        store.put_if_absent(key, encoded.body, metadata)
        prove(store, key, encoding, read_back=read_back)
    return key


def open_list(
    place: ClusterStore, found: StoredList, identities: Sequence[Any] = (), *, known: KnownRelations | None = None
) -> RelationList:
    """Read one list and prove it, from the stored bytes to the moment in its key.

    One whose metadata another tool lost in a copy is opened by its key, and checked by its form alone.

    Raises: DamagedCopyError, ObjectMissingError, StoreError; RelationListError where its metadata or a field cannot be
    read; CodecError where no identity opens it.
    """
    data, described = _read(place, found)
    limit = MAX_LIST_BYTES if described is None else described[0].size_bytes
    stored = place.layout.parse_relations_key(found.key)
    if stored is None:
        raise DamagedCopyError(place.name, f"object '{found.key}' has no key of a list of relations")
    content = open_stored(data, stored.codec, encrypted=stored.encrypted, identities=identities, max_size_bytes=limit)
    if described is not None:
        require_content(place.store, found.key, content, described[0])
    listed = RelationList.from_json(content, known=known)
    said = (listed.system_identifier, moment_name(listed.taken_at))
    if said != (place.layout.system_identifier, found.moment):
        raise DamagedCopyError(
            place.name,
            f"object '{found.key}' says that it is the list of {said[1]} of system identifier {said[0]}",
        )
    return listed


def _read(place: ClusterStore, found: StoredList) -> tuple[bytes, tuple[DescribedList, Encoding] | None]:
    """Return the stored bytes, and what the metadata say by which they are proven; None where there are none.

    Raises: StoreError, RelationListError.
    """
    store, key = place.store, found.key
    head = head_proved(store, key)
    if not head.metadata:
        with store.open(key) as stream:
            return stream.read(MAX_LIST_BYTES), None
    described, encoding = list_from_metadata(key, head.metadata)
    if described.system_identifier != place.layout.system_identifier or moment_name(described.taken_at) != found.moment:
        raise DamagedCopyError(
            place.name,
            f"object '{key}' says that it is the list of {moment_name(described.taken_at)} of system identifier "
            f"{described.system_identifier}",
        )
    for size_bytes in (head.size_bytes, described.size_bytes):
        if size_bytes > MAX_LIST_BYTES:
            raise DamagedCopyError(place.name, f"object '{key}' has {size_bytes} bytes, more than any list")
    require_size(store, key, head.size_bytes, encoding.size_bytes)
    return read_proved(store, key, encoding), (described, encoding)


def check_list(place: ClusterStore, found: StoredList, identities: Sequence[Any], *, deep: bool) -> int:
    """Compare a list's size with what its metadata say; with ``deep`` read it and compare all digests.

    Without an identity that opens it, an encrypted one is compared as stored. Returns the bytes that were read.

    Raises: as ``open_list``.
    """
    if not deep:
        head = head_proved(place.store, found.key)
        if head.metadata:
            _, encoding = list_from_metadata(found.key, head.metadata)
            require_size(place.store, found.key, head.size_bytes, encoding.size_bytes)
        return 0
    stored = place.layout.parse_relations_key(found.key)
    if stored is not None and stored.encrypted and not identities:
        return len(_read(place, found)[0])
    try:
        open_list(place, found, identities)
    except CodecError as error:
        raise DamagedCopyError(place.name, f"object '{found.key}' cannot be opened: {error.message}") from error
    return found.size_bytes


def copy_list(source: ClusterStore, found: StoredList, destination: ClusterStore) -> None:
    """Bring the same bytes to a store that lacks them, or that has them damaged. Raises: as ``put_list``, ``_read``."""
    data, told = _read(source, found)
    if told is None:
        raise RelationListError(f"{source.name}: object '{found.key}' has no metadata, so nobody can prove it")
    described, encoding = told
    body = Body(data, bytes.fromhex(encoding.md5), encoding.sha256)
    put_list(destination, described, Encoded(body, encoding), read_back=True)
