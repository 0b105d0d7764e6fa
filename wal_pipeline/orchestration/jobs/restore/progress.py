"""Writes the plan and the progress of a restore into its run's log, for all jobs that restore."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Final

import dagster as dg

from wal_pipeline.archive.restore_time.words import forecast_sentence
from wal_pipeline.commands.restore.chosen.words import chosen_text
from wal_pipeline.commands.restore.files.fetch import DownloadFault
from wal_pipeline.commands.restore.perform import RestoreEvents, apart_in_a_copy
from wal_pipeline.commands.restore.prepare import PreparedRestore
from wal_pipeline.commands.restore.standby.words import standby_role, standby_rows, target_words
from wal_pipeline.errors import WalPipelineError
from wal_pipeline.orchestration.runs.failures import one_line
from wal_pipeline.postgres.replay_progress import RecoveryProgress
from wal_pipeline.text import counted, moment_text, size

_WOULD_BE_REFUSED: Final = "only planned; the restore would be refused for {reasons}: see will_refuse below"
_ONLY_PLANNED: Final = "only planned, nothing was written: start the job with plan_only false to {verb}"
_OF_A_REPLACEMENT: Final = ("target", "data directory", "archiving", "removed first")


class RestoreLog(RestoreEvents):
    """Writes a restore's plan and progress into its run's log."""

    def __init__(self, context: dg.OpExecutionContext) -> None:
        """``has_begun``: something was written."""
        self._context = context
        self.has_begun = False

    def planned(self, prepared: PreparedRestore) -> None:
        """Log the plan, without what is the same for each server beside its original."""
        self.log_rows(copy_rows(prepared))

    def log_rows(self, rows: Sequence[tuple[str, str]]) -> None:
        """Log the rows of a plan."""
        self._context.log.info("\n".join(f"{name}: {text}" for name, text in rows))

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


def planned_metadata(
    rows: Sequence[tuple[str, str]], prepared: PreparedRestore, verb: str = "restore"
) -> dict[str, dg.MetadataValue]:
    """Return the result of a run that only plans. ``verb`` is what it does without plan_only."""
    reasons = counted(len(prepared.refusals), "reason")
    said = _WOULD_BE_REFUSED.format(reasons=reasons) if prepared.refusals else _ONLY_PLANNED.format(verb=verb)
    return {
        "result": dg.MetadataValue.text(said),
        **{name.replace(" ", "_"): dg.MetadataValue.text(text) for name, text in rows},
    }


def copy_rows(prepared: PreparedRestore) -> list[tuple[str, str]]:
    """Return the plan of a server beside its original, without what is the same for each such server."""
    asked = prepared.plan.asked
    as_of = f"{asked}{'' if asked.inclusive else ', just before it'}, on timeline {prepared.plan.timeline}"
    return [("as of", as_of), *plan_rows(prepared, _OF_A_REPLACEMENT)]


def plan_rows(prepared: PreparedRestore, left_out: Collection[str] = ()) -> list[tuple[str, str]]:
    """Return the plan as names and texts, as 'wal-pipeline restore --plan' shows it, but for the rows ``left_out``."""
    plan, request = prepared.plan, prepared.request
    first, last = plan.commit_at_least, plan.commit_at_most
    commit = moment_text(first) if first == last else f"between {moment_text(first)} and {moment_text(last)}"
    rows = [
        ("target", f"{target_words(prepared, exclusive='')}, on timeline {plan.timeline}"),
        *standby_rows(prepared),
        ("last commit", f"{commit} UTC"),
        *([("base backup", " + ".join(one.record().title for one in prepared.chain))] if prepared.chain else []),
        ("WAL", f"{counted(len(plan.wal), 'file')} from {', '.join(plan.stores)}"),
        ("download", _download(prepared)),
        *([] if prepared.forecast is None else [("time", forecast_sentence(prepared.forecast, datetime.now(UTC)))]),
        *([] if prepared.chosen is None else [("databases", chosen_text(prepared.chosen))]),
        *([("encryption", "age; an identity at hand opens it")] if prepared.encrypted else []),
        ("data directory", str(request.pgdata)),
        *_emptied(prepared),
        ("archiving", _role(prepared)),
        ("disk", "\n".join(_disk_lines(prepared))),
        *([("will refuse", "\n".join(map(_refusal, prepared.refusals)))] if prepared.refusals else []),
        *([("notes", "\n".join(notes))] if (notes := [*prepared.notes, *request.signs_of_original]) else []),
    ]
    return [row for row in rows if row[0] not in left_out]


def _download(prepared: PreparedRestore) -> str:
    at_most = "at most " if prepared.keeps else ""
    return f"{at_most}{size(prepared.download_bytes)} before the start, WAL while it recovers"


def _emptied(prepared: PreparedRestore) -> list[tuple[str, str]]:
    """Return what becomes of the old content of the folders, where they have any."""
    folders = ", ".join(map(str, prepared.emptied))
    return [("removed first", f"what is not right in {folders}" if prepared.keeps else folders)] if folders else []


def _refusal(error: WalPipelineError) -> str:
    return one_line(str(error))


def _disk_lines(prepared: PreparedRestore) -> list[str]:
    return [f"{one.folder}: {size(one.needed_bytes)} of {size(one.free_bytes)} free" for one in prepared.disk]


def _role(prepared: PreparedRestore) -> str:
    if (standby := standby_role(prepared)) is not None:
        return standby
    if prepared.request.is_copy:
        return f"false: a copy, set apart from its original: {', '.join(apart_in_a_copy(prepared))}"
    if prepared.request.archiving:
        return "true: it takes its original's place"
    return "not decided: archiving true to take its original's place, archiving false for a copy beside it"
