"""What a run of the restore job does; loaded by that run alone."""

from pathlib import Path

import dagster as dg

from wal_pipeline.archive.recovery.target_text import target_from_text
from wal_pipeline.commands.archive_get.restore_command import prefetch_folder, program, shell_line
from wal_pipeline.commands.restore.checks import check_runnable
from wal_pipeline.commands.restore.contents import find_system_identifier
from wal_pipeline.commands.restore.perform import RestoreEvents, RestoreResult, perform_restore
from wal_pipeline.commands.restore.prepare import PreparedRestore, RestoreRequest, prepare_restore
from wal_pipeline.commands.restore.reached import require_reached
from wal_pipeline.commands.restore.start import RecoveryResult, find_config_file, start_and_watch
from wal_pipeline.orchestration.jobs.restore_config import RestoreConfig
from wal_pipeline.orchestration.keys import Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.postgres.recovery import TargetAction
from wal_pipeline.settings import settings_file
from wal_pipeline.wiring.pipeline import Pipeline


def run_restore(
    context: dg.OpExecutionContext, keys: Keys, config: RestoreConfig, resource: WalPipelineResource
) -> None:
    """Log the plan and, unless that is all that is asked for, restore.

    Raises: what ``prepare`` raises; RestoreError where the recovery did not end where it was planned to.
    """
    pipeline = resource.open()
    prepared = prepare(pipeline, config)
    context.log.info(_plan_text(prepared))
    if config.plan_only:
        return
    words = program(prepared.plan.system_identifier, env_file=settings_file(_env_file(resource)), store=config.store)
    check_runnable(words, prepared.user)
    folder = prefetch_folder(prepared.request.pgdata, prepared.plan.system_identifier)
    events = RestoreEvents(phase=context.log.info, fault=lambda fault: context.log.warning(str(fault)))
    values = {"pgdata": str(prepared.request.pgdata), "store": config.store}
    with pipeline.audit.work("restore", keys.cluster, by=f"run {context.run_id}", **values) as told:
        result = perform_restore(prepared, shell_line(words, folder.path), events)
        told["result"] = "restored"
    recovery = _start(prepared, config) if config.start else None
    context.add_output_metadata(_metadata(result, recovery))
    if recovery is not None:
        require_reached(prepared, recovery)


def prepare(pipeline: Pipeline, config: RestoreConfig) -> PreparedRestore:
    """Plan and check a restore. Raises: RecoveryTargetError, RestoreError, PostgresError, StoreError, SettingsError."""
    names = pipeline.settings.stores if config.store == "any" else (config.store,)
    stores = tuple(pipeline.open_stores(names).values())
    settings = pipeline.settings
    given = config.system_identifier or settings.system_identifier
    request = RestoreRequest(
        pgdata=Path(config.pgdata).absolute(),
        target=target_from_text(
            to_time=config.to_time,
            to_lsn=config.to_lsn,
            to_xid=config.to_xid,
            to_name=config.to_name,
            immediate=config.immediate,
            inclusive=config.inclusive,
            timeline=config.timeline,
        ),
        action=TargetAction(config.action),
        base_backup=config.base_backup,
        force=config.force,
        owner=config.owner,
        tablespaces={old: Path(new) for old, new in config.tablespaces.items()},
        verify=config.verify,
        archiving=config.archiving,
        bindir=settings.pgbindir,
    )
    layout = pipeline.layout(find_system_identifier(stores, settings.prefix, settings.cluster, given))
    return prepare_restore(request, stores, layout, pipeline.identities)


def _start(prepared: PreparedRestore, config: RestoreConfig) -> RecoveryResult:
    pgdata = prepared.request.pgdata
    found = find_config_file(pgdata, prepared.binaries.major)
    return start_and_watch(
        prepared.binaries,
        pgdata,
        prepared.user,
        log=pgdata.with_name(f"{pgdata.name}-recovery.log"),
        settings={**config.server_settings, **({} if found is None else {"config_file": str(found)})},
        prefetched=prefetch_folder(pgdata, prepared.plan.system_identifier),
    )


def _plan_text(prepared: PreparedRestore) -> str:
    plan = prepared.plan
    lines = [
        f"restore {prepared.request.pgdata} to {plan.asked} on timeline {plan.timeline}",
        f"from base backup {' + '.join(one.backup_id for one in prepared.chain)}, {prepared.download_bytes} bytes",
        f"with {len(plan.wal)} segments from {', '.join(plan.stores)}",
        *(["it is encrypted, and an identity at hand opens it"] if prepared.encrypted else []),
        *(f"the old content of {folder} is removed" for folder in prepared.emptied),
        f"last commit {plan.commit_at_least} to {plan.commit_at_most}",
    ]
    return "\n".join([*lines, *prepared.notes])


def _metadata(result: RestoreResult, recovery: RecoveryResult | None) -> dict[str, dg.MetadataValue]:
    found: dict[str, dg.MetadataValue] = {
        "pgdata": dg.MetadataValue.path(str(result.pgdata)),
        "downloaded_bytes": dg.MetadataValue.int(result.downloaded_bytes),
        "timeline": dg.MetadataValue.int(result.timeline),
        **{f"{phase}_seconds": dg.MetadataValue.float(value) for phase, value in result.seconds.items()},
    }
    if recovery is not None:
        found["recovery_seconds"] = dg.MetadataValue.float(recovery.seconds["total"])
        if recovery.last_commit_at is not None:
            found["last_commit_at"] = dg.MetadataValue.timestamp(recovery.last_commit_at)
        if recovery.replayed_lsn is not None:
            found["replayed_lsn"] = dg.MetadataValue.text(str(recovery.replayed_lsn))
    return found


def _env_file(resource: WalPipelineResource) -> Path | None:
    return None if resource.env_file is None else Path(resource.env_file)
