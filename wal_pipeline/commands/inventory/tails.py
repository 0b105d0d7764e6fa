"""Reads what the pieces on the stores say of themselves: of those segments that some store does not have whole."""

from collections.abc import Mapping

from wal_pipeline.archive.recovery.tail import HeldPiece
from wal_pipeline.commands.copies.pieces import describe_pieces
from wal_pipeline.commands.inventory.listing import StoreListing
from wal_pipeline.errors import StoreError
from wal_pipeline.stores.cluster_store import ClusterStore


def read_tails_of(
    listings: Mapping[str, StoreListing], places: Mapping[str, ClusterStore]
) -> tuple[list[HeldPiece], list[str]]:
    """Return the pieces that can matter to a recovery from any of the stores, and what could not be read.

    A segment that each of the stores has whole needs no pieces: those that are left of it are not asked for.
    """
    found: list[HeldPiece] = []
    notes: list[str] = []
    whole = frozenset.intersection(*(frozenset(one.wal) for one in listings.values())) if listings else frozenset()
    for store, listing in listings.items():
        keys = [item.key for name, items in listing.pieces.items() if name not in whole for item in items]
        try:
            pieces, faults = describe_pieces(places[store], keys)
        except StoreError as error:
            notes.append(f"{error.message}: its pieces of unfinished segments are left out of the plan")
        else:
            found += pieces
            notes += [f"{fault.message}: this piece is left out of the plan" for fault in faults]
    return found, notes
