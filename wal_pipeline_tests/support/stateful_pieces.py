"""The pieces of the stateful test: what was shipped of open segments, and what expiry may take of it."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.encoder import Encoder
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.names import require_file_name
from wal_pipeline_tests.support.archive_scene import WatchedStore, layout
from wal_pipeline_tests.support.pieces import cut, put_pieces
from wal_pipeline_tests.support.segments import SEGMENT_BYTES, SYSTEM_IDENTIFIER, segment_bytes

_CUT_BYTES = 8192


@dataclass
class ShippedPieces:
    """The pieces that were put on the stores: when, and of which segment, by store and key."""

    stores: Mapping[str, WatchedStore]
    folder: Path
    shipped: dict[tuple[str, str], tuple[datetime, str]] = field(default_factory=dict)

    def ship(self, store: str, name: str, begin: int, count: int, at: datetime) -> None:
        """Put ``count`` pieces of a segment on a store, from the page ``begin`` on."""
        cuts = [_CUT_BYTES * number for number in range(begin, begin + count + 1)]
        data = segment_bytes(require_file_name(name).number(SEGMENT_BYTES))
        pieces = cut(name, data, cuts, system_identifier=SYSTEM_IDENTIFIER, wal_segment_size=SEGMENT_BYTES)
        place = ClusterStore(self.stores[store].inner, layout())
        for key in put_pieces(place, pieces, data, Encoder(Codec.LZ4)):
            os.utime(self.folder / store / "objects" / key, (at.timestamp(), at.timestamp()))
            self.shipped[store, key] = at, name

    def on(self, store: str) -> set[str]:
        """Return the keys of the pieces that a store has."""
        return {item.key for item in self.stores[store].inner.list(layout().tail_root)}

    def begun_on(self, stores: Iterable[str]) -> set[str]:
        """Return the segments of which one of the stores has a piece that begins at their start."""
        stored = (layout().parse_piece_key(key) for store in stores for key in self.on(store))
        return {one.piece.segment.name for one in stored if one is not None and not one.piece.from_offset}

    def check_gone(
        self, store: str, before: set[str], verified: set[str], starts: list[int], window_begins_at: datetime
    ) -> None:
        """Check each piece that an expiry took: its segment was verified on the store, or nothing could need it.

        ``verified`` are the segments that were good there, or that an accident spoilt since they were verified.
        ``starts`` are the numbers in which base backups begin there.

        Raises: AssertionError.
        """
        for key in before - self.on(store):
            at, name = self.shipped.pop((store, key))
            number = require_file_name(name).number(SEGMENT_BYTES)
            needed = at > window_begins_at or (bool(starts) and number >= min(starts))
            assert name in verified or not needed, f"{store}: '{key}' was removed and may be needed"
