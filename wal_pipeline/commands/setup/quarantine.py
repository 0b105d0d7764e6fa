"""Judges whether a file that cannot be archived could be moved to quarantine, before one has to be."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Final

from wal_pipeline.commands.setup.findings import Finding, Level
from wal_pipeline.commands.setup.plan import SetupPlan
from wal_pipeline.commands.setup.spool import shell_word
from wal_pipeline.host.file_owner import name_of_user
from wal_pipeline.host.mounts import is_writable, nearest

_NAME: Final = "spool: quarantine"


def with_quarantine(plan: SetupPlan, folder: Path | None) -> SetupPlan:
    """Return the plan with the finding about the quarantine folder; the same where none is given."""
    return plan if folder is None else replace(plan, findings=(*plan.findings, judge_quarantine(folder)))


def judge_quarantine(folder: Path) -> Finding:
    """Look at the quarantine folder, or at the one in which it will be made. Writes nothing."""
    if os.path.lexists(folder) and not folder.is_dir():
        return Finding(_NAME, Level.PROBLEM, f"'{folder}' is not a folder", lines=(_setting_line(),))
    if is_writable(folder):
        done = "is there" if folder.is_dir() else "can be made"
        return Finding(_NAME, Level.OK, f"'{folder}' {done}")
    ours = name_of_user(os.geteuid())
    blamed = nearest(folder)
    what = "cannot write in" if blamed == folder else f"cannot make '{folder}' in"
    message = f"user '{ours}' {what} '{blamed}': a file that cannot be archived would stay in the spool, in every run"
    install = f"sudo install -d -o {ours} -m 0700 {shell_word(folder)}"
    return Finding(_NAME, Level.PROBLEM, message, lines=(install, f"or: {_setting_line()}"))


def _setting_line() -> str:
    ours = name_of_user(os.geteuid())
    return f"set WAL_PIPELINE_QUARANTINE_FOLDER to a folder in which user '{ours}' can write"
