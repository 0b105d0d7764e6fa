"""Puts a damaged whole segment onto one store, beside good pieces of the segment on the other one.

So a host is left that was lost before it could read back what a store had half stored.
"""

import gzip
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from chaos.schedule import STORES
from chaos.world import World
from wal_pipeline.archive.format.object_metadata import to_metadata
from wal_pipeline.archive.format.piece import piece_from_metadata
from wal_pipeline.archive.records import Codec
from wal_pipeline.archive.recovery.tail import HeldPiece, JoinedTail, join_pieces
from wal_pipeline.codec.encoder import describe
from wal_pipeline.wal.joint import read_joints
from wal_pipeline.wal.page_header import LONG_HEADER_BYTES, parse_long_page_header

_PIECE: Final = re.compile(r"/tail/[0-9A-F]{8}/([0-9A-F]{24})/")
_WHOLE: Final = re.compile(r"/wal/.*/([0-9A-F]{24})\.gz\Z")
_BACKUP: Final = re.compile(r"/base/.*-([0-9A-F]{24})/manifest\.json\Z")


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
    """Return the first segment that this store has all of in pieces, where recovery needs it and no store has it."""
    keys = {name: world.stage.server(name).keys(world.stage.bucket(name), f"{world.prefix}/") for name in STORES}
    both = [key for found in keys.values() for key in found]
    whole = {match[1] for key in both if (match := _WHOLE.search(key))}
    begins = max((match[1] for key in both if (match := _BACKUP.search(key))), default="")
    names = sorted({match[1] for key in keys[store] if (match := _PIECE.search(key))})
    for name in names:
        if name > max(whole, default="") and name >= begins:
            joined = join_pieces(_held(world, store, key) for key in keys[store] if f"/{name}/" in key)
            if joined is not None and joined.is_whole:
                return joined
    return None


def _held(world: World, store: str, key: str) -> HeldPiece:
    answer = world.stage.server(store).client().head_object(Bucket=world.stage.bucket(store), Key=key)
    piece, _ = piece_from_metadata(key, answer["Metadata"])
    return HeldPiece(piece, store, key)


def _stored(world: World, tail: JoinedTail) -> tuple[bytes, dict[str, str]]:
    """Return the object that the host would have stored, and its metadata."""
    read, name = world.stage.server(tail.pieces[0].store).read, tail.segment.name
    bucket = world.stage.bucket(tail.pieces[0].store)
    data = b"".join(gzip.decompress(read(bucket, one.object_key)) for one in tail.pieces)
    header = parse_long_page_header(name, data[:LONG_HEADER_BYTES])
    record = tail.record(read_joints(data, header, tail.segment.timeline))
    body = gzip.compress(data, 1)
    return body, to_metadata(record, describe(body, Codec.GZIP, encrypted=False).encoding)
