"""Judges whether a file that cannot be archived could be moved to quarantine, before one has to be."""

from dataclasses import replace
from pathlib import Path
from typing import Final

from wal_pipeline.commands.setup.findings import Finding, Level
from wal_pipeline.commands.setup.plan import SetupPlan
from wal_pipeline.commands.setup.writable import require_writable
from wal_pipeline.errors import SettingsError

_NAME: Final = "spool: quarantine"
_VARIABLE: Final = "WAL_PIPELINE_QUARANTINE_FOLDER"


def with_quarantine(plan: SetupPlan, folder: Path | None) -> SetupPlan:
    """Return the plan with the finding about the quarantine folder; the same where none is given."""
    return plan if folder is None else replace(plan, findings=(*plan.findings, judge_quarantine(folder)))


def judge_quarantine(folder: Path) -> Finding:
    """Try the quarantine folder, or the one in which it will be made."""
    try:
        return Finding(_NAME, Level.OK, require_writable(_VARIABLE, folder))
    except SettingsError as error:
        message = f"{error.message}; a file that cannot be archived would stay in the spool, in every run"
        return Finding(_NAME, Level.PROBLEM, message, lines=(error.hint,) if error.hint else ())
