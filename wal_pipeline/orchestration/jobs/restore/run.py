"""Runs the restore job: the options come from its configuration, the progress is written into the run's log.

Loaded by that run alone.
"""

from pathlib import Path
from typing import Final

import dagster as dg

from wal_pipeline.archive.restore_time.words import comparison_text
from wal_pipeline.commands.restore.chosen.words import finished_lines
from wal_pipeline.commands.restore.options import RestoreOptionError, RestoreOptions
from wal_pipeline.commands.restore.perform import RestoreResult
from wal_pipeline.commands.restore.prepare import PreparedRestore
from wal_pipeline.commands.restore.start import RecoveryResult
from wal_pipeline.errors import WalPipelineError
from wal_pipeline.orchestration.jobs.restore.config import LATEST, NO_FOLDER, RestoreConfig
from wal_pipeline.orchestration.jobs.restore.progress import RestoreLog, plan_rows, planned_metadata
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.failures import RunError
from wal_pipeline.text import length, size
from wal_pipeline.wiring.restore import restore_of

_NOT_READ: Final = ("what_they_take",)
_FOLDERS: Final = ("pgdata", "waldir", "work_dir", "tablespace_map_all")


def run_restore(context: dg.OpExecutionContext, config: RestoreConfig, resource: WalPipelineResource) -> None:
    """Show the plan and, unless that is all that is asked for, restore. The op's metadata has the plan and the result.

    Raises: RunError, whose metadata says so, where nothing was changed yet; later as ``Restore.run``.
    """
    shown = _RunLog(context)
    try:
        env_file = None if resource.env_file is None else Path(resource.env_file)
        restore = restore_of(resource.open(), options_of(config), env_file=env_file, by=f"run {context.run_id}")
        restore.run(shown)
    except WalPipelineError as error:
        if shown.has_begun:
            raise
        raise RunError.of(error, nothing_changed=True) from None
    context.add_output_metadata(shown.metadata)


def options_of(config: RestoreConfig) -> RestoreOptions:
    """Return the options that a run's configuration names. Raises: RestoreOptionError where it names no folder."""
    if config.pgdata == NO_FOLDER:
        raise RestoreOptionError(
            f"pgdata is still '{NO_FOLDER}', expected the data directory to restore into",
            hint="Write a folder on the database's host, such as /var/lib/postgresql/18/restored.",
        )
    given = {name: value for name, value in dict(config).items() if value is not None and name not in _NOT_READ}
    if (config.to_time or "").strip().lower() in ("", LATEST):
        given.pop("to_time", None)
    given |= {name: Path(given[name]) for name in _FOLDERS if name in given}
    given["only_databases"] = tuple(config.only_databases or ())
    given["tablespaces"] = {old: Path(new) for old, new in (config.tablespaces or {}).items()}
    return RestoreOptions(**given)


class _RunLog(RestoreLog):
    """Keeps plan and result for the op's metadata."""

    def __init__(self, context: dg.OpExecutionContext) -> None:
        super().__init__(context)
        self.metadata: dict[str, dg.MetadataValue] = {}

    def planned(self, prepared: PreparedRestore) -> None:
        """Log the plan, and keep it as the result of a run that only plans."""
        rows = plan_rows(prepared)
        self.log_rows(rows)
        self.metadata = planned_metadata(rows, prepared)

    def ended(self, prepared: PreparedRestore, result: RestoreResult, recovery: RecoveryResult | None) -> None:
        """Put what was restored and reached before the plan."""
        text = f"restored into {prepared.request.pgdata}"
        self.metadata = {
            "result": dg.MetadataValue.text(f"{text}, recovery {_reached(recovery)}"),
            **_metadata(result, recovery),
            **_database_metadata(prepared, result),
            **{name: value for name, value in self.metadata.items() if name != "result"},
        }


def _reached(recovery: RecoveryResult | None) -> str:
    return "not started: no moment is reached yet" if recovery is None else recovery.state.value


def _database_metadata(prepared: PreparedRestore, result: RestoreResult) -> dict[str, dg.MetadataValue]:
    if prepared.chosen is None:
        return {}
    lines = finished_lines(prepared.chosen, result.databases)
    return {"only_databases": dg.MetadataValue.text("\n".join(lines))}


def _metadata(result: RestoreResult, recovery: RecoveryResult | None) -> dict[str, dg.MetadataValue]:
    found: dict[str, dg.MetadataValue] = {
        "pgdata": dg.MetadataValue.path(str(result.pgdata)),
        "downloaded": dg.MetadataValue.text(size(result.downloaded_bytes)),
        **({"kept": dg.MetadataValue.text(size(result.kept_bytes))} if result.kept_bytes else {}),
        "timeline": dg.MetadataValue.int(result.timeline),
        **{f"{phase}_took": dg.MetadataValue.text(length(value)) for phase, value in result.seconds.items()},
    }
    if result.predicted_seconds is not None and result.took_seconds is not None:
        found["time"] = dg.MetadataValue.text(comparison_text(result.predicted_seconds, result.took_seconds))
    found["recovery"] = dg.MetadataValue.text(_reached(recovery))
    if recovery is not None:
        found["recovery_took"] = dg.MetadataValue.text(length(recovery.seconds["total"]))
        if recovery.last_commit_at is not None:
            found["last_commit_at"] = dg.MetadataValue.timestamp(recovery.last_commit_at)
        if recovery.replayed_lsn is not None:
            found["replayed_lsn"] = dg.MetadataValue.text(str(recovery.replayed_lsn))
    return found
