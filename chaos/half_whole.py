"""Puts a damaged whole segment onto one store, beside good pieces of the segment on the other one.

So a host is left that was lost before it could read back what a store had half stored.
"""

import gzip
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from chaos.reach import SEGMENT_BYTES, StoredWal
from chaos.schedule import STORES
from chaos.world import World
from wal_pipeline.archive.format.object_metadata import to_metadata
from wal_pipeline.archive.records import Codec
from wal_pipeline.archive.recovery.tail import JoinedTail, join_pieces
from wal_pipeline.codec.encoder import describe
from wal_pipeline.wal.joint import read_joints
from wal_pipeline.wal.names import require_file_name
from wal_pipeline.wal.page_header import LONG_HEADER_BYTES, parse_long_page_header

_PIECE: Final = re.compile(r"/tail/[0-9A-F]{8}/([0-9A-F]{24})/")
_SEGMENT: Final = re.compile(r"[0-9A-F]{24}")


@contextmanager
def half_whole(world: World) -> Iterator[str | None]:
    """Let the schedule's store have a damaged whole segment during the block, and yield its name.

    It is the first one, from the newest base backup on, that no store has whole and that the other store has all of in
    pieces. None where the schedule draws none, or no segment is so. Half of the schedules cut it, half flip a bit.
    """
    store = world.schedule.damaged_whole
    tail = None if store is None else _tail(world, next(name for name in STORES if name != store))
    if store is None or tail is None:
        yield None
        return
    name, first_key = tail.segment.name, tail.pieces[0].object_key
    key = f"{first_key.partition('/tail/')[0]}/wal/{name[:8]}/{name[:16]}/{name}.gz"
    client, bucket = world.stage.server(store).client(), world.stage.bucket(store)
    body, metadata = _stored(world, tail)
    middle = len(body) // 2
    flipped = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
    damaged = flipped if world.schedule.seed % 2 else body[:middle]
    client.put_object(Bucket=bucket, Key=key, Body=damaged, Metadata=metadata)
    try:
        yield name
    finally:
        client.delete_object(Bucket=bucket, Key=key)  # the host comes back, and stores its own


def _tail(world: World, store: str) -> JoinedTail | None:
    """Return the first segment that this store has all of in good pieces, where recovery needs it and no store has it.

    Pieces may be damaged on their store already: what a schedule's store lied about stays there.
    """
    stored = StoredWal(world, (store,))
    whole = {name for name in stored.files if _SEGMENT.fullmatch(name)}
    names = sorted({match[1] for key in stored.keys[store] if (match := _PIECE.search(key))})
    for name in names:
        if name > max(whole, default="") and require_file_name(name).number(SEGMENT_BYTES) >= stored.first_number:
            joined = join_pieces(stored.good_pieces(name))
            if joined is not None and joined.is_whole:
                return joined
    return None


def _stored(world: World, tail: JoinedTail) -> tuple[bytes, dict[str, str]]:
    """Return the object that the host would have stored, and its metadata."""
    read, name = world.stage.server(tail.pieces[0].store).read, tail.segment.name
    bucket = world.stage.bucket(tail.pieces[0].store)
    data = b"".join(gzip.decompress(read(bucket, one.object_key)) for one in tail.pieces)
    header = parse_long_page_header(name, data[:LONG_HEADER_BYTES])
    record = tail.record(read_joints(data, header, tail.segment.timeline))
    body = gzip.compress(data, 1)
    return body, to_metadata(record, describe(body, Codec.GZIP, encrypted=False).encoding)
