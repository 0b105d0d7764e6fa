"""Judges whether the open segment can be shipped, and as which user."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wal_pipeline.commands.setup.findings import Finding, Level
from wal_pipeline.commands.ship.host_wal import HostWal
from wal_pipeline.errors import PostgresError, SegmentGoneError
from wal_pipeline.host.file_owner import name_of_user
from wal_pipeline.postgres.flushed_wal import FlushWatch
from wal_pipeline.postgres.receivewal import PROGRAM
from wal_pipeline.postgres.server import PostgresServer
from wal_pipeline.postgres.server_facts import ServerFacts
from wal_pipeline.postgres.slots import Slots
from wal_pipeline.text import size
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import segment_at

_OPEN: Final = "open segment"
_SLOT: Final = "replication slot"
_LIMIT: Final = "max_slot_wal_keep_size"
_PROPOSED_LIMIT: Final = "10GB"
_MAY_SEE_SQL: Final = "SELECT pg_has_role('pg_read_all_stats', 'usage')"


@dataclass(frozen=True, slots=True)
class ShippingLook:
    """Looks at what shipping needs. ``slot`` is None where the open segment is read on the database's host.

    ``find_program`` returns the path of pg_receivewal for a server's major version, or raises PostgresError. A fault
    has the level ``failing``: archiving of whole segments works without shipping.
    """

    server: PostgresServer
    pgdata: Path | None
    slot: str | None
    find_program: Callable[[int], Path]
    failing: Level

    def findings(self, facts: ServerFacts) -> tuple[Finding, ...]:
        """Return what is found."""
        return tuple(self._of_host() if self.slot is None else self._of_receiver(facts, self.slot))

    def _of_host(self) -> Iterator[Finding]:
        user = name_of_user(os.geteuid())
        with HostWal(FlushWatch(self.server), self.pgdata) as source:
            try:
                seen = source.look()
                segment = segment_at(seen.timeline, Lsn(max(seen.lsn - 1, 0)), seen.wal_segment_size)
                end = seen.lsn - segment.start_lsn(seen.wal_segment_size)
                source.read(segment, end - 1, end, seen)
            except SegmentGoneError:
                pass  # archived between the two: it could be read
            except PostgresError as error:
                yield self._fault(_OPEN, f"it cannot be shipped: {error.message}", error.hint)
                return
            folder = source.pgdata / "pg_wal"
        message = f"'{folder}' can be read by user '{user}', and is flushed up to {seen.lsn}"
        yield Finding(_OPEN, Level.OK, message)

    def _of_receiver(self, facts: ServerFacts, slot: str) -> Iterator[Finding]:
        yield self._program(facts)
        if not facts.role.replication:
            yield self._fault(PROGRAM, f"role '{facts.role.name}' lacks REPLICATION", "ALTER ROLE … REPLICATION;")
        elif not self._may_see():
            message = f"role '{facts.role.name}' may not see how far pg_receivewal is"
            yield self._fault(PROGRAM, message, f'GRANT pg_read_all_stats TO "{facts.role.name}";')
        slots = Slots(self.server)
        try:
            state = slots.check(slot)
        except PostgresError as error:
            yield self._fault(_SLOT, error.message, error.hint)
        else:
            held = size(state.held_bytes or 0)
            yield Finding(_SLOT, Level.OK, f"'{slot}' is {state.wal_status}, and holds back {held}")
        yield _limit(slots)

    def _program(self, facts: ServerFacts) -> Finding:
        try:
            return Finding(PROGRAM, Level.OK, f"'{self.find_program(facts.major_version)}'")
        except PostgresError as error:
            return self._fault(PROGRAM, error.message, error.hint)

    def _may_see(self) -> bool:
        watch = FlushWatch(self.server)
        try:
            [(may_see,)] = watch.ask(lambda connection: connection.execute(_MAY_SEE_SQL).fetchall())
        except PostgresError:
            return True  # the slot's finding says what is wrong
        finally:
            watch.close()
        return bool(may_see)

    def _fault(self, name: str, message: str, hint: str | None) -> Finding:
        return Finding(name, self.failing, message, lines=(hint,) if hint else ())


def _limit(slots: Slots) -> Finding:
    """Propose a limit: without one, a receiver that is away fills the server's disk with WAL."""
    try:
        limit_bytes = slots.limit_bytes()
    except PostgresError as error:
        return Finding(_LIMIT, Level.WARNING, f"not known: {error.message}")
    if limit_bytes is not None:
        return Finding(_LIMIT, Level.OK, f"{size(limit_bytes)}: the slot is given up before it holds back more")
    message = "no limit: while nobody receives, the slot keeps WAL until the server's disk is full"
    lines = (
        f"ALTER SYSTEM SET {_LIMIT} = '{_PROPOSED_LIMIT}';",
        "SELECT pg_reload_conf();",
        f"choose less than what is free on the disk of pg_wal; {_PROPOSED_LIMIT} is an example",
    )
    return Finding(_LIMIT, Level.WARNING, message, lines=lines)
