"""Checks, without the program, that each piece on a store is what PostgreSQL wrote at its place."""

import gzip
import hashlib
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from chaos.schedule import LYING_ABOUT_PIECES
from chaos.world import World
from testbed.seaweed import SeaweedServer

_KEY = re.compile(r"/tail/[0-9A-F]{8}/([0-9A-F]{24})/([0-9A-F]{8})-([0-9A-F]{8})\.gz\Z")


@dataclass(frozen=True, slots=True)
class Pieces:
    """The pieces that lie on the stores. ``wrong``: a text for each that is not PostgreSQL's."""

    checked: int
    wrong: tuple[str, ...]


def compare_pieces(world: World) -> Pieces:
    """Download, open and compare each piece with PostgreSQL's own bytes.

    Where a store was made to lie about what it stored, a damaged piece may lie there: whoever reads it must see that.
    """
    stage = world.stage
    texts = {
        f"{store}: {key}": text
        for store, server, bucket in (
            ("r2", stage.pair.r2, stage.buckets.r2),
            ("b2", stage.pair.b2, stage.buckets.b2),
        )
        for key, text in _look(world, server, bucket)
    }
    lied = any(event.kind in LYING_ABOUT_PIECES for event in world.schedule.events)
    wrong = () if lied else tuple(f"{key}: {text}" for key, text in texts.items() if text is not None)
    return Pieces(len(texts), wrong)


def _look(world: World, server: SeaweedServer, bucket: str) -> Iterator[tuple[str, str | None]]:
    client = server.client()
    for key in server.keys(bucket, f"{world.prefix}/"):
        if "/tail/" in key:
            stored = client.get_object(Bucket=bucket, Key=key)
            yield key, _fault(world, key, stored["Body"].read(), stored["Metadata"])


def _fault(world: World, key: str, stored: bytes, metadata: Mapping[str, str]) -> str | None:
    named = _KEY.search(key)
    if named is None:
        return "is not the key of a piece"
    segment, begin, end = named[1], int(named[2], 16), int(named[3], 16)
    try:
        content = gzip.decompress(stored)
    except (EOFError, OSError, zlib.error) as error:
        return f"cannot be opened: {error}"
    own = _written(world, segment)
    if content != own[begin:end]:
        return "has other content than PostgreSQL's"
    said = dict(word.split("=", 1) for word in metadata["piece-content"].split())
    expected = {"sha256": content, "before-sha256": own[:begin], "through-sha256": own[:end]}
    false = [name for name, data in expected.items() if said[name] != hashlib.sha256(data).hexdigest()]
    return f"says a wrong {', '.join(false)}" if false else None


def _written(world: World, segment: str) -> bytes:
    """Return PostgreSQL's own file. A segment in which a timeline was left is kept as a partial one."""
    partial = world.pg_wal / f"{segment}.partial"
    return (partial if partial.exists() else world.pg_wal / segment).read_bytes()
