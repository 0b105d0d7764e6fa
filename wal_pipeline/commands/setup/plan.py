"""Decides which faults a server's archiving has and which changes mend them. Pure: it looks at nothing itself."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from wal_pipeline.codec.encoder import Encoder
from wal_pipeline.commands.cluster_identity import FIXED_VARIABLE
from wal_pipeline.commands.setup.archiver import Method, judge_archiver
from wal_pipeline.commands.setup.findings import Finding, Level
from wal_pipeline.commands.setup.spool import FilesReadable, SpoolAccess, judge_spool
from wal_pipeline.commands.setup.wal import WalLook, judge_wal
from wal_pipeline.postgres.server import AlterableSetting, SettingChange
from wal_pipeline.postgres.server_facts import ServerFacts

OLDEST_VERSION: Final = 15
_RESTART_SETTINGS: Final = tuple(setting for setting in AlterableSetting if setting.needs_restart)
_GOOD_VALUES: Final = ("on", "always", "replica", "logical")


@dataclass(frozen=True, slots=True)
class WantedArchiving:
    """The archiving that we want. ``replace_foreign`` allows to replace an archiver that writes to another place.

    ``system_identifier`` is the cluster's by the settings, None where they name none. ``encoder`` is what segments are
    compressed with, ``bindir`` where PostgreSQL's programs are looked for first, and ``unreadable_wal`` says that WAL
    is archived which cannot be read. ``quarantine`` is the folder for files that cannot be archived; None: it is not
    judged. ``archived_segment_bytes`` is the segment size of the server's archive so far; None where it has none.
    ``pgdata`` is the data directory by the settings. ``clone_of`` names the clone whose data directory a folder is.
    """

    spool: Path
    archive_timeout_seconds: int = 300
    replace_foreign: bool = False
    system_identifier: int | None = None
    encoder: Encoder | None = None
    bindir: Path | None = None
    unreadable_wal: bool = False
    quarantine: Path | None = None
    archived_segment_bytes: int | None = None
    pgdata: Path | None = None
    clone_of: Callable[[Path], str | None] = lambda _: None


@dataclass(frozen=True, slots=True)
class SetupPlan:
    """The findings, and the restart that the server needs. ``restart_line`` is the shell line for it.

    ``others`` are no part of archiving: what base backups need.
    """

    findings: tuple[Finding, ...]
    restart_line: str | None = None
    others: tuple[Finding, ...] = ()

    @property
    def all_findings(self) -> tuple[Finding, ...]:
        """All findings, those about archiving first."""
        return (*self.findings, *self.others)

    @property
    def all_problems(self) -> tuple[Finding, ...]:
        """The findings that keep archiving or base backups from working."""
        return tuple(finding for finding in self.all_findings if finding.status is Level.PROBLEM)

    @property
    def changes(self) -> tuple[SettingChange, ...]:
        """All server settings to change, in the order in which to write them."""
        return tuple(change for finding in self.findings for change in finding.changes)

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The findings that keep archiving from working."""
        return tuple(finding for finding in self.findings if finding.status is Level.PROBLEM)


def plan_setup(
    facts: ServerFacts,
    access: SpoolAccess,
    wanted: WantedArchiving,
    *,
    has_basic_archive: bool | None,
    wal: WalLook | None = None,
) -> SetupPlan:
    """Judge the server, its WAL and the spool. ``has_basic_archive`` is None where it could not be tried."""
    version = _version(facts)
    if version.status is Level.PROBLEM:
        return SetupPlan((version,))
    method = choose_method(access, has_basic_archive=has_basic_archive)
    findings = (
        version,
        *_identifier(facts, wanted.system_identifier),
        *judge_wal(facts, wal or WalLook(), wanted.encoder, unreadable=wanted.unreadable_wal),
        _wal_level(facts),
        _archive_mode(facts),
        judge_archiver(facts, wanted.spool, method, replace=wanted.replace_foreign),
        _archive_timeout(facts, wanted.archive_timeout_seconds),
        *_segment_size(facts, wanted.archived_segment_bytes),
        *judge_spool(access),
    )
    findings = tuple(_unless_overridden(finding, facts) for finding in findings)
    waiting = [setting for setting in _RESTART_SETTINGS if _waits(facts, setting)]
    needs_restart = waiting or _changes_need_restart(findings)
    return SetupPlan((*findings, *_restart(facts, waiting)), restart_line(facts) if needs_restart else None)


def choose_method(access: SpoolAccess, *, has_basic_archive: bool | None) -> Method:
    """Choose ``basic_archive`` where possible: it starts no process per segment, but shares no files with a group."""
    if access.files_readable is FilesReadable.WITH_GROUP_BIT:
        return Method.GROUP_COMMAND
    return Method.COMMAND if has_basic_archive is False else Method.BASIC_ARCHIVE


def restart_line(facts: ServerFacts) -> str:
    """Return the shell line that restarts this server: Debian's own where its data directory looks like Debian's."""
    parts = Path(facts.data_directory or "").parts
    if len(parts) == 6 and parts[:4] == ("/", "var", "lib", "postgresql"):
        return f"sudo pg_ctlcluster {shlex.quote(parts[4])} {shlex.quote(parts[5])} restart"
    if facts.data_directory is None:
        return "sudo systemctl restart postgresql"
    return f"pg_ctl restart -m fast -D {shlex.quote(facts.data_directory)}"


def _version(facts: ServerFacts) -> Finding:
    if facts.major_version < OLDEST_VERSION:
        message = f"PostgreSQL {facts.server_version} is too old, expected {OLDEST_VERSION} or newer"
        return Finding("version", Level.PROBLEM, message)
    return Finding("version", Level.OK, f"PostgreSQL {facts.server_version}")


def _identifier(facts: ServerFacts, fixed: int | None) -> tuple[Finding, ...]:
    if fixed is None:
        return ()
    if fixed == facts.system_identifier:
        return (Finding("system identifier", Level.OK, f"{fixed}, as the settings say"),)
    message = f"{facts.system_identifier}, expected {fixed} by {FIXED_VARIABLE}: its WAL would stay in the spool"
    lines = (
        f"after pg_upgrade remove {FIXED_VARIABLE} or set it to {facts.system_identifier}; else mend the connection",
    )
    return (Finding("system identifier", Level.PROBLEM, message, lines=lines),)


def _wal_level(facts: ServerFacts) -> Finding:
    if facts.wal_level in ("replica", "logical"):
        return Finding("wal_level", Level.OK, f"'{facts.wal_level}'")
    if _waits(facts, AlterableSetting.WAL_LEVEL):
        message = f"'{facts.wal_level}' until the server is restarted"
        return Finding("wal_level", Level.PROBLEM, message, lines=(restart_line(facts),))
    change = SettingChange(AlterableSetting.WAL_LEVEL, "replica")
    return Finding("wal_level", Level.PROBLEM, f"'{facts.wal_level}', expected 'replica' or 'logical'", (change,))


def _archive_mode(facts: ServerFacts) -> Finding:
    if facts.archiver_is_wanted:
        return Finding("archive_mode", Level.OK, f"'{facts.archive_mode}'")
    if facts.in_recovery:
        message = f"'{facts.archive_mode}' on a standby, which archives only with 'always'"
        return Finding("archive_mode", Level.PROBLEM, message, lines=("connect to the primary",))
    if _waits(facts, AlterableSetting.ARCHIVE_MODE):
        message = f"'{facts.archive_mode}' until the server is restarted"
        return Finding("archive_mode", Level.PROBLEM, message, lines=(restart_line(facts),))
    change = SettingChange(AlterableSetting.ARCHIVE_MODE, "on")
    return Finding("archive_mode", Level.PROBLEM, f"'{facts.archive_mode}', expected 'on'", (change,))


def _archive_timeout(facts: ServerFacts, wanted_seconds: int) -> Finding:
    found = facts.archive_timeout_seconds
    if 0 < found <= wanted_seconds:
        return Finding("archive_timeout", Level.OK, f"{found} s")
    change = SettingChange(AlterableSetting.ARCHIVE_TIMEOUT, str(wanted_seconds))
    shown = f"{found} s" if found else "off"
    message = f"{shown}, expected at most {wanted_seconds} s: it bounds the age of the last change that no store has"
    return Finding("archive_timeout", Level.PROBLEM, message, (change,))


def _segment_size(facts: ServerFacts, archived_bytes: int | None) -> tuple[Finding, ...]:
    """Find a server whose segment size was changed: its names stand for other WAL than the archive's."""
    if archived_bytes in (facts.wal_segment_size, None):
        return ()
    message = (
        f"{facts.wal_segment_size} bytes, the archive of this system identifier has segments of {archived_bytes}: "
        "nothing of this server can be archived there"
    )
    line = "give the server a cluster name of its own (WAL_PIPELINE_CLUSTER), and take a base backup there"
    return (Finding("wal_segment_size", Level.PROBLEM, message, lines=(line,)),)


def _unless_overridden(finding: Finding, facts: ServerFacts) -> Finding:
    """Replace changes without effect by a line for the person: the server's command line wins over ALTER SYSTEM."""
    stuck = [
        change.setting
        for change in finding.changes
        if facts.settings_sources.get(change.setting) in ("command line", "environment variable")
    ]
    if not stuck:
        return finding
    names = ", ".join(stuck)
    line = f"take {names} off the server's command line, restart it, and run 'wal-pipeline setup' again"
    return replace(finding, changes=(), lines=(line,), status=Level.PROBLEM)


def _restart(facts: ServerFacts, waiting: Sequence[AlterableSetting]) -> tuple[Finding, ...]:
    """Find what waits for a restart although its present value is good; else its own finding says so."""
    good = {
        AlterableSetting.WAL_LEVEL: facts.wal_level in ("replica", "logical"),
        AlterableSetting.ARCHIVE_MODE: facts.archiver_is_wanted,
    }
    unsaid = [setting for setting in waiting if good.get(setting, True)]
    if not unsaid:
        return ()
    message = f"changed, but in force only after a restart: {', '.join(unsaid)}"
    return (Finding("restart", Level.PROBLEM, message, lines=(restart_line(facts),)),)


def _waits(facts: ServerFacts, setting: AlterableSetting) -> bool:
    """Return whether a good value is written already and only waits for a restart.

    pg_settings.pending_restart alone does not say so: it stays true after the value was taken back.
    """
    return (
        setting in facts.pending_restart
        and facts.file_settings.get(setting) in _GOOD_VALUES
        and facts.settings_sources.get(setting) != "command line"
    )


def _changes_need_restart(findings: tuple[Finding, ...]) -> bool:
    return any(change.setting.needs_restart for finding in findings for change in finding.changes)
