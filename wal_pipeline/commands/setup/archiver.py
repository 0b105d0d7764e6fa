"""Which archive library or command the server has, whether it may stay, and which one it should have. Pure."""

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Final

from wal_pipeline.commands.setup.findings import Finding, Status
from wal_pipeline.postgres.archive_command import archives_into, durable_archive_command, is_durable
from wal_pipeline.postgres.server import BASIC_ARCHIVE, AlterableSetting, SettingChange
from wal_pipeline.postgres.server_facts import ServerFacts

_DISCARDS: Final = re.compile(r"\s*(?:(?:/usr)?/bin/true|true|:|exit 0|cd \.|REM)\s*\Z")
_NAME: Final = "archiver"


class Archiver(StrEnum):
    """What the server archives with now."""

    NONE = "none"
    DISCARDS = "discards"
    BOTH = "both"
    BASIC_ARCHIVE = "basic_archive"
    DURABLE_COMMAND = "durable command"
    OTHER_COMMAND = "other command"  # into our spool, by a line that we did not make
    FOREIGN = "foreign"  # to somewhere else, for someone else


class Method(StrEnum):
    """The ways to archive that we set up."""

    BASIC_ARCHIVE = "basic_archive"
    COMMAND = "command"
    GROUP_COMMAND = "group command"


def current_archiver(facts: ServerFacts, spool: Path) -> Archiver:
    """Return what archives now. Up to PostgreSQL 15 a library wins over a command; later both together are an error."""
    if facts.archive_library and facts.archive_command and facts.major_version >= 16:
        return Archiver.BOTH
    if facts.archive_library:
        ours = facts.archive_library == BASIC_ARCHIVE and facts.archive_directory in ("", *_spellings(spool))
        return (Archiver.BASIC_ARCHIVE if facts.archive_directory else Archiver.NONE) if ours else Archiver.FOREIGN
    if not facts.archive_command.strip():
        return Archiver.NONE
    if _DISCARDS.match(facts.archive_command):
        return Archiver.DISCARDS
    if is_durable(facts.archive_command, spool):
        return Archiver.DURABLE_COMMAND
    return Archiver.OTHER_COMMAND if archives_into(facts.archive_command, spool) else Archiver.FOREIGN


def changes_to(method: Method, spool: Path) -> tuple[SettingChange, ...]:
    """Return the settings that make the server archive by ``method``.

    The other one of the two settings is always emptied: from PostgreSQL 16 on, the archiver does not start with both.
    """
    library = BASIC_ARCHIVE if method is Method.BASIC_ARCHIVE else ""
    command = "" if library else durable_archive_command(spool, group_readable=method is Method.GROUP_COMMAND)
    directory = (SettingChange(AlterableSetting.BASIC_ARCHIVE_DIRECTORY, str(spool)),) if library else ()
    return (
        *directory,
        SettingChange(AlterableSetting.ARCHIVE_COMMAND, command),
        SettingChange(AlterableSetting.ARCHIVE_LIBRARY, library),
    )


def judge_archiver(facts: ServerFacts, spool: Path, method: Method, *, replace: bool) -> Finding:
    """Judge what archives now. A foreign archiver is replaced only where ``replace`` says so: someone relies on it."""
    current = current_archiver(facts, spool)
    changes = changes_to(method, spool)
    if current is Archiver.BASIC_ARCHIVE and method is not Method.GROUP_COMMAND:
        return Finding(_NAME, Status.OK, f"archive_library 'basic_archive' writes into '{spool}'")
    if current is Archiver.DURABLE_COMMAND and facts.archive_command in _good_commands(method, spool):
        return Finding(_NAME, Status.OK, f"archive_command writes durably into '{spool}'")
    if current is Archiver.FOREIGN and not replace:
        lines = ("wal-pipeline setup --apply --replace",)
        return Finding(_NAME, Status.PROBLEM, _foreign_message(facts, spool), lines=lines)
    status = Status.WARNING if current is Archiver.OTHER_COMMAND else Status.PROBLEM
    return Finding(_NAME, status, _messages(facts, spool)[current], changes)


def _good_commands(method: Method, spool: Path) -> tuple[str, ...]:
    shared = durable_archive_command(spool, group_readable=True)
    return (shared,) if method is Method.GROUP_COMMAND else (shared, durable_archive_command(spool))


def _messages(facts: ServerFacts, spool: Path) -> Mapping[Archiver, str]:
    unreadable = f"files in '{spool}' are for PostgreSQL's user alone, expected also for its group"
    return {
        Archiver.NONE: f"nothing archives into '{spool}': archive_library and archive_command are not set",
        Archiver.DISCARDS: f"archive_command '{facts.archive_command}' throws the WAL away",
        Archiver.BOTH: "archive_library and archive_command are both set: the archiver of PostgreSQL "
        f"{facts.major_version} does not start, and pg_stat_archiver shows no failure",
        Archiver.BASIC_ARCHIVE: unreadable,
        Archiver.DURABLE_COMMAND: unreadable,
        Archiver.OTHER_COMMAND: f"archive_command '{facts.archive_command}' is not known to be durable: "
        "after a plain cp, a crash of the host can leave half a file, or none, of a segment that PostgreSQL has "
        "already recycled; and a crash within cp leaves a name that 'test ! -f' then refuses for ever",
        Archiver.FOREIGN: _foreign_message(facts, spool),
    }


def _foreign_message(facts: ServerFacts, spool: Path) -> str:
    if facts.archive_library:
        where = f" (into '{facts.archive_directory}')" if facts.archive_library == BASIC_ARCHIVE else ""
        found = f"archive_library '{facts.archive_library}'{where}"
    else:
        found = f"archive_command '{facts.archive_command}'"
    return f"{found} archives elsewhere, expected into '{spool}'; whoever reads there would get no more WAL"


def _spellings(spool: Path) -> tuple[str, ...]:
    return (str(spool), f"{spool}/")
