"""Says of which files a CRC-32C proves the content: not of those that hold a CRC-32C of themselves."""

from typing import Final

from wal_pipeline.archive.format.database_folders import database_folder
from wal_pipeline.postgres.relation_file import parse_relation_file

_GLOBAL: Final = "global"


def is_relation_file(name: str) -> bool:
    """Say whether a file of a data directory holds pages of a relation.

    The CRC-32C of bytes that end with their own CRC-32C is always the same, whatever they are, and zeros after them do
    not change that. So ``global/pg_control``, each ``pg_filenode.map`` and the state files of prepared transactions and
    of replication origins have one checksum in ``backup_manifest`` for any content (relmapper.c, twophase.c, origin.c).
    A restore that keeps what is there takes only relations' files for right by it, and writes all others anew: they are
    small.
    """
    folder, _, last = name.rpartition("/")
    if parse_relation_file(last) is None:
        return False
    found = database_folder(f"{folder}/")
    return folder == _GLOBAL or (found is not None and found[0] == folder)
