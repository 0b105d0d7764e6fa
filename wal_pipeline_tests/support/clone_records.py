"""Makes records of clones for tests that start no server."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from wal_pipeline.commands.clone.record import CloneRecord

NOW: Final = datetime(2026, 11, 29, 18, 0, tzinfo=UTC)


def clone_record(name: str = "shop", **values: Any) -> CloneRecord:
    """Return the record of a clone that ends in two hours."""
    given: dict[str, Any] = {
        "name": name,
        "cluster": "main",
        "system_identifier": 7,
        "made_at": NOW,
        "ends_at": NOW + timedelta(hours=2),
        "generation": 1,
        "port": 54321,
        "listens": False,
        "role": "postgres",
        "database": "postgres",
        "read_only": True,
        "target": "time 2026-11-29 17:45:00+00:00",
        "backup_id": "20261129T120000Z",
        "timeline": 1,
        "reached_commit_at": NOW - timedelta(minutes=16),
        "reached_lsn": "0/3000060",
        "settings": {"port": "54321"},
        "only_databases": ("shop",),
    }
    return CloneRecord(**{**given, **values})
