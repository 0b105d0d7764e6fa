"""Judges whether this program can archive what the server writes: its version, its form and the size of a segment."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wal_pipeline.codec.encoder import Encoder
from wal_pipeline.commands.archive_push.prepare import LARGE_BYTES, require_memory
from wal_pipeline.commands.setup.findings import Finding, Level
from wal_pipeline.errors import InvalidWalFileError, MemoryShortError, PostgresError
from wal_pipeline.host.limits import Memory, look_at_memory
from wal_pipeline.postgres.binaries import find_binaries
from wal_pipeline.postgres.server import PostgresServer
from wal_pipeline.postgres.server_facts import ServerFacts
from wal_pipeline.wal.page_header import NEWEST_KNOWN_MAJOR, parse_long_page_header

UNREADABLE_VARIABLE: Final = "WAL_PIPELINE_UNREADABLE_WAL"
_FORM, _MEMORY, _VERSION = "WAL: form", "memory", "WAL: version"


@dataclass(frozen=True, slots=True)
class WalLook:
    """Holds what was seen: ``first_bytes`` of the segment being written, ``waldump`` of a version newer than known.

    Each is None where it could not be had, or was not needed.
    """

    first_bytes: bytes | None = None
    memory: Memory | None = None
    waldump: Path | None = None


def look_at_wal(server: PostgresServer, facts: ServerFacts, *, bindir: Path | None = None) -> WalLook:
    """Look at the WAL that the server writes and at this host. Raises nothing: what cannot be seen is None."""
    try:
        first_bytes = server.first_wal_bytes()
    except PostgresError:
        first_bytes = None
    memory = look_at_memory() if facts.wal_segment_size >= LARGE_BYTES else None
    return WalLook(first_bytes, memory, _waldump(facts.major_version, bindir))


def _waldump(major: int, bindir: Path | None) -> Path | None:
    if major <= NEWEST_KNOWN_MAJOR:
        return None
    try:
        return find_binaries(major, exactly=True, bindir=bindir).program("pg_waldump")
    except PostgresError:
        return None


def judge_wal(facts: ServerFacts, look: WalLook, encoder: Encoder | None, *, unreadable: bool) -> tuple[Finding, ...]:
    """Return a finding for each thing that is not as usual; nothing for usual WAL in usual segments.

    ``unreadable``: WAL that cannot be read is archived as it is.
    """
    found = (
        _judge_version(facts, look),
        _judge_form(look, unreadable=unreadable),
        _judge_memory(facts, look, encoder),
    )
    return tuple(finding for finding in found if finding is not None)


def _judge_version(facts: ServerFacts, look: WalLook) -> Finding | None:
    major = facts.major_version
    if major <= NEWEST_KNOWN_MAJOR:
        return None
    message = (
        f"PostgreSQL {major} is newer than this program knows (up to {NEWEST_KNOWN_MAJOR}): its WAL is archived and "
        "restored, and the moments of its commits are "
    )
    if look.waldump is not None:
        return Finding(_VERSION, Level.WARNING, f"{message}read with '{look.waldump}'")
    lines = (f"install PostgreSQL {major}'s programs on this host, or set PGBINDIR to their folder",)
    return Finding(_VERSION, Level.WARNING, f"{message}not known: pg_waldump {major} is not found", lines=lines)


def _judge_form(look: WalLook, *, unreadable: bool) -> Finding | None:
    if not look.first_bytes or not any(look.first_bytes):
        return None
    try:
        parse_long_page_header("the segment that is being written", look.first_bytes)
    except InvalidWalFileError as error:
        if unreadable:
            message = "the WAL is encrypted, or not PostgreSQL's own: it is archived unread"
            return Finding(_FORM, Level.WARNING, message, lines=("drills show whether it can be restored",))
        message = f"{error.message}: it is encrypted, or not PostgreSQL's own, and every segment goes to quarantine"
        line = f"set {UNREADABLE_VARIABLE}=archive, which archives it unread (docs/operations.md, 'Encrypted WAL')"
        return Finding(_FORM, Level.PROBLEM, message, lines=(line,))
    return None


def _judge_memory(facts: ServerFacts, look: WalLook, encoder: Encoder | None) -> Finding | None:
    if look.memory is None or encoder is None:
        return None
    try:
        return Finding(_MEMORY, Level.OK, require_memory(encoder, facts.wal_segment_size, look.memory, "each segment"))
    except MemoryShortError as error:
        level = Level.WARNING if error.may_pass else Level.PROBLEM
        return Finding(_MEMORY, level, error.message, lines=(error.hint or "",))
