"""Runs the restore job: the options come from its configuration, the progress is written into the run's log.

Loaded by that run alone.
"""

from pathlib import Path
from typing import Final

import dagster as dg

from wal_pipeline.commands.restore.chosen.words import chosen_text, finished_lines
from wal_pipeline.commands.restore.download import DownloadFault
from wal_pipeline.commands.restore.options import RestoreOptionError, RestoreOptions
from wal_pipeline.commands.restore.perform import RestoreEvents, RestoreResult, apart_in_a_copy
from wal_pipeline.commands.restore.prepare import PreparedRestore
from wal_pipeline.commands.restore.start import RecoveryResult
from wal_pipeline.errors import WalPipelineError
from wal_pipeline.orchestration.jobs.restore.config import LATEST, NO_FOLDER, RestoreConfig
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.failures import RunError, one_line
from wal_pipeline.postgres.replay_progress import RecoveryProgress
from wal_pipeline.text import counted, length, moment_text, size
from wal_pipeline.wiring.restore import restore_of

_NOT_READ: Final = ("what_they_take",)
_FOLDERS: Final = ("pgdata", "waldir", "work_dir")
_WOULD_BE_REFUSED: Final = "only planned; the restore would be refused for {reasons}: see will_refuse below"
_ONLY_PLANNED: Final = "only planned, nothing was written: start the job with plan_only false to restore"


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


class _RunLog(RestoreEvents):
    """Writes a restore's progress into its run's log, and keeps plan and result for the op's metadata."""

    def __init__(self, context: dg.OpExecutionContext) -> None:
        """``has_begun``: something was written."""
        self._context = context
        self.has_begun = False
        self.metadata: dict[str, dg.MetadataValue] = {}

    def planned(self, prepared: PreparedRestore) -> None:
        """Log the plan, and keep it as the result of a run that only plans."""
        rows = _plan_rows(prepared)
        self._context.log.info("\n".join(f"{name}: {text}" for name, text in rows))
        reasons = counted(len(prepared.refusals), "reason")
        said = _WOULD_BE_REFUSED.format(reasons=reasons) if prepared.refusals else _ONLY_PLANNED
        self.metadata = {"result": dg.MetadataValue.text(said)}
        self.metadata |= {name.replace(" ", "_"): dg.MetadataValue.text(text) for name, text in rows}

    def writing(self) -> None:
        """Note that from now on a failure leaves something behind."""
        self.has_begun = True

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


def _plan_rows(prepared: PreparedRestore) -> list[tuple[str, str]]:
    """Return the plan as names and texts, as 'wal-pipeline restore --plan' shows it."""
    plan, request = prepared.plan, prepared.request
    first, last = plan.commit_at_least, plan.commit_at_most
    commit = moment_text(first) if first == last else f"between {moment_text(first)} and {moment_text(last)}"
    return [
        ("target", f"{plan.asked} on timeline {plan.timeline}, then {request.action.value}"),
        ("last commit", f"{commit} UTC"),
        ("base backup", " + ".join(one.backup_id for one in prepared.chain)),
        ("WAL", f"{counted(len(plan.wal), 'file')} from {', '.join(plan.stores)}"),
        ("download", f"{size(prepared.download_bytes)} before the start, WAL while it recovers"),
        *([] if prepared.chosen is None else [("databases", chosen_text(prepared.chosen))]),
        *([("encryption", "age; an identity at hand opens it")] if prepared.encrypted else []),
        ("data directory", str(request.pgdata)),
        *([("removed first", ", ".join(map(str, prepared.emptied)))] if prepared.emptied else []),
        ("archiving", _role(prepared)),
        ("disk", "\n".join(_disk_lines(prepared))),
        *([("will refuse", "\n".join(map(_refusal, prepared.refusals)))] if prepared.refusals else []),
        *([("notes", "\n".join(notes))] if (notes := [*prepared.notes, *request.signs_of_original]) else []),
    ]


def _refusal(error: WalPipelineError) -> str:
    return one_line(str(error))


def _disk_lines(prepared: PreparedRestore) -> list[str]:
    return [f"{one.folder}: {size(one.needed_bytes)} of {size(one.free_bytes)} free" for one in prepared.disk]


def _role(prepared: PreparedRestore) -> str:
    if prepared.request.is_copy:
        return f"false: a copy, set apart from its original: {', '.join(apart_in_a_copy(prepared))}"
    if prepared.request.archiving:
        return "true: it takes its original's place"
    return "not decided: archiving true to take its original's place, archiving false for a copy beside it"


def _database_metadata(prepared: PreparedRestore, result: RestoreResult) -> dict[str, dg.MetadataValue]:
    if prepared.chosen is None:
        return {}
    lines = finished_lines(prepared.chosen, result.databases)
    return {"only_databases": dg.MetadataValue.text("\n".join(lines))}


def _metadata(result: RestoreResult, recovery: RecoveryResult | None) -> dict[str, dg.MetadataValue]:
    found: dict[str, dg.MetadataValue] = {
        "pgdata": dg.MetadataValue.path(str(result.pgdata)),
        "downloaded": dg.MetadataValue.text(size(result.downloaded_bytes)),
        "timeline": dg.MetadataValue.int(result.timeline),
        **{f"{phase}_took": dg.MetadataValue.text(length(value)) for phase, value in result.seconds.items()},
    }
    found["recovery"] = dg.MetadataValue.text(_reached(recovery))
    if recovery is not None:
        found["recovery_took"] = dg.MetadataValue.text(length(recovery.seconds["total"]))
        if recovery.last_commit_at is not None:
            found["last_commit_at"] = dg.MetadataValue.timestamp(recovery.last_commit_at)
        if recovery.replayed_lsn is not None:
            found["replayed_lsn"] = dg.MetadataValue.text(str(recovery.replayed_lsn))
    return found
