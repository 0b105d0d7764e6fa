"""The one failure that a second start mends is known by the server's words and by the files."""

from pathlib import Path

import pytest

from wal_pipeline.postgres.unlogged_rest import find_unlogged_rest

LOG = """the restored server in '/data' ended before its recovery did; its log ends with:
2026-11-29 22:04:44.281 UTC [6196] LOG:  restored log file "000000010000000000000003" from archive
2026-11-29 22:04:44.284 UTC [6196] FATAL:  could not create file "{path}": File exists
2026-11-29 22:04:44.287 UTC [6190] LOG:  startup process (PID 6196) exited with exit code 1"""


def test_the_rest_of_an_unlogged_relation_is_found(tmp_path: Path) -> None:
    """Its init fork has come with the WAL, and other files of it may be there too."""
    for folder in ("base/5", "pg_tblspc/16390/PG_18_202506291/5"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "16388_init").touch()
        for name in ("16388", "16388.1", "16388_fsm"):
            assert find_unlogged_rest(LOG.format(path=f"{folder}/{name}"), tmp_path) == f"{folder}/{name}"


@pytest.mark.parametrize("path", ["base/5/16389", "base/5/PG_VERSION", "pg_wal/000000010000000000000003", "base/5/"])
def test_another_file_that_exists_is_none(tmp_path: Path, path: str) -> None:
    """Another start would end as this one did."""
    (tmp_path / "base" / "5").mkdir(parents=True)
    (tmp_path / "base" / "5" / "16388_init").touch()
    assert find_unlogged_rest(LOG.format(path=path), tmp_path) is None
    assert find_unlogged_rest("", tmp_path) is None
