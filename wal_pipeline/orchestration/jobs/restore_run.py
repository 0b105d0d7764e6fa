"""Runs the restore job: the options come from its configuration, the progress is written into the run's log.

Loaded by that run alone.
"""

from pathlib import Path
from typing import Final

import dagster as dg

from wal_pipeline.commands.restore.download import DownloadFault
from wal_pipeline.commands.restore.options import RestoreOptions
from wal_pipeline.commands.restore.perform import RestoreEvents, RestoreResult, apart_in_a_copy
from wal_pipeline.commands.restore.prepare import PreparedRestore
from wal_pipeline.commands.restore.start import RecoveryResult
from wal_pipeline.orchestration.jobs.restore_config import RestoreConfig
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.postgres.replay_progress import RecoveryProgress
from wal_pipeline.wiring.restore import restore_of


def run_restore(context: dg.OpExecutionContext, config: RestoreConfig, resource: WalPipelineResource) -> None:
    """Log the plan and, unless that is all that is asked for, restore.

    Raises: as ``restore_of`` and ``Restore.run``.
    """
    env_file = None if resource.env_file is None else Path(resource.env_file)
    by = f"run {context.run_id}"
    restore_of(resource.open(), options_of(config), env_file=env_file, by=by).run(_RunLog(context))


_FOLDERS: Final = ("pgdata", "waldir", "work_dir")


def options_of(config: RestoreConfig) -> RestoreOptions:
    """Return the options that a run's configuration names."""
    tablespaces = {old: Path(new) for old, new in config.tablespaces.items()}
    folders = {name: Path(value) for name in _FOLDERS if (value := getattr(config, name)) is not None}
    return RestoreOptions(**{**dict(config), **folders, "tablespaces": tablespaces})


class _RunLog(RestoreEvents):
    """Writes a restore's progress into its run's log, and the result into the op's metadata."""

    def __init__(self, context: dg.OpExecutionContext) -> None:
        self._context = context

    def planned(self, prepared: PreparedRestore) -> None:
        """Log the plan."""
        self._context.log.info(_plan_text(prepared))

    def phase(self, name: str) -> None:
        """Log the phase."""
        self._context.log.info(name)

    def fault(self, fault: DownloadFault) -> None:
        """Log what is wrong with the copy."""
        self._context.log.warning(f"{fault.message}; another store is tried")

    def recovering(self, progress: RecoveryProgress) -> None:
        """Log what a recovery waits for that does not go on."""
        if progress.waits_for is not None:
            self._context.log.warning(
                f"recovery waits for {progress.waits_for}, for {progress.quiet_seconds:.0f} s now"
            )

    def ended(self, prepared: PreparedRestore, result: RestoreResult, recovery: RecoveryResult | None) -> None:  # noqa: ARG002
        """Add what was restored and reached to the metadata."""
        self._context.add_output_metadata(_metadata(result, recovery))


def _plan_text(prepared: PreparedRestore) -> str:
    plan = prepared.plan
    lines = [
        f"restore {prepared.request.pgdata} to {plan.asked} on timeline {plan.timeline}",
        f"from base backup {' + '.join(one.backup_id for one in prepared.chain)}, {prepared.download_bytes} bytes",
        f"with {len(plan.wal)} segments from {', '.join(plan.stores)}",
        *(["it is encrypted, and an identity at hand opens it"] if prepared.encrypted else []),
        *(f"the old content of {folder} is removed" for folder in prepared.emptied),
        f"last commit {plan.commit_at_least} to {plan.commit_at_most}",
        *_role_lines(prepared),
    ]
    return "\n".join([*lines, *prepared.notes])


def _role_lines(prepared: PreparedRestore) -> list[str]:
    request = prepared.request
    words = {True: "it takes its original's place", False: "a copy, set apart from its original: ", None: "not decided"}
    apart = ", ".join(apart_in_a_copy(prepared)) if request.is_copy else ""
    return [f"archiving: {words[request.archiving]}{apart}", *request.signs_of_original]


def _metadata(result: RestoreResult, recovery: RecoveryResult | None) -> dict[str, dg.MetadataValue]:
    found: dict[str, dg.MetadataValue] = {
        "pgdata": dg.MetadataValue.path(str(result.pgdata)),
        "downloaded_bytes": dg.MetadataValue.int(result.downloaded_bytes),
        "timeline": dg.MetadataValue.int(result.timeline),
        **{f"{phase}_seconds": dg.MetadataValue.float(value) for phase, value in result.seconds.items()},
    }
    if recovery is None:
        found["recovery"] = dg.MetadataValue.text("not started: no moment is reached yet")
    else:
        found["recovery"] = dg.MetadataValue.text(recovery.state.value)
        found["recovery_seconds"] = dg.MetadataValue.float(recovery.seconds["total"])
        if recovery.last_commit_at is not None:
            found["last_commit_at"] = dg.MetadataValue.timestamp(recovery.last_commit_at)
        if recovery.replayed_lsn is not None:
            found["replayed_lsn"] = dg.MetadataValue.text(str(recovery.replayed_lsn))
    return found
