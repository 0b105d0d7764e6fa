"""The last look at a server is kept for the next process."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from wal_pipeline.postgres.flushed_wal import FlushedWal
from wal_pipeline.postgres.kept_look import keep_look, kept_look
from wal_pipeline.wal.lsn import Lsn

LOOK = FlushedWal(Lsn(2**40 + 5), datetime(2026, 11, 29, 15, 0, 1, 123456, UTC), 3, 2**63 + 7, 2**20, False, 18)


def test_what_is_kept_is_read(tmp_path: Path) -> None:
    """All of it, to the microsecond."""
    assert kept_look(tmp_path) is None
    keep_look(tmp_path, LOOK)
    assert kept_look(tmp_path) == LOOK


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"lsn": "0/1"}', '{"lsn": 1, "at": 2}', "\udcff"])
def test_what_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    """Half a file, or one of a later version."""
    keep_look(tmp_path, LOOK)
    (tmp_path / ".last-look.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert kept_look(tmp_path) is None
