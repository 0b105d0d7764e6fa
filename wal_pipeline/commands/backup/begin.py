"""Begins the session of a base backup, by its method."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.records import BackupMethod
from wal_pipeline.codec.stream_encoder import StreamEncoder
from wal_pipeline.commands.backup.local.parent_files import ParentFiles
from wal_pipeline.commands.backup.local.processes.spawned import SpawnedAhead
from wal_pipeline.commands.backup.local.session import LocalPlan, LocalSession
from wal_pipeline.commands.backup.options import BackupOptions
from wal_pipeline.commands.backup.parent import ParentBackup
from wal_pipeline.commands.backup.preconditions import require_outside, require_ready
from wal_pipeline.commands.backup.session import BackupPlan, BackupSession, ProgressCallback
from wal_pipeline.errors import BaseBackupError
from wal_pipeline.postgres.backup_server import BackupServer
from wal_pipeline.postgres.pg_basebackup import BaseBackupCommand
from wal_pipeline.stores.cluster_store import ClusterStore


@dataclass(frozen=True, slots=True)
class SessionStart:
    """The input of a session. ``pg_basebackup`` is the program's path, which the method ``local`` does not need.

    That method takes worker processes from ``ahead``; the other one ends those that wait there.
    """

    server: BackupServer
    layout: Layout
    encoder: StreamEncoder
    options: BackupOptions
    parent: ParentBackup | None
    pg_basebackup: Path | None
    places: Sequence[ClusterStore] = ()
    identities: Sequence[Any] = ()
    ahead: SpawnedAhead = field(default_factory=SpawnedAhead)

    def session(
        self, method: BackupMethod, on_progress: ProgressCallback, on_named: Callable[[str], object]
    ) -> BackupSession | LocalSession:
        """Ask the server once more, and return the session. Raises: BaseBackupError, PostgresError."""
        facts = self.server.facts()
        require_ready(facts, self.layout, self.parent, method)
        tablespaces = self.server.tablespaces()
        require_outside(tablespaces)
        options = self.options
        if method is BackupMethod.LOCAL:
            if options.pgdata is None:
                raise BaseBackupError("no data directory was given, expected its path", hint="Set PGDATA.")
            local = LocalPlan(
                facts,
                tablespaces,
                self.layout,
                self.encoder,
                options.pgdata,
                options.label,
                options.fast_checkpoint,
                options.volume_size_bytes,
                options.workers,
                options.max_rate_kib,
                self._parent_files(),
                self.places,
                self.identities,
                self.ahead,
            )
            return LocalSession(self.server, local, on_progress, on_named)
        self.ahead.close()
        remote = BackupPlan(
            facts,
            tablespaces,
            self.layout,
            self.encoder,
            self._command(),
            self.parent.chain if self.parent else (),
            options.volume_size_bytes,
            options.silence_seconds,
        )
        return BackupSession(self.server, remote, on_progress, on_named)

    def _parent_files(self) -> ParentFiles | None:
        """Return the parent's files; None where nothing of it can be referred to, as its volumes open otherwise."""
        parent, encoder = self.parent, self.encoder
        if parent is None or parent.index is None:
            return None
        if (parent.manifest.codec, parent.manifest.encrypted) != (encoder.codec, encoder.encrypted):
            return None
        return ParentFiles(parent.manifest, parent.index, self.options.compare)

    def _command(self) -> BaseBackupCommand:
        if self.pg_basebackup is None:
            raise BaseBackupError("no pg_basebackup was given, expected its path")
        return BaseBackupCommand(
            program=self.pg_basebackup,
            conninfo=self.server.program_conninfo(self.server.message_options()),
            label=self.options.label,
            fast_checkpoint=self.options.fast_checkpoint,
            max_rate_kib=self.options.max_rate_kib,
            parent_manifest=self.parent.backup_manifest if self.parent else None,
        )
