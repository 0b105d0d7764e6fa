"""Sets up archiving: looks at the server, finds faults, mends them where asked, and proves that archiving works."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from wal_pipeline.commands.setup.data_directory import judge_clone, with_data_directory
from wal_pipeline.commands.setup.findings import Finding
from wal_pipeline.commands.setup.plan import SetupPlan, WantedArchiving, plan_setup
from wal_pipeline.commands.setup.proof import Proof
from wal_pipeline.commands.setup.quarantine import with_quarantine
from wal_pipeline.commands.setup.spool import look_at_spool_access, make_spool
from wal_pipeline.commands.setup.wal import look_at_wal
from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.server import BASIC_ARCHIVE, AlterableSetting, PostgresServer, SettingChange
from wal_pipeline.postgres.server_facts import ServerFacts

_RELOAD_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.1
MoreFindings = Callable[[ServerFacts], Sequence[Finding]]


def _nothing(_facts: ServerFacts) -> Sequence[Finding]:
    return ()


@dataclass(frozen=True, slots=True)
class SetupReport:
    """The findings before and after the changes, the changes, and the proof where one was tried.

    ``after`` is ``before`` where nothing was changed.
    """

    before: SetupPlan
    after: SetupPlan
    applied: tuple[SettingChange, ...] = ()
    made_spool: bool = False
    proof: Proof | None = None

    @property
    def ok(self) -> bool:
        """True where no problem is left, and the proof succeeded where one was tried."""
        return not self.after.all_problems and (self.proof is None or self.proof.ok)


def look_at_archiving(server: PostgresServer, wanted: WantedArchiving, also: MoreFindings = _nothing) -> SetupPlan:
    """Look at the server and the spool, and plan. Changes nothing; the server writes a small file, which we remove.

    ``also`` looks at what is no part of archiving, such as what a base backup needs. Of a clone nothing else is said:
    it gets no archiving.

    Raises: PostgresError where the server cannot be reached.
    """
    facts = server.facts()
    clone = judge_clone(facts, wanted)
    if clone is not None:
        return SetupPlan((clone,))
    access = look_at_spool_access(wanted.spool, server, facts)
    wal = look_at_wal(server, facts, bindir=wanted.bindir)
    has_library = server.has_library(BASIC_ARCHIVE)
    plan = plan_setup(facts, access, wanted, has_basic_archive=has_library, wal=wal)
    plan = with_data_directory(with_quarantine(plan, wanted.quarantine), server, facts)
    return replace(plan, others=(*plan.others, *also(facts)))


def apply_setup(
    server: PostgresServer,
    wanted: WantedArchiving,
    prove: Callable[[], Proof] | None = None,
    also: MoreFindings = _nothing,
) -> SetupReport:
    """Mend the faults that settings can mend, then prove archiving. A second call changes nothing and proves again.

    The proof needs a primary without problems. Where a restart is needed first, ``after.restart_line`` names it.

    Raises: PostgresError where the server refuses, SpoolError where the spool cannot be made.
    """
    made_spool = _make_missing_spool(server, wanted)
    before = look_at_archiving(server, wanted, also)
    if before.changes:
        server.alter_system(before.changes)
        server.reload()
        wait_until_in_force(server, before.changes)
    after = look_at_archiving(server, wanted, also) if before.changes else before
    proof = prove() if prove is not None and not after.problems else None
    return SetupReport(before, after, before.changes, made_spool, proof)


def wait_until_in_force(
    server: PostgresServer, changes: tuple[SettingChange, ...], timeout_seconds: float = _RELOAD_SECONDS
) -> None:
    """Wait until a reload is done: the server answers before its processes have read the files.

    Raises: PostgresError where the values do not come into force.
    """
    deadline = time.monotonic() + timeout_seconds
    while stale := not_in_force(server.facts(), changes):
        if time.monotonic() >= deadline:
            raise PostgresError(
                f"settings {', '.join(stale)} are not in force {timeout_seconds:g} s after a reload",
                hint="The server's log and the view pg_file_settings show a line that was refused.",
            )
        time.sleep(_POLL_SECONDS)


def not_in_force(facts: ServerFacts, changes: tuple[SettingChange, ...]) -> tuple[str, ...]:
    """Return the changed settings whose values the server does not have yet.

    Settings that need a restart are left out, and so is archive_command while archive_mode is off: PostgreSQL hides it.
    """
    values = {
        AlterableSetting.ARCHIVE_LIBRARY: facts.archive_library,
        AlterableSetting.ARCHIVE_TIMEOUT: str(facts.archive_timeout_seconds),
        AlterableSetting.BASIC_ARCHIVE_DIRECTORY: facts.archive_directory,
    }
    if facts.archive_mode != "off":
        values[AlterableSetting.ARCHIVE_COMMAND] = facts.archive_command
    return tuple(change.setting for change in changes if values.get(change.setting, change.value) != change.value)


def _make_missing_spool(server: PostgresServer, wanted: WantedArchiving) -> bool:
    facts = server.facts()
    access = look_at_spool_access(wanted.spool, None, facts)
    if access.exists or judge_clone(facts, wanted) is not None:
        return False
    make_spool(wanted.spool, access.server_uid)
    return True
