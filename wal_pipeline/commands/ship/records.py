"""Keeps in the catalog what was shipped to each store, for windows, screens and alerts."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from wal_pipeline.archive.format.piece import Piece, piece_from_metadata, piece_to_metadata
from wal_pipeline.archive.records import Encoding
from wal_pipeline.catalog.values import Values
from wal_pipeline.errors import InvalidWalFileError
from wal_pipeline.wal.lsn import Lsn

SHIPPING_KEY: Final = "shipping"


@dataclass(frozen=True, slots=True)
class RecordedPiece:
    """A piece that lies verified on a store, and how it is encoded there."""

    piece: Piece
    encoding: Encoding


@dataclass(frozen=True, slots=True)
class ShippedTail:
    """The part of the WAL that one store has beyond the archived segments.

    ``pieces`` are verified and not superseded, in WAL order. ``shipped_lsn`` is the end of what the shipper knows to
    be on the store, in pieces or in whole segments; None before the first piece. ``complete_at`` is a moment of the
    server's clock: each commit that it had acknowledged then is on the store. ``behind_seconds`` are from a commit's
    acknowledgement to the verified piece that holds it, at worst: median and 99th percentile over the last hour, and
    of the newest bytes that the server has flushed and the store lacks (0 where it lacks none). ``error`` is the
    store's last error since ``failing_since``; ``conflict`` says that the store holds pieces of another history.
    """

    store: str
    system_identifier: int
    timeline: int
    pieces: tuple[RecordedPiece, ...]
    shipped_lsn: Lsn | None
    complete_at: datetime | None
    last_commit_at: datetime | None
    behind_p50_seconds: float | None
    behind_p99_seconds: float | None
    behind_seconds: float | None
    error: str | None = None
    failing_since: datetime | None = None
    conflict: str | None = None

    @property
    def stored_bytes(self) -> int:
        """The bytes of the pieces as they are stored."""
        return sum(one.encoding.size_bytes for one in self.pieces)


@dataclass(frozen=True, slots=True)
class Shipping:
    """The state of a cluster's shipper when it last said so.

    ``seen_at`` is written at least once a minute while it runs. ``flushed_lsn`` is the server's, and ``source`` the
    setting's word. ``error`` says why nothing can be shipped, such as a data directory that cannot be read.
    """

    seen_at: datetime
    source: str
    interval_seconds: float
    system_identifier: int | None = None
    timeline: int | None = None
    flushed_lsn: Lsn | None = None
    error: str | None = None
    failing_since: datetime | None = None


def put_tail(values: Values, tail: ShippedTail) -> None:
    """Keep what a store has. Raises: CatalogError."""
    values.put(f"tail/{tail.store}", _tail_to_json(tail))


def read_tail(values: Values, store: str) -> ShippedTail | None:
    """Return what a store has; None where nothing was ever shipped there, or a later version wrote it.

    Raises: CatalogError.
    """
    kept = values.get(f"tail/{store}")
    try:
        return None if kept is None else _tail_from_json(store, kept)
    except (KeyError, ValueError, TypeError, InvalidWalFileError):
        return None


def read_tails(values: Values, stores: Iterable[str]) -> dict[str, ShippedTail]:
    """Return what each store has, without those that have nothing. Raises: CatalogError."""
    found = ((store, read_tail(values, store)) for store in stores)
    return {store: tail for store, tail in found if tail is not None}


def put_shipping(values: Values, shipping: Shipping) -> None:
    """Keep the shipper's state. Raises: CatalogError."""
    values.put(
        SHIPPING_KEY,
        {
            "seen_at": shipping.seen_at.isoformat(),
            "source": shipping.source,
            "interval_seconds": shipping.interval_seconds,
            "system_identifier": shipping.system_identifier,
            "timeline": shipping.timeline,
            "flushed_lsn": _text(shipping.flushed_lsn),
            "error": shipping.error,
            "failing_since": _iso(shipping.failing_since),
        },
    )


def read_shipping(values: Values) -> Shipping | None:
    """Return the shipper's state; None where none ever ran. Raises: CatalogError."""
    kept = values.get(SHIPPING_KEY)
    try:
        return None if kept is None else _shipping_from_json(kept)
    except (KeyError, ValueError, TypeError):
        return None


def _shipping_from_json(kept: dict[str, Any]) -> Shipping:
    return Shipping(
        seen_at=datetime.fromisoformat(kept["seen_at"]),
        source=kept["source"],
        interval_seconds=kept["interval_seconds"],
        system_identifier=kept["system_identifier"],
        timeline=kept["timeline"],
        flushed_lsn=_lsn(kept["flushed_lsn"]),
        error=kept["error"],
        failing_since=_moment(kept["failing_since"]),
    )


def _tail_to_json(tail: ShippedTail) -> dict[str, Any]:
    return {
        "system_identifier": tail.system_identifier,
        "timeline": tail.timeline,
        "pieces": [piece_to_metadata(one.piece, one.encoding) for one in tail.pieces],
        "shipped_lsn": _text(tail.shipped_lsn),
        "complete_at": _iso(tail.complete_at),
        "last_commit_at": _iso(tail.last_commit_at),
        "behind_p50_seconds": tail.behind_p50_seconds,
        "behind_p99_seconds": tail.behind_p99_seconds,
        "behind_seconds": tail.behind_seconds,
        "error": tail.error,
        "failing_since": _iso(tail.failing_since),
        "conflict": tail.conflict,
    }


def _tail_from_json(store: str, kept: dict[str, Any]) -> ShippedTail:
    pieces = (piece_from_metadata(f"tail/{store}", one) for one in kept["pieces"])
    return ShippedTail(
        store=store,
        system_identifier=kept["system_identifier"],
        timeline=kept["timeline"],
        pieces=tuple(RecordedPiece(piece, encoding) for piece, encoding in pieces),
        shipped_lsn=_lsn(kept["shipped_lsn"]),
        complete_at=_moment(kept["complete_at"]),
        last_commit_at=_moment(kept["last_commit_at"]),
        behind_p50_seconds=kept["behind_p50_seconds"],
        behind_p99_seconds=kept["behind_p99_seconds"],
        behind_seconds=kept["behind_seconds"],
        error=kept["error"],
        failing_since=_moment(kept["failing_since"]),
        conflict=kept["conflict"],
    )


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _text(lsn: Lsn | None) -> str | None:
    return None if lsn is None else str(lsn)


def _lsn(text: str | None) -> Lsn | None:
    return None if text is None else Lsn.parse(text)
