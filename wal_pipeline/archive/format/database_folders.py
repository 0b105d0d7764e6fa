"""Tells to which database a file of a data directory belongs, by the folder in which PostgreSQL keeps it."""

import re
from typing import Final

from wal_pipeline.archive.format.base_backup.manifest import BASE_TAR

# catalog/catalog.h: TABLESPACE_VERSION_DIRECTORY is PG_<major>_<catalog version>. The last folder is the database's.
_IN_DATA_DIRECTORY: Final = re.compile(r"(?:\./)?((?:base|pg_tblspc/[0-9]+/PG_[^/]+)/([1-9][0-9]{0,9}))(?:/|\Z)")
_IN_TABLESPACE: Final = re.compile(r"(?:\./)?(PG_[^/]+/([1-9][0-9]{0,9}))(?:/|\Z)")


def database_folder(name: str, tar: str = BASE_TAR) -> tuple[str, int] | None:
    """Return the database's folder in which a member of a tar lies, and the database's oid; None elsewhere.

    ``tar`` is ``base`` or a tablespace's oid. A path below the data directory, such as in ``backup_manifest`` and in
    the server's log, counts as one of ``base``.
    """
    found = (_IN_DATA_DIRECTORY if tar == BASE_TAR else _IN_TABLESPACE).match(name)
    return None if found is None else (found[1], int(found[2]))


def database_of(name: str, tar: str = BASE_TAR) -> int | None:
    """Return the oid of the database to which a member of a tar belongs; None where it belongs to none."""
    found = database_folder(name, tar)
    return None if found is None else found[1]
