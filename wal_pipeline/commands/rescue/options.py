"""Turns the options of a rescue, from the command line or a run's configuration, into what it has to do."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from wal_pipeline.archive.recovery.target import RecoveryTarget
from wal_pipeline.archive.recovery.target_text import target_from_text
from wal_pipeline.commands.rescue.wanted import RescueOptionError, WantedTable
from wal_pipeline.commands.restore.options import ANY_STORE, RestoreOptions

MOST_NAME_BYTES: Final = 63  # NAMEDATALEN - 1, in PostgreSQL as it is built everywhere
_RESERVED: Final = ("pg_catalog", "information_schema", "public")


@dataclass(frozen=True, slots=True)
class RescueOptions:
    """One rescue as a person writes it. ``wal-pipeline rescue --help`` explains each option.

    The values are plain: nothing has looked at them yet. ``before_xid`` is ``to_xid``, exclusive. ``committed_at`` is
    when that transaction was committed: a base backup from before it will do. ``into`` is a connection string without a
    password.
    """

    tables: tuple[str, ...] = ()
    whole_database: bool = False
    database: str | None = None
    to_time: str | None = None
    to_lsn: str | None = None
    to_xid: int | None = None
    to_name: str | None = None
    before_xid: int | None = None
    committed_at: str | None = None
    inclusive: bool = True
    timeline: str = "latest"
    store: str = ANY_STORE
    base_backup: str | None = None
    system_identifier: int | None = None
    output: Path | None = None
    into: str | None = None
    as_schema: str | None = None
    folder: Path | None = None
    owner: str | None = None
    role: str | None = None
    plan_only: bool = False

    def target(self) -> RecoveryTarget:
        """Return the moment. Raises: RescueOptionError, RecoveryTargetError, InvalidLsnError."""
        given = (self.to_time, self.to_lsn, self.to_xid, self.to_name)
        if self.before_xid is not None and any(value is not None for value in given):
            raise RescueOptionError("Give one moment: --before-xid or another one.")
        if self.before_xid is None and all(value is None for value in given):
            raise RescueOptionError(
                "Missing the moment: --before-xid, --to-time, --to-xid, --to-lsn or --to-name.",
                hint="'wal-pipeline find' names the transaction that did it: --before-xid brings what was just before.",
            )
        target = target_from_text(
            to_time=self.to_time,
            to_lsn=self.to_lsn,
            to_xid=self.to_xid if self.before_xid is None else self.before_xid,
            to_name=self.to_name,
            inclusive=self.inclusive and self.before_xid is None,
            timeline=self.timeline,
        )
        return target if self.committed_at is None else replace(target, not_before_at=self._committed_at(target))

    def _committed_at(self, target: RecoveryTarget) -> datetime | None:
        if target.xid is None and target.name is None:
            raise RescueOptionError("--committed-at is the moment of an xid or of a named restore point.")
        return target_from_text(to_time=self.committed_at).at

    def wanted(self) -> tuple[WantedTable, ...]:
        """Return the tables; none where the whole database is wanted. Raises: RescueOptionError."""
        if self.whole_database:
            self._require_whole()
            return ()
        if not self.tables:
            raise RescueOptionError("Missing option '--table': the table to bring back, such as public.orders.")
        return tuple(WantedTable.parse(text) for text in self.tables)

    def _require_whole(self) -> None:
        if self.tables:
            raise RescueOptionError("--whole-database brings all tables: leave out --table.")
        if self.database is None or self.output is None:
            raise RescueOptionError(
                "--whole-database needs --database and --output.",
                hint="pg_restore --create loads the dump into a new database of the same name.",
            )

    def require_destination(self) -> None:
        """Refuse a rescue to nowhere, or to two places. Raises: RescueOptionError."""
        if (self.output is None) == (self.into is None):
            raise RescueOptionError("Give one of --output FILE and --into CONNINFO.")
        if self.as_schema is not None and self.into is None:
            raise RescueOptionError("--as names the schema for --into: a dump keeps the tables' own schemas.")

    def schema(self, now: datetime) -> str | None:
        """Return the schema to load into, by default one that is named after this minute; None for a dump.

        Raises: RescueOptionError for a name that is none, or of a schema that the rows must not be mixed with.
        """
        if self.into is None:
            return None
        name = self.as_schema if self.as_schema is not None else f"rescued_{now:%Y%m%dt%H%M}"
        if not 0 < len(name.encode("utf-8", "surrogateescape")) <= MOST_NAME_BYTES or "\0" in name:
            raise RescueOptionError(f"'{name}' is not the name of a schema, expected 1 to {MOST_NAME_BYTES} bytes.")
        if name.startswith("pg_") or name in _RESERVED:
            raise RescueOptionError(
                f"'{name}' is not a schema for rescued tables: they are loaded beside the living ones.",
                hint="Name a new schema, such as --as rescued.",
            )
        return name

    def store_names(self, configured: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
        """Return the stores to read, by default all that are ``configured``. Raises: RestoreOptionError."""
        return RestoreOptions(store=self.store).store_names(configured, known)
