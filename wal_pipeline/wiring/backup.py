"""Turns the settings into what takes base backups."""

from collections.abc import Callable, Sequence
from functools import partial

from wal_pipeline.archive.records import MethodChoice
from wal_pipeline.codec.stream_encoder import StreamEncoder
from wal_pipeline.commands.backup.local.processes.spawned import SpawnedAhead
from wal_pipeline.commands.backup.options import BackupOptions
from wal_pipeline.commands.backup.standby.last_segment import finish_last_segment
from wal_pipeline.commands.backup.take import BaseBackupTaker
from wal_pipeline.commands.setup.backup_source import judge_backup_source
from wal_pipeline.commands.setup.base_backups import BackupLook, judge_stores
from wal_pipeline.commands.setup.findings import Finding
from wal_pipeline.postgres.backup_server import BackupServer
from wal_pipeline.postgres.binaries import find_binaries
from wal_pipeline.postgres.server_facts import ServerFacts
from wal_pipeline.wiring.pipeline import Pipeline, open_backup_server
from wal_pipeline.wiring.relations import try_keep_relations
from wal_pipeline.wiring.settings_check import OFF, cron_of
from wal_pipeline.wiring.stores import missing_settings


def base_backup_taker(
    pipeline: Pipeline, *, archive: Callable[[], object] | None = None, ahead: SpawnedAhead | None = None
) -> BaseBackupTaker:
    """Return what takes base backups. ``archive`` brings waiting WAL to the stores where nothing else does so.

    ``ahead`` are worker processes that were started already.
    """
    settings = pipeline.settings
    program = "pg_basebackup"
    from_standby = bool(settings.backup_conninfo.get_secret_value())
    return BaseBackupTaker(
        server=open_backup_server(BackupServer, settings),
        find_program=lambda major: find_binaries(major, programs=(program,), bindir=settings.pgbindir).program(program),
        stores=pipeline.stores,
        layout=pipeline.layout,
        encoder=StreamEncoder(
            settings.base_backup_codec,
            settings.base_backup_codec_level,
            threads=settings.base_backup_threads,
            recipients=settings.age_recipients,
        ),
        options=_options(pipeline),
        catalog=pipeline.catalog,
        clock=pipeline.clock,
        identities=pipeline.identities,
        wal_timeout_seconds=settings.base_backup_wal_timeout_seconds,
        archive=archive,
        keep_relations=lambda: try_keep_relations(pipeline),
        finish_wal=partial(finish_last_segment, pipeline.server) if from_standby else lambda _: None,
        ahead=ahead,
    )


def also_for_base_backups(pipeline: Pipeline, *, with_stores: bool) -> Callable[[ServerFacts], Sequence[Finding]]:
    """Return what setup and check look at besides archiving; ``with_stores`` asks each store that has its settings."""
    settings = pipeline.settings
    server = open_backup_server(BackupServer, settings)
    from_standby = bool(settings.backup_conninfo.get_secret_value())
    reads_files = settings.backup_method is not MethodChoice.REMOTE
    incremental = cron_of(settings, "base_backup_incremental_cron").lower() != OFF
    look = BackupLook(
        server, settings.pgdata, _options(pipeline).staging, reads_files=reads_files, incremental=incremental
    )
    stores = pipeline.open_stores(pipeline.usable_store_names) if with_stores else {}
    missing = {str(name): missing_settings(settings, name) for name in settings.stores} if with_stores else {}

    def findings(facts: ServerFacts) -> Sequence[Finding]:
        pgdata = settings.pgdata if reads_files else None
        found = judge_backup_source(server, facts, pgdata) if from_standby else look.findings(facts)
        return (*found, *judge_stores(stores, missing))

    return findings


def _options(pipeline: Pipeline) -> BackupOptions:
    settings = pipeline.settings
    return BackupOptions(
        scratch_folder=settings.state_folder / "base-backup",
        staging_folder=settings.base_backup_staging_folder,
        label=settings.base_backup_label,
        fast_checkpoint=settings.base_backup_fast_checkpoint,
        max_rate_kib=settings.base_backup_max_rate_kib,
        read_back=settings.read_back,
        volume_size_bytes=settings.base_backup_volume_mib << 20,
        system_identifier=settings.system_identifier,
        silence_seconds=settings.base_backup_archiver_timeout_seconds,
        method=settings.backup_method,
        pgdata=settings.pgdata,
        workers=settings.base_backup_workers,
        max_chain=settings.base_backup_max_chain,
        compare=settings.incremental_compare,
    )
