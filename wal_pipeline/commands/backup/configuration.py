"""Keeps the configuration files outside the data directory with a base backup, as an object of its own."""

import logging

from wal_pipeline.archive.format.configuration import configuration_to_tar
from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.server import PostgresServer

_log = logging.getLogger(__name__)


def outside_configuration(server: PostgresServer) -> bytes | None:
    """Return the tar of what is outside; None where nothing is, or where it is not known what is.

    A base backup without it restores all data: what cannot be read is a warning, and ends no base backup.
    """
    try:
        kept = server.configuration()
    except PostgresError as error:
        _log.warning("the configuration files are not kept with the base backup: %s", error.message)
        return None
    if kept is None:
        _log.warning(
            "whether configuration files lie outside the data directory is not known, and none is kept with the base "
            "backup: grant pg_read_all_settings to the role"
        )
        return None
    for reason in kept.missing.values():
        _log.warning("a configuration file is not kept with the base backup: %s", reason)
    return None if kept.is_empty else configuration_to_tar(kept)
