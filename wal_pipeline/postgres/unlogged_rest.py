"""Knows a failure at the end of a recovery that another start mends: the rest of an unlogged relation.

A base backup that is taken while an unlogged index is built has the index's file, and not yet the init fork that marks
it as unlogged: CREATE INDEX writes that last (index.c: index_build). WAL brings the init fork, and at the end of the
recovery the server ends with ``could not create file "base/5/16388": File exists`` (reinit.c copies the init fork). The
next start sees the init fork and removes the rest before it recovers. PostgreSQL 15 to 18 do so, and base backups by
pg_basebackup have it too.
"""

import re
from pathlib import Path
from typing import Final

from wal_pipeline.postgres.relation_file import parse_relation_file

_EXISTS: Final = re.compile(r'FATAL:  could not create file "((?:base|pg_tblspc)/[^"]+)": File exists')


def find_unlogged_rest(log: str, pgdata: Path) -> str | None:
    """Return the file that ended a recovery by the end of its log, where it is the rest of an unlogged relation."""
    found = _EXISTS.search(log)
    if found is None:
        return None
    folder, _, name = found[1].rpartition("/")
    relation = parse_relation_file(name)
    is_rest = relation is not None and (pgdata / folder / f"{relation.number}_init").exists()
    return found[1] if is_rest else None
