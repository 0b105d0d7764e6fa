"""Gives bytes as the source of open WAL: a real server never has other bytes at a place that it flushed."""

from datetime import UTC, datetime
from typing import Final

from wal_pipeline.commands.ship.source import OpenWal
from wal_pipeline.postgres.flushed_wal import FlushedWal
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import WalFileName, require_file_name
from wal_pipeline.wal.timeline import TimelineHistory
from wal_pipeline_tests.support.segments import SYSTEM_IDENTIFIER

SIZE: Final = 1 << 20
SEGMENT: Final = require_file_name("000000010000000000000003")


class GivenWal(OpenWal):
    """The beginning of one segment."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def look(self) -> FlushedWal:
        lsn = Lsn(SEGMENT.start_lsn(SIZE) + len(self.data))
        return FlushedWal(lsn, datetime(2026, 11, 22, tzinfo=UTC), 1, SYSTEM_IDENTIFIER, SIZE, False, 18)

    def read(self, segment: WalFileName, from_offset: int, to_offset: int, seen: FlushedWal) -> bytes:  # noqa: ARG002
        assert segment == SEGMENT
        return self.data[from_offset:to_offset]

    def history(self, timeline: int) -> TimelineHistory | None:
        return TimelineHistory(timeline)

    def close(self) -> None:
        """Close nothing."""
