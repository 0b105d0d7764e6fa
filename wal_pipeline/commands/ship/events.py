"""Defines the events of a shipper: one value for each thing that happened to the tail."""

from dataclasses import dataclass

from wal_pipeline.archive.format.piece import Piece
from wal_pipeline.archive.records import Encoding
from wal_pipeline.commands.ship.records import ShippedTail, Shipping


@dataclass(frozen=True, slots=True)
class PieceShipped:
    """A store has a new verified piece.

    ``behind_seconds``: from the acknowledgement of a commit in it to now, at worst; None where that is not known, as of
    WAL that was written before the shipper began. ``seconds``: the wall time of put and read-back.
    """

    store: str
    piece: Piece
    encoding: Encoding
    behind_seconds: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class PiecesMerged:
    """A store has one verified piece in place of ``replaced`` smaller ones, which were removed after it."""

    store: str
    piece: Piece
    encoding: Encoding
    replaced: int


@dataclass(frozen=True, slots=True)
class PiecesRemoved:
    """A store has the whole segment verified, and its ``removed`` pieces there were removed."""

    store: str
    segment: str
    removed: int


@dataclass(frozen=True, slots=True)
class ShippingFailed:
    """Nothing is shipped for now: to one store, or to any where ``store`` is None. It is tried again.

    Told once for each message. ``hint``: what a person can do.
    """

    store: str | None
    message: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class ShippingRecovered:
    """WAL is shipped again: to one store, or to all where ``store`` is None."""

    store: str | None


@dataclass(frozen=True, slots=True)
class ShippingEnded:
    """The shipper was stopped, and this is what it leaves: its own state, and each store's tail."""

    shipping: Shipping
    tails: tuple[ShippedTail, ...]


ShipEvent = PieceShipped | PiecesMerged | PiecesRemoved | ShippingFailed | ShippingRecovered | ShippingEnded
