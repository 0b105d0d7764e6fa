"""Finishes the primary's open segment where a base backup from a standby ends in it, so that it is archived now.

A standby cannot: its base backup ends where its primary writes, in a segment that a quiet primary leaves open until
its ``archive_timeout`` is over, or for ever without one. This is the only thing that the primary is asked for.
"""

import logging

from wal_pipeline.archive.format.base_backup.manifest import BaseBackupManifest
from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.server import PostgresServer
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import segment_at

_log = logging.getLogger(__name__)


def finish_last_segment(primary: PostgresServer, manifest: BaseBackupManifest) -> bool:
    """Return whether the primary was made to finish the base backup's last segment, which was still open.

    Nothing is raised: where the primary does not answer, is none, or does not let us, the base backup waits for the
    segment as for any other.
    """
    try:
        facts = primary.facts()
        last = manifest.required_segments[-1]
        open_segment = segment_at(facts.timeline, Lsn(facts.wal_lsn), facts.wal_segment_size)
        if facts.in_recovery or facts.system_identifier != manifest.system_identifier or open_segment != last:
            return False
        if not facts.role.can_switch_wal:
            _log.warning(
                "'%s' is open on the primary until its archive_timeout is over: role '%s' may not call pg_switch_wal()",
                last.name,
                facts.role.name,
            )
            return False
        primary.switch_wal()
    except PostgresError as error:
        _log.warning("the primary is not asked to finish the last segment of the base backup: %s", error.message)
        return False
    return True
