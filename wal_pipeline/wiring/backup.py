"""Turns the settings into what takes base backups."""

from collections.abc import Callable

from wal_pipeline.codec.stream_encoder import StreamEncoder
from wal_pipeline.commands.backup.take import BackupOptions, BaseBackupTaker
from wal_pipeline.postgres.backup_server import BackupServer
from wal_pipeline.postgres.binaries import find_binaries
from wal_pipeline.wiring.pipeline import Pipeline, open_server


def base_backup_taker(pipeline: Pipeline, *, archive: Callable[[], object] | None = None) -> BaseBackupTaker:
    """Return what takes base backups. ``archive`` brings waiting WAL to the stores where nothing else does so."""
    settings = pipeline.settings
    program = "pg_basebackup"
    return BaseBackupTaker(
        server=open_server(BackupServer, settings),
        find_program=lambda major: find_binaries(major, programs=(program,), bindir=settings.pgbindir).program(program),
        stores=pipeline.stores,
        layout=pipeline.layout,
        encoder=StreamEncoder(
            settings.base_backup_codec,
            settings.base_backup_codec_level,
            threads=settings.base_backup_threads,
            recipients=settings.age_recipients,
        ),
        options=BackupOptions(
            scratch_folder=settings.state_folder / "base-backup",
            staging_folder=settings.base_backup_staging_folder,
            label=settings.base_backup_label,
            fast_checkpoint=settings.base_backup_fast_checkpoint,
            max_rate_kib=settings.base_backup_max_rate_kib,
            read_back=settings.read_back,
            volume_size_bytes=settings.base_backup_volume_mib << 20,
            system_identifier=settings.system_identifier,
        ),
        catalog=pipeline.catalog,
        clock=pipeline.clock,
        identities=pipeline.identities,
        wal_timeout_seconds=settings.base_backup_wal_timeout_seconds,
        archive=archive,
    )
