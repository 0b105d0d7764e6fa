"""PostgreSQL's programs get what they need of our environment, and no secret."""

import pytest

from wal_pipeline.postgres.environment import plain_environment


def test_programs_find_their_locales_and_get_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server whose locales lie elsewhere starts as the restore's does; the stores' keys and PG* stay with us."""
    for name in ("R2_SECRET_ACCESS_KEY", "PGPASSWORD", "PGHOST", "WAL_PIPELINE_CONNINFO", "LOCPATH", "LOCALE_ARCHIVE"):
        monkeypatch.setenv(name, f"/{name}")
    kept = plain_environment()
    assert (kept["LOCPATH"], kept["LOCALE_ARCHIVE"]) == ("/LOCPATH", "/LOCALE_ARCHIVE")
    assert not {"R2_SECRET_ACCESS_KEY", "PGPASSWORD", "PGHOST", "WAL_PIPELINE_CONNINFO"} & set(kept)
