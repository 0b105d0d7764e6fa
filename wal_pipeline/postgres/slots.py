"""Makes, looks at and drops the physical replication slot from which ``pg_receivewal`` receives."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeVar

import psycopg
from psycopg.rows import dict_row

from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.server import PostgresServer
from wal_pipeline.wal.lsn import Lsn

_MAKE_HINT: Final = "Type 'wal-pipeline slot make'. What was written since it went comes through archive_command alone."
_NAME_HINT: Final = "Choose another name with WAL_PIPELINE_SHIP_SLOT, and type 'wal-pipeline slot make'."
# invalidation_reason is there since PostgreSQL 17; wal_status 'lost' says the same before.
_STATE_SQL: Final = """
SELECT s.slot_type, s.active, s.active_pid, s.wal_status, s.restart_lsn::text AS restart_lsn, s.safe_wal_size,
       to_jsonb(s) ->> 'invalidation_reason' AS invalidation_reason, s.temporary,
       (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END
        - s.restart_lsn)::bigint AS held_bytes,
       a.application_name
FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid
WHERE s.slot_name = %s
"""
_MAKE_SQL: Final = "SELECT lsn::text FROM pg_create_physical_replication_slot(%s, true)"
_MOST_SQL: Final = "SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size'"


T = TypeVar("T")


class SlotTrouble(StrEnum):
    """Why a slot cannot be received from."""

    GONE = "gone"
    LOST = "lost"
    LOGICAL = "logical"
    TAKEN = "taken"


class SlotError(PostgresError):
    """A slot cannot be used; ``trouble`` is the reason."""

    def __init__(self, trouble: SlotTrouble, message: str, *, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.trouble = trouble


@dataclass(frozen=True, slots=True)
class SlotState:
    """A slot by ``pg_replication_slots``.

    ``held_bytes`` of WAL are kept on the server for the slot (None: it keeps none yet, or no more).
    ``safe_wal_size_bytes`` may still be written before it is lost; None where nothing limits it, or it is lost.
    ``wal_status`` is ``reserved``, ``extended``, ``unreserved`` or ``lost``. ``application_name`` is that of the
    process that uses it; None where none does, or the role may not see it.
    """

    name: str
    slot_type: str
    active: bool
    active_pid: int | None
    application_name: str | None
    wal_status: str | None
    restart_lsn: Lsn | None
    held_bytes: int | None
    safe_wal_size_bytes: int | None
    invalidation_reason: str | None

    @property
    def is_lost(self) -> bool:
        """Whether the server has removed WAL that the slot was to keep: it can never be used again."""
        return self.wal_status == "lost" or self.invalidation_reason is not None


class Slots:
    """The slots of one server. Each call opens a connection of its own."""

    def __init__(self, server: PostgresServer) -> None:
        self._session = server.keep_session("asking for a replication slot")

    def state(self, name: str) -> SlotState | None:
        """Return a slot's state; None where there is none of that name. Raises: PostgresError."""
        return self._ask(lambda connection: read_slot(connection, name))

    def limit_bytes(self) -> int | None:
        """Return ``max_slot_wal_keep_size``; None where it does not limit. Raises: PostgresError."""
        row = self._ask(lambda connection: connection.execute(_MOST_SQL).fetchone())
        mebibytes = -1 if row is None else int(row[0])
        return None if mebibytes < 0 else mebibytes * 2**20

    def make(self, name: str) -> SlotState:
        """Make a physical slot that keeps the WAL from now on. Raises: PostgresError, SlotError where it exists."""
        found = self.state(name)
        if found is not None:
            require_usable(name, found, ours=name)
            raise SlotError(
                SlotTrouble.TAKEN,
                f"the server has a slot '{name}' already, at {found.restart_lsn}",
                hint="If it is the one for this cluster's shipping, nothing is to be done. " + _NAME_HINT,
            )
        self._ask(lambda connection: connection.execute(_MAKE_SQL, (name,)).fetchone())
        return self.check(name)

    def check(self, name: str) -> SlotState:
        """Return the state of a slot that can be received from. Raises: SlotError with the way out, PostgresError."""
        found = self.state(name)
        return require_usable(name, found, ours=name)

    def drop(self, name: str, *, is_ours: bool) -> None:
        """Drop a slot that nobody uses. ``is_ours``: it is known that we made it.

        Raises: SlotError, PostgresError, and nothing is dropped.
        """
        found = self.state(name)
        if found is None:
            raise SlotError(SlotTrouble.GONE, f"the server has no slot '{name}'", hint="Nothing is to be done.")
        if found.slot_type != "physical":
            raise _logical(name)
        if found.active:
            raise SlotError(
                SlotTrouble.TAKEN,
                f"slot '{name}' is in use by process {found.active_pid} ({found.application_name or 'unknown'}): it is "
                "not dropped",
                hint="End 'wal-pipeline ship' first, and be sure that nobody else receives from it.",
            )
        if not is_ours:
            raise SlotError(
                SlotTrouble.TAKEN,
                f"slot '{name}' was not made by 'wal-pipeline slot make' on this host: it may be a standby's",
                hint=f"Where nobody needs it, drop it yourself: SELECT pg_drop_replication_slot('{name}');",
            )
        self._ask(lambda connection: connection.execute("SELECT pg_drop_replication_slot(%s)", (name,)))

    def _ask(self, question: Callable[[psycopg.Connection[Any]], T]) -> T:
        try:
            return self._session.ask(question)
        finally:
            self._session.close()


def require_usable(name: str, state: SlotState | None, *, ours: str) -> SlotState:
    """Return the state of a slot that ``pg_receivewal`` can receive from under the application name ``ours``.

    Raises: SlotError, with the way out.
    """
    if state is None:
        raise SlotError(SlotTrouble.GONE, f"the server has no slot '{name}'", hint=_MAKE_HINT)
    if state.slot_type != "physical":
        raise _logical(name)
    if state.is_lost:
        reason = f" ({state.invalidation_reason})" if state.invalidation_reason else ""
        raise SlotError(
            SlotTrouble.LOST,
            f"slot '{name}' is lost{reason}: the server removed WAL that it was to keep",
            hint="It held back more than max_slot_wal_keep_size. Type 'wal-pipeline slot drop', then 'wal-pipeline "
            "slot make'. What was removed comes through archive_command alone.",
        )
    if state.active and state.application_name not in (None, ours):
        raise SlotError(
            SlotTrouble.TAKEN,
            f"slot '{name}' is in use by another program: process {state.active_pid} ({state.application_name})",
            hint=_NAME_HINT,
        )
    return state


def read_slot(connection: psycopg.Connection[Any], name: str) -> SlotState | None:
    """Read a slot's state through an open connection. Raises: psycopg.Error."""
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(_STATE_SQL.encode(), (name,)).fetchone()
    if row is None:
        return None
    restart, held = row["restart_lsn"], row["held_bytes"]
    return SlotState(
        name=name,
        slot_type=row["slot_type"],
        active=row["active"],
        active_pid=row["active_pid"],
        application_name=row["application_name"] or None,
        wal_status=row["wal_status"],
        restart_lsn=Lsn.parse(restart) if restart else None,
        held_bytes=None if held is None else max(0, held),
        safe_wal_size_bytes=row["safe_wal_size"],
        invalidation_reason=row["invalidation_reason"],
    )


def _logical(name: str) -> SlotError:
    return SlotError(
        SlotTrouble.LOGICAL, f"slot '{name}' is a logical one, which belongs to somebody else", hint=_NAME_HINT
    )
