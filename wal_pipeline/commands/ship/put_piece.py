"""Stores one piece on one store and proves its bytes. Every piece is made to lie there here."""

from wal_pipeline.archive.format.piece import Piece, piece_from_metadata, piece_to_metadata
from wal_pipeline.codec.encoder import Encoded
from wal_pipeline.commands.copies.prove import head_proved, prove
from wal_pipeline.commands.ship.records import RecordedPiece
from wal_pipeline.errors import CopyConflictError, DamagedCopyError, InvalidWalFileError, ObjectMissingError
from wal_pipeline.stores.base import PutOutcome
from wal_pipeline.stores.cluster_store import ClusterStore


def piece_object_key(place: ClusterStore, recorded: RecordedPiece) -> str:
    """Return the key of a piece's object."""
    encoding = recorded.encoding
    return place.layout.piece_key(recorded.piece.name, encoding.codec, encrypted=encoding.encrypted)


def put_piece(place: ClusterStore, piece: Piece, encoded: Encoded, *, read_back: bool) -> RecordedPiece:
    """Make sure that the store has a verified copy of the piece, and return it as it is encoded there.

    A piece of the same content that is there already, as after a kill, is verified and adopted. One whose stored bytes
    are not those that its metadata promise, read twice, is removed and stored again: the good bytes are at hand.

    Raises: CopyConflictError where the store has other content under that key; StoreError.
    """
    store, made = place.store, RecordedPiece(piece, encoded.encoding)
    key, metadata = piece_object_key(place, made), piece_to_metadata(piece, encoded.encoding)
    try:
        if store.put_if_absent(key, encoded.body, metadata) is PutOutcome.EXISTS:
            return _adopt(place, key, piece, read_back=read_back)
        prove(store, key, encoded.encoding, read_back=read_back)
    except (DamagedCopyError, ObjectMissingError):
        store.delete(key)
        store.put_if_absent(key, encoded.body, metadata)
        prove(store, key, encoded.encoding, read_back=read_back)
    return made


def same_content(one: Piece, other: Piece) -> bool:
    """Whether two pieces are the same bytes behind the same bytes, whenever they were made."""
    return _content(one) == _content(other)


def _adopt(place: ClusterStore, key: str, piece: Piece, *, read_back: bool) -> RecordedPiece:
    found = head_proved(place.store, key)
    try:
        stored, encoding = piece_from_metadata(key, found.metadata)
    except InvalidWalFileError as error:
        raise CopyConflictError(place.name, error.message, hint=error.hint) from error
    if not same_content(stored, piece):
        raise two_histories(place.name, key, stored.through_sha256, piece.through_sha256)
    prove(place.store, key, encoding, read_back=read_back)
    return RecordedPiece(stored, encoding)


def two_histories(store: str, key: str, found: str, expected: str) -> CopyConflictError:
    """Return the error of a store that holds pieces of another history than the server's."""
    return CopyConflictError(
        store,
        f"piece '{key}' leads to WAL with SHA-256 {found}, the server's has {expected}: two histories",
        hint="A piece is never overwritten. Two clusters are shipped under one name, or a server was set back without "
        "a new timeline: find out which. Whole segments are archived all the same.",
    )


def _content(piece: Piece) -> tuple[object, ...]:
    return (
        *(piece.segment.name, piece.system_identifier, piece.wal_segment_size, piece.from_offset, piece.to_offset),
        *(piece.sha256, piece.before_sha256, piece.through_sha256),
    )
