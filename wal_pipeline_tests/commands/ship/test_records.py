"""Tests what the catalog keeps of a shipped tail: it is read back whole, or not at all."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from wal_pipeline.archive.format.piece import EMPTY_SHA256, Piece
from wal_pipeline.archive.records import Codec, CommitTimes, Encoding
from wal_pipeline.catalog.catalog import Catalog, open_catalog
from wal_pipeline.commands.ship.records import (
    RecordedPiece,
    ShippedTail,
    Shipping,
    put_shipping,
    put_tail,
    read_shipping,
    read_tail,
    read_tails,
)
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import require_file_name

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
PIECE = Piece(
    segment=require_file_name("000000010000000000000003"),
    system_identifier=7,
    wal_segment_size=1 << 20,
    server_major=15,
    from_offset=0,
    to_offset=100,
    flushed_at=NOON,
    sha256="ab" * 32,
    before_sha256=EMPTY_SHA256,
    through_sha256="ab" * 32,
    commit_times=CommitTimes.UNKNOWN,
)
TAIL = ShippedTail(
    store="r2",
    system_identifier=7,
    timeline=1,
    pieces=(RecordedPiece(PIECE, Encoding(Codec.GZIP, False, 60, "cd" * 32, "ef" * 16)),),
    shipped_lsn=Lsn(0x300064),
    complete_at=NOON,
    last_commit_at=None,
    behind_p50_seconds=2.5,
    behind_p99_seconds=5.5,
    behind_seconds=0.0,
    error="r2: it is down",
    failing_since=NOON,
)
SHIPPING = Shipping(NOON, "host", 5.0, 7, 1, Lsn(0x300064), "'/data' cannot be read", NOON)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    """A catalog of its own."""
    with closing(open_catalog(f"sqlite:///{tmp_path / 'catalog.db'}", "main")) as opened:
        yield opened


def test_a_tail_is_read_back(catalog: Catalog) -> None:
    """Each store's tail is kept by itself, with its pieces."""
    put_tail(catalog.values, TAIL)
    assert read_tails(catalog.values, ["r2", "b2"]) == {"r2": TAIL}
    assert TAIL.stored_bytes == 60


def test_the_shippers_state_is_read_back(catalog: Catalog) -> None:
    """The state is one value for the cluster."""
    assert read_shipping(catalog.values) is None
    put_shipping(catalog.values, SHIPPING)
    assert read_shipping(catalog.values) == SHIPPING


@pytest.mark.parametrize("kept", [{}, {"pieces": [{}]}, [], 3])
def test_what_a_later_version_wrote_counts_as_nothing(catalog: Catalog, kept: object) -> None:
    """A value that cannot be read is nobody's error: the stores tell, and the next piece writes it anew."""
    catalog.values.put("tail/r2", kept)
    catalog.values.put("shipping", kept)
    assert read_tail(catalog.values, "r2") is None
    assert read_shipping(catalog.values) is None
