"""Returns the facts of a server that archives well, with the changes of a test."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wal_pipeline.commands.setup.spool import FilesReadable, ServerWrites, SpoolAccess
from wal_pipeline.postgres.server_facts import ArchiverFacts, RoleFacts, ServerFacts
from wal_pipeline.wal.lsn import Lsn

SPOOL = Path("/srv/wal")
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
GOOD = ServerFacts(
    server_version_num=180006,
    server_version="18.6",
    system_identifier=7000000000000000001,
    timeline=1,
    in_recovery=False,
    wal_lsn=Lsn.parse("0/3000000"),
    wal_insert_lsn=Lsn.parse("0/3000000"),
    wal_level="replica",
    archive_mode="on",
    archive_library="basic_archive",
    archive_command="",
    archive_timeout_seconds=300,
    archive_directory=str(SPOOL),
    wal_segment_size=16 << 20,
    data_directory="/var/lib/postgresql/18/main",
    group_access=False,
    data_checksums=True,
    summarize_wal=False,
    pending_restart=(),
    settings_sources={},
    file_settings={},
    archiver=ArchiverFacts(3, "000000010000000000000002", NOON, 0, None, None, running=True, ready_count=0),
    role=RoleFacts("postgres", *[True] * 5),
    server_at=NOON,
)
ACCESS = SpoolAccess(
    SPOOL,
    exists=True,
    is_folder=True,
    we_can_read=True,
    we_can_remove=True,
    free_bytes=10 << 30,
    server_uid=0,
    server_writes=ServerWrites.YES,
    files_readable=FilesReadable.YES,
)


def facts(**changed: Any) -> ServerFacts:
    """Return the good server's facts, with some of them changed."""
    return replace(GOOD, **changed)


def access(**changed: Any) -> SpoolAccess:
    """Return the good spool's access with some of it changed. User 0 is 'root' everywhere."""
    return replace(ACCESS, **changed)
