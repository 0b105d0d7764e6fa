"""Records a shipper's state and tails in a health scene, as the shipper does."""

from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from wal_pipeline.archive.format.piece import EMPTY_SHA256, Piece
from wal_pipeline.archive.records import Codec, CommitTimes, Encoding
from wal_pipeline.commands.health.shipping import ShipGoal
from wal_pipeline.commands.ship.records import RecordedPiece, ShippedTail, Shipping, put_shipping, put_tail
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import segment_name
from wal_pipeline_tests.support.health_scene import SIZE, STORES, SYSTEM, HealthScene

GOAL: Final = ShipGoal(5.0)
SEGMENT: Final = 11  # the scene's archive ends with segment 10
SHIPPED: Final = 4096


def ship_well(scene: HealthScene) -> None:
    """Let the scene's open segment be shipped to each store, each within the promise, until two seconds ago."""
    scene.ship_goal = GOAL
    record_shipping(scene)
    for store in STORES:
        record_tail(scene, store)


def record_shipping(scene: HealthScene, **changed: Any) -> None:
    """Record a shipper that said twenty seconds ago that it runs, with changes."""
    good = Shipping(scene.now - timedelta(seconds=20), "host", 5.0, SYSTEM, 1, Lsn(SEGMENT * SIZE + SHIPPED))
    put_shipping(scene.catalog.values, replace(good, **changed))


def record_tail(scene: HealthScene, store: str, **changed: Any) -> None:
    """Record a tail of two pieces in the segment after the archive's end, with changes."""
    put_tail(scene.catalog.values, replace(_tail(scene, store), **changed))


def _tail(scene: HealthScene, store: str) -> ShippedTail:
    return ShippedTail(
        store=store,
        system_identifier=SYSTEM,
        timeline=1,
        pieces=tuple(_piece(scene, begin, begin + SHIPPED // 2) for begin in (0, SHIPPED // 2)),
        shipped_lsn=Lsn(SEGMENT * SIZE + SHIPPED),
        complete_at=scene.now - timedelta(seconds=2),
        last_commit_at=scene.now - timedelta(seconds=3),
        behind_p50_seconds=2.6,
        behind_p99_seconds=5.2,
        behind_seconds=0.4,
    )


def _piece(scene: HealthScene, begin: int, end: int) -> RecordedPiece:
    """Return a piece; its digests say which bytes it stands for, and no bytes have them."""
    at = scene.now - timedelta(seconds=3)
    piece = Piece(
        segment=segment_name(1, SEGMENT, SIZE),
        system_identifier=SYSTEM,
        wal_segment_size=SIZE,
        server_major=18,
        from_offset=begin,
        to_offset=end,
        flushed_at=at,
        sha256=f"{end:064x}",
        before_sha256=f"{begin:064x}" if begin else EMPTY_SHA256,
        through_sha256=f"{end:064x}",
        commit_times=CommitTimes.KNOWN,
        first_commit_at=at,
        last_commit_at=at,
    )
    return RecordedPiece(piece, Encoding(Codec.GZIP, False, 700, "d" * 64, "e" * 32))
