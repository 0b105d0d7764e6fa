"""Says that WAL is of a version of PostgreSQL that this program does not know, or encrypted."""

from wal_pipeline.archive.records import CommitTimes
from wal_pipeline.archive.recovery.coverage import ArchiveContents
from wal_pipeline.wal.names import FileKind
from wal_pipeline.wal.page_header import NEWEST_KNOWN_MAJOR


def unread_wal_note(contents: ArchiveContents) -> str | None:
    """Return one sentence about the newest segment whose record is at hand; None where it is WAL as usual."""
    segments = [file for file in contents.files.values() if file.kind is FileKind.SEGMENT]
    newest = max(segments, key=lambda file: file.name, default=None)
    if newest is None or (newest.server_major or 0) in range(1, NEWEST_KNOWN_MAJOR + 1):
        return None
    version = (
        "of a version of PostgreSQL that this program does not know, or encrypted"
        if newest.server_major is None
        else f"of PostgreSQL {newest.server_major}, which is newer than this program knows"
    )
    known = newest.commit_times is not CommitTimes.UNKNOWN
    moments = "were read with that version's pg_waldump" if known else "are not known"
    return (
        f"WAL up to '{newest.name}' is {version}: it is archived and restored as it is, and the moments of its commits "
        f"{moments}."
    )
