"""Judges the server's archive library or command, and chooses the one that it should have. Pure."""

import os
import re
import shlex
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Final

from wal_pipeline.commands.setup.findings import Finding, Level
from wal_pipeline.postgres.archive_command import (
    MAX_EXPANDED_BYTES,
    archives_into,
    bytes_too_many,
    durable_archive_command,
    is_durable,
)
from wal_pipeline.postgres.server import BASIC_ARCHIVE, AlterableSetting, SettingChange
from wal_pipeline.postgres.server_facts import ServerFacts

_DISCARDS: Final = re.compile(r"\s*(?:(?:/usr)?/bin/true|true|:|exit 0|cd \.|REM)\s*\Z")
_NAME: Final = "archiver"


class ArchiverKind(StrEnum):
    """The kinds of archiver that a server may have now."""

    NONE = "none"
    DISCARDS = "discards"
    BOTH = "both"
    BASIC_ARCHIVE = "basic_archive"
    DURABLE_COMMAND = "durable command"
    OTHER_COMMAND = "other command"  # into our spool, by a line that we did not write
    FOREIGN = "foreign"  # to another place, for someone else


class Method(StrEnum):
    """The ways to archive that we set up."""

    BASIC_ARCHIVE = "basic_archive"
    COMMAND = "command"
    GROUP_COMMAND = "group command"


def current_archiver(facts: ServerFacts, spool: Path) -> ArchiverKind:
    """Return the server's kind of archiver.

    Up to PostgreSQL 15 a library wins over a command; from 16 on, both together are an error.
    """
    if facts.archive_library and facts.archive_command and facts.major_version >= 16:
        return ArchiverKind.BOTH
    if facts.archive_library:
        ours = facts.archive_library == BASIC_ARCHIVE and facts.archive_directory in ("", *_spellings(spool))
        return (
            (ArchiverKind.BASIC_ARCHIVE if facts.archive_directory else ArchiverKind.NONE)
            if ours
            else ArchiverKind.FOREIGN
        )
    if not facts.archive_command.strip():
        return ArchiverKind.NONE
    if _DISCARDS.match(facts.archive_command):
        return ArchiverKind.DISCARDS
    if is_durable(facts.archive_command, spool):
        return ArchiverKind.DURABLE_COMMAND
    return ArchiverKind.OTHER_COMMAND if archives_into(facts.archive_command, spool) else ArchiverKind.FOREIGN


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
    """Judge the server's archiver. A foreign one is replaced only where ``replace`` says so: someone relies on it."""
    current = current_archiver(facts, spool)
    if current is ArchiverKind.FOREIGN and not replace:
        lines = ("wal-pipeline setup --apply --replace",)
        return Finding(_NAME, Level.PROBLEM, _foreign_message(facts, spool), lines=lines)
    if current is ArchiverKind.BASIC_ARCHIVE and method is not Method.GROUP_COMMAND:
        return Finding(_NAME, Level.OK, f"archive_library 'basic_archive' writes into '{spool}'")
    changes = changes_to(method, spool)
    wanted = next(change.value for change in changes if change.setting is AlterableSetting.ARCHIVE_COMMAND)
    if excess := bytes_too_many(wanted, facts.major_version):
        return Finding(_NAME, Level.PROBLEM, _too_long(facts, excess), lines=_shorter_lines(spool, excess))
    cut = 0 if facts.archive_library else bytes_too_many(facts.archive_command, facts.major_version)
    if cut:
        return Finding(_NAME, Level.PROBLEM, _too_long(facts, cut), changes)
    if current is ArchiverKind.DURABLE_COMMAND and facts.archive_command in _good_commands(method, spool):
        return Finding(_NAME, Level.OK, f"archive_command writes durably into '{spool}'")
    status = Level.WARNING if current is ArchiverKind.OTHER_COMMAND else Level.PROBLEM
    return Finding(_NAME, status, _messages(facts, spool)[current], changes)


def _too_long(facts: ServerFacts, excess: int) -> str:
    return (
        f"archive_command for this spool is {excess} bytes too long: PostgreSQL {facts.major_version} cuts it off at "
        f"{MAX_EXPANDED_BYTES} bytes, with the names of its files in it, and archives nothing"
    )


def _shorter_lines(spool: Path, excess: int) -> tuple[str, ...]:
    longest = len(os.fsencode(spool)) - excess  # the path stands once in the line
    return (
        f"sudo ln -s {shlex.quote(str(spool))} /wal-spool",
        f"and set PG_WAL_ARCHIVE_DIR=/wal-spool, or another path of at most {longest} bytes, then type "
        "'wal-pipeline setup --apply'",
    )


def _good_commands(method: Method, spool: Path) -> tuple[str, ...]:
    shared = durable_archive_command(spool, group_readable=True)
    return (shared,) if method is Method.GROUP_COMMAND else (shared, durable_archive_command(spool))


def _messages(facts: ServerFacts, spool: Path) -> Mapping[ArchiverKind, str]:
    unreadable = f"files in '{spool}' are for PostgreSQL's user alone, expected also for its group"
    return {
        ArchiverKind.NONE: f"nothing archives into '{spool}': archive_library and archive_command are not set",
        ArchiverKind.DISCARDS: f"archive_command '{facts.archive_command}' throws the WAL away",
        ArchiverKind.BOTH: "archive_library and archive_command are both set: the archiver of PostgreSQL "
        f"{facts.major_version} does not start, and pg_stat_archiver shows no failure",
        ArchiverKind.BASIC_ARCHIVE: unreadable,
        ArchiverKind.DURABLE_COMMAND: unreadable,
        ArchiverKind.OTHER_COMMAND: f"archive_command '{facts.archive_command}' is not known to be durable: "
        "after a plain cp, a crash of the host can leave half a file, or none, of a segment that PostgreSQL has "
        "already recycled; and a crash within cp leaves a name that 'test ! -f' then refuses for ever",
        ArchiverKind.FOREIGN: _foreign_message(facts, spool),
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
