"""Runs a rescue: checks, recovers beside the living cluster, dumps, counts, loads, and removes what it made."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.format.relations import RelationList
from wal_pipeline.archive.recovery.names.identifiers import quoted_name
from wal_pipeline.archive.recovery.restore_plan import require_chosen_timeline
from wal_pipeline.archive.recovery.target import RecoveryTarget
from wal_pipeline.commands.audit import AuditLog
from wal_pipeline.commands.beside.scratch_folder import PGDATA, scratch_folder
from wal_pipeline.commands.rescue.bring import BroughtTables, SourceDatabase, load_tables, write_dump
from wal_pipeline.commands.rescue.dump_file import check_output
from wal_pipeline.commands.rescue.known import KnownTables
from wal_pipeline.commands.rescue.living import LivingDatabase
from wal_pipeline.commands.rescue.options import RescueOptions
from wal_pipeline.commands.rescue.result import RescuedTable, RescueEvents, RescueResult, RescueSteps
from wal_pipeline.commands.rescue.scratch import SCRATCH_USE, ScratchCluster, recovered_cluster
from wal_pipeline.commands.rescue.tables import FoundTable, choose_tables
from wal_pipeline.commands.rescue.wanted import RescueOptionError, TableNotFoundError, WantedTable
from wal_pipeline.commands.restore.prepare import PreparedRestore, RestoreRequest, prepare_restore, require_answers
from wal_pipeline.errors import RestoreError
from wal_pipeline.postgres.binaries import Binaries
from wal_pipeline.postgres.pg_dump import find_dump_programs
from wal_pipeline.stores.base import Store


@dataclass(frozen=True, slots=True)
class Rescue:
    """One rescue. ``stores`` and ``layout`` are where the cluster's objects lie.

    ``living`` is the database to load into, None for a dump. ``folder`` is made and removed. ``roles`` may be
    superusers of the cluster, the likeliest first. ``read_lists`` gives the lists of relations, the oldest first, and
    notes of those that cannot be read. ``by``: who or what asked for it, as the audit log shall say; by default the
    user.
    """

    options: RescueOptions
    wanted: tuple[WantedTable, ...]
    target: RecoveryTarget
    stores: Sequence[Store]
    layout: Layout
    identities: Sequence[Any]
    folder: Path
    roles: tuple[str, ...]
    bindir: Path | None
    living: LivingDatabase | None
    audit: AuditLog
    read_lists: Callable[[], tuple[list[RelationList], list[str]]]
    by: str | None = None
    _seconds: dict[str, float] = field(default_factory=dict)

    def run(self, events: RescueEvents) -> RescueResult | None:
        """Bring the tables back. With ``plan_only`` look at everything, write nothing, and return None.

        The living cluster is only asked, until all rows are in a dump that was read back.

        Raises: RecoveryTargetError, RestoreError, PostgresError, StoreError, CodecError.
        """
        self._check_destination(None)
        lists, notes = self.read_lists()
        known = KnownTables(tuple(lists))
        databases = known.databases(self.wanted, self.options.database)
        notes += known.notes(self.wanted, self.options.database)
        try:
            with scratch_folder(self.folder, SCRATCH_USE, self._said()):
                prepared, programs = self._prepare(databases)
                prepared = replace(prepared, notes=(*prepared.notes, *notes))
                events.planned(prepared)
                return None if self.options.plan_only else self._rescue(prepared, programs, known, events)
        except BrokenPipeError:
            raise  # of the terminal, not of the folder
        except OSError as error:
            raise RestoreError(f"the rescue's folder '{self.folder}' cannot be used: {error}") from error

    def _said(self) -> dict[str, str]:
        return {"cluster": self.layout.cluster, "target": str(self.target)}

    def _check_destination(self, major: int | None) -> None:
        if self.options.output is not None:
            check_output(self.options.output)
        if self.living is not None:
            self.living.check([name for one in self.wanted for name in one.names], major)

    def _prepare(self, databases: tuple[str, ...]) -> tuple[PreparedRestore, Binaries]:
        """Plan the recovery, and check what it and the dump need. Raises: as ``run``.

        Only the ``databases`` come, where the lists tell which files are theirs.
        """
        request = RestoreRequest(
            pgdata=self.folder / PGDATA,
            target=self.target,
            base_backup=self.options.base_backup,
            owner=self.options.owner,
            tablespace_root=self.folder / "tablespaces",
            archiving=False,
            bindir=self.bindir,
            only_databases=databases,
        )
        prepared = self._planned(request)
        require_chosen_timeline(prepared.plan)
        require_answers(prepared)
        major = prepared.chain[-1].server_version // 10_000
        programs = find_dump_programs(major, self.bindir)
        self._check_destination(major)
        return prepared, programs

    def _planned(self, request: RestoreRequest) -> PreparedRestore:
        """Plan for the chosen databases or, where they cannot be told from the others, for all. Raises: as ``run``."""
        try:
            return prepare_restore(request, self.stores, self.layout, self.identities)
        except RestoreError as error:
            if not request.only_databases:
                raise
            prepared = prepare_restore(replace(request, only_databases=()), self.stores, self.layout, self.identities)
            note = f"all databases are recovered: {error.message}"
            return replace(prepared, notes=(*prepared.notes, note))

    def _rescue(
        self, prepared: PreparedRestore, programs: Binaries, known: KnownTables, events: RescueEvents
    ) -> RescueResult:
        events.writing()
        with self.audit.work("rescue", self.layout.cluster, by=self.by, **self._audited()) as line:
            begun = time.monotonic()
            with recovered_cluster(prepared, self.folder, self.roles, events) as scratch:
                placing = sum(seconds for name, seconds in scratch.placed.seconds.items() if name != "plan")
                recovering = time.monotonic() - begun - placing
                self._seconds.update({**scratch.placed.seconds, "recovery": recovering})
                with self._telling_lifetimes(known):
                    result = self._bring(scratch, prepared.request.only_databases, programs, events)
            line["result"] = "rescued"
            line["rows"] = {table.name: table.rows for table in result.tables}
        events.rescued(result)
        return result

    def _audited(self) -> dict[str, object]:
        return {
            "tables": [one.text for one in self.wanted] or "all",
            "target": str(self.target) + ("" if self.target.inclusive else ", exclusive"),
            **({} if self.options.output is None else {"output": str(self.options.output)}),
            **({} if self.living is None else {"into": self.living.address, "schema": self.living.schema}),
        }

    @contextmanager
    def _telling_lifetimes(self, known: KnownTables) -> Iterator[None]:
        """Say of tables that were not there when they were."""
        try:
            yield
        except TableNotFoundError as error:
            told = [known.lifetime(one, self.options.database) for one in self.wanted if one.text in error.message]
            hints = [one for one in (*told, error.hint) if one is not None]
            raise TableNotFoundError(error.message, hint=" ".join(hints) or None) from None

    def _bring(
        self, scratch: ScratchCluster, only: Sequence[str], programs: Binaries, events: RescueEvents
    ) -> RescueResult:
        steps = RescueSteps(events, self._seconds)
        with steps.step("find"):
            database = self._database(scratch, only)
        with scratch.session(database, "rescuing tables") as connection:
            source = SourceDatabase(connection, database, scratch.program_environment(database), programs, steps)
            chosen = source.choose(self.wanted)
            if self.living is not None:
                brought = load_tables(source, chosen, self.living, self.folder)
            else:
                brought = write_dump(source, chosen, self._output(), whole=self.options.whole_database)
        recovery, living = scratch.recovery, self.living
        return RescueResult(
            database,
            tuple(self._rescued(table, brought) for table in chosen.wanted),
            dict(self._seconds),
            scratch.placed.downloaded_bytes,
            chosen.size_bytes,
            brought.dump_bytes,
            recovery.last_commit_at,
            None if recovery.replayed_lsn is None else str(recovery.replayed_lsn),
            output=self.options.output,
            into=None if living is None else living.address,
            schema=None if living is None else living.schema,
            notes=(*brought.notes, *scratch.placed.warnings, *recovery.warnings),
        )

    def _output(self) -> Path:
        if self.options.output is None:
            raise RescueOptionError("Give one of --output FILE and --into CONNINFO.")
        return self.options.output

    def _rescued(self, table: FoundTable, brought: BroughtTables) -> RescuedTable:
        into = None if self.living is None else quoted_name(self.living.schema, table.name)
        return RescuedTable(table.shown, brought.rows_of(table), into)

    def _database(self, scratch: ScratchCluster, only: Sequence[str]) -> str:
        """Return the tables' database: the named one, else the only one that has them all. Raises: RestoreError.

        ``only`` are the databases that were recovered; all where there are none.
        """
        there = tuple(name for name in scratch.databases() if not only or name in only)
        if self.options.database is not None:
            if self.options.database not in there:
                raise RestoreError(
                    f"there was no database '{self.options.database}' at that moment",
                    hint=f"These were there: {', '.join(there)}.",
                )
            return self.options.database
        found, missing = [], list[RestoreError]()
        for name in there:
            with scratch.session(name, "looking for the tables") as connection:
                try:
                    choose_tables(connection, self.wanted, name)
                except TableNotFoundError as error:
                    missing.append(error)
                else:
                    found.append(name)
        if len(found) == 1:
            return found[0]
        if not found:
            raise missing[0] if len(missing) == 1 else self._nowhere(there, missing)
        raise RestoreError(
            f"{len(found)} databases had the tables: {', '.join(found)}", hint="Name one of them with --database."
        )

    def _nowhere(self, there: Sequence[str], missing: Sequence[RestoreError]) -> RestoreError:
        words = ", ".join(f"'{one.text}'" for one in self.wanted)
        hints = dict.fromkeys(error.hint for error in missing if error.hint is not None)
        return TableNotFoundError(
            f"no database had {words} at that moment; looked into {', '.join(there)}", hint=" ".join(hints) or None
        )
