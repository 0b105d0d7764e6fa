"""Makes what a call of the ``restore_command`` needs, each part when it is asked for."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from wal_pipeline.commands.archive_get.prefetch_client import fingerprint
from wal_pipeline.commands.archive_get.prefetch_folder import PrefetchFolder
from wal_pipeline.commands.archive_get.restore_call import RestoreCall
from wal_pipeline.commands.archive_get.restore_command import prefetch_folder, prefetch_root_inside, program, shell_line
from wal_pipeline.commands.archive_get.tail_wal import RecoveryWal, TailLimits
from wal_pipeline.commands.archive_get.wal_source import WalSource
from wal_pipeline.errors import SettingsError

if TYPE_CHECKING:  # a prefetched file is delivered before settings, stores and boto3 are imported
    from wal_pipeline.stores.base import Store
    from wal_pipeline.wiring.pipeline import Pipeline

_ANY_STORE = "any"


@dataclass(frozen=True)
class RecoveringCluster:
    """The cluster that asks for its WAL, by the options of ``archive-get``."""

    pgdata: Path
    env_file: Path | None
    store: str
    given_system_identifier: int | None
    prefetch_dir: Path | None
    prefetch: bool
    retry_seconds: float
    standby: bool
    tail: TailLimits = field(default_factory=TailLimits)

    def __post_init__(self) -> None:
        """Refuse what a standby must not get. Raises: SettingsError."""
        if self.standby and self.tail != TailLimits():
            raise SettingsError(
                "'--tail' cannot be given with '--standby': a standby takes a segment that is made from pieces for a "
                "finished one",
                hint="A standby gets what follows the whole segments by streaming from its primary.",
            )

    def call(self, command_line: list[str], say: Callable[[str], None]) -> RestoreCall:
        """Return one call. ``command_line`` is the program's, without the file and its destination.

        Raises: SettingsError, StoreError, where the cluster's system identifier cannot be found.
        """
        mark = fingerprint(command_line, os.environ)  # before the settings are read
        return RestoreCall(
            source=lambda: self.source,
            folder=self.folder,
            fingerprint=mark,
            retry_seconds=self.retry_seconds,
            standby_signal=self.pgdata / "standby.signal" if self.standby else None,
            say=say,
        )

    def restore_command(self) -> str:
        """Return the line for postgresql.conf. Raises: SettingsError, RestoreError, StoreError."""
        from wal_pipeline.settings import settings_file

        self.open_stores()  # settings that cannot be used are an error now, not in the middle of a recovery
        if self.folder is not None:
            self.folder.check(self._server_uid())
        words = program(
            self.system_identifier,
            env_file=settings_file(self.env_file),
            prefetch_dir=self.prefetch_dir or prefetch_root_inside(self.pgdata),
            store=self.store,
            retry_seconds=self.retry_seconds,
            prefetch=self.prefetch,
            standby=self.standby,
        )
        words += self.tail.words()
        return shell_line(words, None if self.folder is None else self.folder.path)

    @cached_property
    def pipeline(self) -> "Pipeline":
        """The settings and what they describe. Raises: SettingsError."""
        from wal_pipeline.wiring.pipeline import open_pipeline

        return open_pipeline(self.env_file, quiet=True)

    @cached_property
    def system_identifier(self) -> int:
        """The cluster's: by option, from pg_control, by setting, else the only one below the cluster's name."""
        from wal_pipeline.commands.inventory.system_identifiers import only_system_identifier
        from wal_pipeline.postgres.control_file import read_control_file

        if self.given_system_identifier is not None:
            return self.given_system_identifier
        if (self.pgdata / "global" / "pg_control").exists():
            return read_control_file(self.pgdata).system_identifier
        settings = self.pipeline.settings
        if settings.system_identifier is not None:
            return settings.system_identifier
        return only_system_identifier(self.open_stores(), settings.prefix, settings.cluster)

    def open_stores(self) -> "tuple[Store, ...]":
        """Open the stores to ask, with connections of their own. Raises: SettingsError."""
        names = self.pipeline.settings.stores if self.store == _ANY_STORE else (self.store,)
        return tuple(self.pipeline.open_stores(names).values())

    @cached_property
    def source(self) -> RecoveryWal:
        """Where the file can be fetched from. Raises: SettingsError.

        A standby gets no pieces, also one that was made of a restored server, with its line.
        """
        layout = self.pipeline.layout(self.system_identifier)
        tail = TailLimits() if (self.pgdata / "standby.signal").exists() else self.tail
        return RecoveryWal(WalSource(layout, self.open_stores(), tuple(self.pipeline.identities)), tail)

    @cached_property
    def folder(self) -> PrefetchFolder | None:
        """The folder of prefetched files; None where nothing shall be fetched ahead."""
        return prefetch_folder(self.pgdata, self.system_identifier, self.prefetch_dir) if self.prefetch else None

    def _server_uid(self) -> int:
        """Return who runs the server: for root the data directory's owner, where there is one."""
        return self.pgdata.stat().st_uid if os.geteuid() == 0 and self.pgdata.exists() else os.geteuid()
