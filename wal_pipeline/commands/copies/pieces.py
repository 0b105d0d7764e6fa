"""Reads pieces of a segment from a store: what each says of itself, and its bytes."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from wal_pipeline.archive.format.keys import StoredPieceName
from wal_pipeline.archive.format.piece import piece_from_metadata
from wal_pipeline.archive.recovery.tail import HeldPiece
from wal_pipeline.codec.decoder import open_stored
from wal_pipeline.commands.copies.stored_bytes import (
    StoredBytes,
    require_bytes,
    require_content,
    require_size,
    require_wal_size,
)
from wal_pipeline.errors import CodecError, DamagedCopyError, ObjectMissingError, StoreError, WalPipelineError
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.names import WalFileName

_HEADS_AT_ONCE: Final = 8


def list_pieces(place: ClusterStore, segment: WalFileName) -> list[str]:
    """Return the keys of the pieces of one segment on a store. One LIST. Raises: StoreError."""
    listed = place.store.list(place.layout.tail_folder(segment))
    return [item.key for item in listed if place.layout.parse_piece_key(item.key) is not None]


def describe_pieces(place: ClusterStore, keys: Iterable[str]) -> tuple[list[HeldPiece], list[StoreError]]:
    """Return the pieces by what their metadata say, and the errors of those that do not say it or say another's.

    An object that is gone meanwhile is left out. Raises: StoreError where the store does not answer.
    """
    found: list[HeldPiece] = []
    faults: list[StoreError] = []
    with ThreadPoolExecutor(_HEADS_AT_ONCE, thread_name_prefix="head-piece") as pool:
        answers = [pool.submit(_describe, place, key) for key in keys]
        for answer in answers:
            try:
                one = answer.result()
            except DamagedCopyError as error:
                faults.append(error)
            else:
                found += [] if one is None else [one]
    return found, faults


def _describe(place: ClusterStore, key: str) -> HeldPiece | None:
    found = place.store.head(key)
    if found is None:
        return None
    try:
        piece, _ = piece_from_metadata(key, found.metadata)
    except WalPipelineError as error:
        raise DamagedCopyError(place.name, error.message, hint=error.hint) from error
    named, mine = _name(place, key), place.layout.system_identifier
    if named.piece != piece.name or piece.system_identifier != mine:
        raise DamagedCopyError(
            place.name,
            f"object '{key}' says that it is bytes {piece.from_offset} to {piece.to_offset} of "
            f"'{piece.segment.name}' of system identifier {piece.system_identifier}: not what its key says",
        )
    return HeldPiece(piece, place.name, key)


def open_piece(place: ClusterStore, held: HeldPiece, identities: Sequence[Any] = ()) -> bytes:
    """Return a piece's content, compared with its digest.

    Raises: DamagedCopyError, ObjectMissingError where it is gone meanwhile, StoreError; CodecError where no identity
    opens it.
    """
    store, key, stored = place.store, held.object_key, _name(place, held.object_key)
    with store.open_described(key) as (described, stream):
        require_wal_size(store, key, described.size_bytes)
        body = stream.read()
    require_size(store, key, len(body), described.size_bytes)
    try:
        piece, encoding = piece_from_metadata(key, described.metadata)
        if piece != held.piece:  # another one was put in its place
            raise ObjectMissingError(store.name, f"object '{key}' is not what it was a moment ago")
        limit = piece.size_bytes
        try:
            content = open_stored(
                body, stored.codec, encrypted=stored.encrypted, identities=identities, max_size_bytes=limit
            )
            require_content(store, key, content, piece)
        except WalPipelineError:  # the content's digest proves all; that of the stored bytes tells what is damaged
            require_bytes(store, key, StoredBytes.of(body), encoding)
            raise
    except StoreError:
        raise
    except CodecError:
        if stored.encrypted:  # its bytes are as they were stored: it is the identity that does not fit
            raise
        raise DamagedCopyError(store.name, f"object '{key}' cannot be opened: its content was stored damaged") from None
    except WalPipelineError as error:
        raise DamagedCopyError(store.name, f"object '{key}' cannot be used: {error.message}") from error
    return content


def _name(place: ClusterStore, key: str) -> StoredPieceName:
    stored = place.layout.parse_piece_key(key)
    if stored is None:
        raise DamagedCopyError(place.name, f"object '{key}' has no key of a piece")
    return stored
