"""Finds how far the WAL on the stores goes on without a hole, from the newest base backup, when a host is lost.

What lies before that end must come back, whatever troubles there were.
"""

import gzip
import re
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from chaos.schedule import STORES
from chaos.world import World
from wal_pipeline.archive.format.piece import piece_from_metadata
from wal_pipeline.archive.recovery.tail import HeldPiece, join_pieces
from wal_pipeline.wal.names import FileKind, parse_file_name, require_file_name, segment_name
from wal_pipeline.wal.timeline import TimelineHistory, TimelineRange

SEGMENT_BYTES: Final = 1 << 20
SEGMENTS_IN_PIECES: Final = 32  # so many finished segments of 1 MiB get pieces, see docs/adr/0011: 32 MiB
_BACKUP: Final = re.compile(r"/base/.*-([0-9A-F]{24})/manifest\.json\Z")
_PIECE: Final = re.compile(r"/tail/[0-9A-F]{8}/([0-9A-F]{24})/")


@dataclass(frozen=True)
class StoredWal:
    """What the stores have, read past the proxies. Pieces count on the ``usable`` stores, whole segments on all."""

    world: World
    usable: Collection[str]
    keys: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """List both stores."""
        for store in STORES:
            server, bucket = self.world.stage.server(store), self.world.stage.bucket(store)
            self.keys[store] = server.keys(bucket, f"{self.world.prefix}/")

    @cached_property
    def files(self) -> dict[str, list[tuple[str, str]]]:
        """The whole files by name: store and key of each copy."""
        found: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        for store, keys in self.keys.items():
            for key in keys:
                if "/wal/" in key:
                    found[key.rpartition("/")[2].removesuffix(".gz")].append((store, key))
        return dict(found)

    def has(self, store: str, name: str) -> bool:
        """Whether one store has a good copy of a whole file."""
        return any(one == store and self._content(one, key) is not None for one, key in self.files.get(name, ()))

    @property
    def first_number(self) -> int:
        """The number of the segment in which the newest base backup begins."""
        begin = max(match[1] for keys in self.keys.values() for key in keys if (match := _BACKUP.search(key)))
        return require_file_name(begin).number(SEGMENT_BYTES)

    def end_lsn(self, timeline: int | None) -> int:
        """Return the LSN before which all WAL of the path to a timeline is there; by default to the newest known."""
        path = self._path(timeline)
        number = self.first_number
        while (reached := self._reached(number, path)) == (number + 1) * SEGMENT_BYTES:
            number += 1
        return reached

    def lacking(self, store: str, names: Collection[str]) -> list[str]:
        """Return which of the files with these names one store lacks."""
        return [name for name in sorted(names) if not self.has(store, name)]

    def _path(self, timeline: int | None) -> list[TimelineRange]:
        histories = self._histories()
        wanted = max(histories, default=1) if timeline is None else timeline
        return list(histories.get(wanted, TimelineHistory(wanted)).ranges())

    def _histories(self) -> Mapping[int, TimelineHistory]:
        found: dict[int, TimelineHistory] = {}
        for name, copies in self.files.items():
            parsed = parse_file_name(name)
            contents = [self._content(*copy) for copy in copies] if name.endswith(".history") else []
            content = next((one for one in contents if one is not None), None)
            if parsed is not None and parsed.kind is FileKind.HISTORY and content is not None:
                found[parsed.timeline] = TimelineHistory.parse(parsed.timeline, content)
        return found

    def _reached(self, number: int, path: list[TimelineRange]) -> int:
        """Return the LSN up to which a segment is there, from any timeline of the path that has a part in it."""
        begin, end = number * SEGMENT_BYTES, (number + 1) * SEGMENT_BYTES
        reached = begin
        for part in path:
            if part.start < end and (part.end is None or part.end > begin):
                name = segment_name(part.timeline, number, SEGMENT_BYTES).name
                there = begin + self._bytes_of(name, whole=part is not path[-1])
                if there > part.start or there == end:
                    reached = max(reached, there if part.end is None else min(there, part.end))
        return reached

    def _bytes_of(self, name: str, *, whole: bool) -> int:
        """Return how many bytes of a segment are there; with ``whole`` all or nothing."""
        if any(self.has(store, name) for store in STORES):
            return SEGMENT_BYTES
        joined = join_pieces(self.good_pieces(name))
        there = 0 if joined is None else joined.end_offset
        return there if there == SEGMENT_BYTES or not whole else 0

    def good_pieces(self, name: str) -> Iterator[HeldPiece]:
        """Yield the pieces of a segment whose content is not damaged."""
        for store in self.usable:
            for key in self.keys[store]:
                match = _PIECE.search(key)
                if match is not None and match[1] == name and self._content(store, key) is not None:
                    client, bucket = self.world.stage.server(store).client(), self.world.stage.bucket(store)
                    piece, _ = piece_from_metadata(key, client.head_object(Bucket=bucket, Key=key)["Metadata"])
                    yield HeldPiece(piece, store, key)

    def _content(self, store: str, key: str) -> bytes | None:
        """Return an object's content; None where it is damaged: gzip has a checksum and a size."""
        stored = self.world.stage.server(store).read(self.world.stage.bucket(store), key)
        try:
            return gzip.decompress(stored)
        except (EOFError, OSError, zlib.error):
            return None
