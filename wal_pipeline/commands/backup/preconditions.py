"""Refuses a base backup that the server cannot give, before anything is read."""

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from wal_pipeline.archive.format.base_backup.manifest import BaseBackupManifest
from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.records import BackupMethod
from wal_pipeline.commands.backup.parent import ParentBackup
from wal_pipeline.commands.cluster_identity import FIXED_VARIABLE
from wal_pipeline.errors import BaseBackupError, SettingsError
from wal_pipeline.postgres.backup_server import ServerTablespace
from wal_pipeline.postgres.backup_words import LOST_HINT, lost_names
from wal_pipeline.postgres.server_facts import ServerFacts

_FOLDERS: Final = frozenset(("global", "pg_xact", "pg_multixact", "PG_VERSION"))
_LONGEST_NOTE: Final = 500


def require_note(note: str) -> str:
    """Return a note as it is kept: one line. Raises: SettingsError."""
    kept = note.strip()
    if len(kept) > _LONGEST_NOTE or not all(one.isprintable() for one in kept):
        raise SettingsError(
            f"the note has {len(kept)} characters, expected one line of at most {_LONGEST_NOTE}",
            hint="It is shown in every list of base backups: keep longer texts elsewhere, and name the place here.",
        )
    return kept


def require_cluster(facts: ServerFacts, fixed: int | None) -> None:
    """Refuse a server of another cluster than the setting's: its WAL would never reach the stores.

    Raises: BaseBackupError.
    """
    if fixed is not None and fixed != facts.system_identifier:
        raise BaseBackupError(
            f"the server has system identifier {facts.system_identifier}, expected {fixed} by {FIXED_VARIABLE}",
            hint=f"After pg_upgrade remove {FIXED_VARIABLE} or set it to the server's; else mend the connection.",
        )


def require_ready(
    facts: ServerFacts, layout: Layout, parent: ParentBackup | None, method: BackupMethod | None = None
) -> None:
    """Refuse a server of another cluster, one that does not archive, and one that cannot build on ``parent``.

    ``method`` is that of the base backup, by default the parent's.

    Raises: BaseBackupError.
    """
    if facts.system_identifier != layout.system_identifier:
        raise BaseBackupError(
            f"the server has system identifier {facts.system_identifier}, expected {layout.system_identifier}",
            hint="The connection leads to another cluster than the one whose WAL is archived here.",
        )
    if facts.archive_mode == "off" and not facts.in_recovery:
        raise BaseBackupError(
            "the server does not archive its WAL: 'archive_mode' is 'off', expected 'on'",
            hint="A base backup without WAL cannot be restored. Set up archiving first: wal-pipeline setup.",
        )
    if parent is not None and (method or parent.manifest.method) is BackupMethod.REMOTE:
        require_block_incremental(facts, parent.manifest)


def require_segment_size(facts: ServerFacts, archived_bytes: int | None) -> None:
    """Refuse a server whose segment size is not the archive's (None: not known). Raises: BaseBackupError."""
    if archived_bytes not in (facts.wal_segment_size, None):
        raise BaseBackupError(
            f"the server has segments of {facts.wal_segment_size} bytes, the archive of system identifier "
            f"{facts.system_identifier} has segments of {archived_bytes}: the same names stand for other WAL",
            hint="The server's segment size was changed. Give it a cluster name of its own (WAL_PIPELINE_CLUSTER): its "
            "WAL waits in the spool until then. The old archive stays as it is, and can be restored.",
        )


def require_outside(tablespaces: Sequence[ServerTablespace]) -> None:
    """Refuse a tablespace inside the data directory. Raises: BaseBackupError."""
    inside = [space.location for space in tablespaces if not space.location.startswith("/")]
    if inside:
        raise BaseBackupError(
            f"tablespace '{inside[0]}' lies inside the data directory, expected an absolute path",
            hint="Tablespaces made with allow_in_place_tablespaces are for PostgreSQL's own tests: drop it.",
        )


def require_folders(found: Collection[str], databases: Iterable[int]) -> None:
    """Refuse a base backup without a database's folder, whatever the server said of it.

    ``found`` are the paths of its folders, and the names in the data directory itself. Raises: BaseBackupError.
    """
    wanted = _FOLDERS | {f"base/{oid}" for oid in databases}
    missing = sorted(wanted.difference(found))
    if missing:
        raise BaseBackupError(
            f"the base backup has no '{missing[0]}'" + (f" and {len(missing) - 1} more" if missing[1:] else ""),
            hint="A symbolic link in the data directory is left out of base backups: make it a folder again.",
        )


def require_nothing_lost(lost: Sequence[str]) -> None:
    """Refuse a base backup without paths that the cluster needs. Raises: BaseBackupError."""
    if lost:
        raise BaseBackupError(
            f"{lost_names(lost)} cannot be in a base backup: a symbolic link or no regular file",
            hint=LOST_HINT,
        )


def require_block_incremental(facts: ServerFacts, parent: BaseBackupManifest) -> None:
    """Refuse a server that cannot send what changed since ``parent``. Raises: BaseBackupError."""
    if facts.summarize_wal is None:
        raise BaseBackupError(
            f"PostgreSQL {facts.major_version} has no incremental base backups, expected 17 or newer",
            hint="Take a full base backup.",
        )
    if not facts.summarize_wal:
        raise BaseBackupError(
            "the server keeps no WAL summaries: 'summarize_wal' is 'off', expected 'on'",
            hint="ALTER SYSTEM SET summarize_wal = on, reload, then take a full base backup and build on that.",
        )
    if parent.server_version // 10000 != facts.major_version:
        raise BaseBackupError(
            f"the parent is of PostgreSQL {parent.server_version // 10000}, the server {facts.major_version}",
            hint="Take a full base backup.",
        )
