"""Makes a clone, and moves it to another moment: onwards with its files, or anew beside them."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from wal_pipeline.archive.recovery.restore_plan import require_chosen_timeline
from wal_pipeline.commands.audit import AuditLog
from wal_pipeline.commands.clone.end import CloneEnder
from wal_pipeline.commands.clone.folder import CloneFolder, clone_folders, clone_of, make_clone_root
from wal_pipeline.commands.clone.options import CloneOptions, free_clone_name, parse_keep_for, require_clone_name
from wal_pipeline.commands.clone.ports import free_port, listener_on, try_port
from wal_pipeline.commands.clone.record import CloneRecord, CloneState
from wal_pipeline.commands.clone.server import ask_position, has_ended
from wal_pipeline.commands.clone.stand import (
    CloneStand,
    ServerWish,
    StandingServer,
    plan_pause,
    request_for,
)
from wal_pipeline.commands.clone.states import clone_states, state_of
from wal_pipeline.commands.clone.target import lies_ahead
from wal_pipeline.commands.restore.options import RestoreOptionError
from wal_pipeline.commands.restore.perform import RestoreEvents
from wal_pipeline.commands.restore.prepare import PreparedRestore, prepare_replay, require_answers
from wal_pipeline.commands.restore.run import Restore
from wal_pipeline.errors import PostgresError, RecoveryTargetError, RestoreError
from wal_pipeline.postgres.postmaster import find_server

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CloneMaker:
    """Makes and moves the clones below ``root``.

    ``open_restore`` returns the restore of options into a data directory. ``role`` and ``database`` are those with
    which a clone is asked. ``pgdata`` is the original's. ``start_keeper`` starts a clone's keeper. ``ender`` ends what
    is over before one is made.
    """

    root: Path
    cluster: str
    pgdata: Path | None
    role: str
    database: str
    clock: Callable[[], datetime]
    audit: AuditLog
    open_restore: Callable[[CloneOptions, Path], Restore]
    start_keeper: Callable[[CloneFolder], None]
    ender: CloneEnder

    def make(self, options: CloneOptions, events: RestoreEvents) -> CloneState:
        """Make a clone. Where that fails, nothing of it stays.

        Raises: RestoreOptionError, RecoveryTargetError, RestoreError, PostgresError, StoreError, CodecError.
        """
        keep_for = self._keep_for(options)
        asked = None if options.name is None else require_clone_name(options.name)
        options.require_port()
        self._require_original()
        make_clone_root(self.root)
        self.ender.clear(self.start_keeper)
        taken = [folder.name for folder in clone_folders(self.root)]
        folder = CloneFolder(self.root, asked or free_clone_name(taken))
        wish = self._wish(options, folder)
        folder.require_short_path(wish.port)
        restore = self.open_restore(options, folder.pgdata(1))
        try:
            with folder.made():
                values = {"name": folder.name, "store": options.store}
                with self.audit.work("clone", self.cluster, **values) as line:
                    standing = CloneStand(restore, folder, wish, events).anew(1)
                    now = self.clock()
                    record = self._record(
                        folder.name,
                        restore,
                        wish,
                        standing,
                        generation=1,
                        only_databases=options.only_databases,
                        made_at=now,
                        ends_at=now + keep_for,
                    )
                    folder.point_socket(1)
                    folder.write(record)
                    self.start_keeper(folder)
                    line |= {"result": "made", "target": record.target, "ends_at": record.ends_at}
        except FileExistsError:
            raise self._taken(folder) from None
        return state_of(folder, record)

    def move(self, options: CloneOptions, events: RestoreEvents) -> CloneState:
        """Take a clone to another moment. The old one stays until the new one stands.

        Only where a paused clone goes onwards with its own files there is no old one: where that fails, it is ended.

        Raises: as ``make``.
        """
        folder = CloneFolder(self.root, require_clone_name(options.name or ""))
        keep_for = None if options.keep_for is None else self._keep_for(options)
        with folder.locked():
            before = folder.require_record()
            wanted = replace(options, only_databases=before.only_databases)
            restore = self.open_restore(wanted, folder.pgdata(before.generation + 1))
            wish = ServerWish(before.port, before.listens, before.role, before.database, before.read_only, self.pgdata)
            with self.audit.work("clone", self.cluster, name=folder.name, before=before.target) as line:
                ahead = self._ahead(restore, folder, before, wish)
                stand = CloneStand(restore, folder, wish, events)
                if ahead is None:
                    number = before.generation + 1
                    standing = self._anew(stand, folder, before)
                else:
                    number = before.generation
                    standing = self._onwards(stand, ahead, folder, before)
                record = self._record(
                    folder.name,
                    restore,
                    wish,
                    standing,
                    generation=number,
                    only_databases=before.only_databases,
                    made_at=before.made_at,
                    ends_at=before.ends_at,
                )
                if keep_for is not None:
                    record = replace(record, ends_at=self.clock() + keep_for)
                folder.write(record)
                folder.point_socket(number)
                if ahead is None:
                    folder.remove_generation(before.generation)
                line |= {"result": "moved", "target": record.target, "anew": ahead is None}
        return state_of(folder, record)

    @staticmethod
    def _keep_for(options: CloneOptions) -> timedelta:
        if options.keep_for is None:
            raise RestoreOptionError("--for is missing: how long the clone is kept, such as 2h.")
        return parse_keep_for(options.keep_for)

    def _require_original(self) -> None:
        """Refuse settings that name a clone as the cluster. Raises: RestoreError."""
        name = None if self.pgdata is None else clone_of(self.pgdata)
        if name is not None:
            raise RestoreError(
                f"PGDATA is '{self.pgdata}', the clone '{name}', and a clone has no archive of its own",
                hint="Use the settings of the original: a clone of its archive at any moment is made with them.",
            )

    def _wish(self, options: CloneOptions, folder: CloneFolder) -> ServerWish:
        port, listens = options.port, options.port is not None
        if port is None:
            port = free_port()
        else:
            self._require_free(port, folder)
        return ServerWish(port, listens, self.role, self.database, options.read_only, self.pgdata)

    def _require_free(self, port: int, folder: CloneFolder) -> None:
        try:
            try_port(port)
        except OSError as error:
            other = next((one.name for one in clone_states(self.root) if one.listens and one.port == port), None)
            user = f"the clone '{other}'" if other is not None else listener_on(port)
            raise RestoreError(
                f"port {port} cannot be used for the clone '{folder.name}': "
                f"{f'{user} listens on it' if user is not None else error.strerror}",
                hint="Name another --port, or none: the clone is always reached by its socket.",
            ) from None

    def _taken(self, folder: CloneFolder) -> RestoreError:
        record = folder.read() if folder.is_marked else None
        if not folder.is_marked:
            return RestoreError(f"'{folder.path}' exists and is no clone's", hint="Choose another --name.")
        words = f"as of {record.target}, until {record.ends_at.isoformat(' ', 'seconds')}" if record else "being made"
        return RestoreError(
            f"there is a clone '{folder.name}' already, {words}",
            hint=f"Choose another --name, or end it: 'wal-pipeline clone stop {folder.name}', or take it to another "
            f"moment: 'wal-pipeline clone move {folder.name} --to-time …'.",
        )

    def _record(
        self,
        name: str,
        restore: Restore,
        wish: ServerWish,
        standing: StandingServer,
        *,
        generation: int,
        only_databases: tuple[str, ...],
        made_at: datetime,
        ends_at: datetime,
    ) -> CloneRecord:
        plan, recovery, target = standing.prepared.plan, standing.recovery, restore.request.target
        lsn = recovery.replayed_lsn
        return CloneRecord(
            name=name,
            cluster=self.cluster,
            system_identifier=plan.system_identifier,
            made_at=made_at,
            ends_at=ends_at,
            generation=generation,
            port=wish.port,
            listens=wish.listens,
            role=wish.role,
            database=wish.database,
            read_only=wish.read_only,
            target=f"{target}{'' if target.inclusive else ', just before it'}",
            backup_id=plan.backup.backup_id,
            timeline=plan.timeline,
            reached_commit_at=recovery.last_commit_at,
            reached_lsn=None if lsn is None else str(lsn),
            settings=dict(recovery.settings),
            only_databases=only_databases,
        )

    def _ahead(
        self, restore: Restore, folder: CloneFolder, before: CloneRecord, wish: ServerWish
    ) -> PreparedRestore | None:
        """Return the plan by which a paused clone goes onwards with its own files; None: it is made anew."""
        if not before.read_only or restore.options.base_backup is not None:
            return None
        address = wish.address(folder.generation(before.generation))
        try:
            position = ask_position(address)
        except PostgresError as error:
            _log.warning("clone '%s' does not tell where it is, and is made anew: %s", folder.name, error.message)
            return None
        if position is None:
            return None
        request = replace(request_for(restore, folder, before.generation, read_only=True), base_backup=before.backup_id)
        try:
            prepared = plan_pause(
                request, lambda wanted: prepare_replay(wanted, restore.stores, restore.layout, restore.identities)
            )
        except RecoveryTargetError:
            return None  # from another base backup, perhaps; else that plan says why not
        require_chosen_timeline(prepared.plan)
        require_answers(prepared)
        if prepared.plan.timeline != before.timeline:
            return None
        ahead = lies_ahead(prepared.plan.target, position, lambda xid: has_ended(address, xid))
        return prepared if ahead else None

    def _onwards(
        self, stand: CloneStand, prepared: PreparedRestore, folder: CloneFolder, before: CloneRecord
    ) -> StandingServer:
        try:
            return stand.onwards(prepared, before.generation, dict(before.settings))
        except BaseException as error:
            folder.remove()
            if isinstance(error, (RestoreError, PostgresError)):
                raise RestoreError(
                    f"the clone '{folder.name}' has left its moment and did not reach the other one, so it is ended: "
                    f"{error.message}",
                    hint=f"Make it again: 'wal-pipeline clone --name {folder.name} --to-time …'.",
                ) from error
            raise

    def _anew(self, stand: CloneStand, folder: CloneFolder, before: CloneRecord) -> StandingServer:
        number = before.generation + 1
        try:
            folder.remove_generation(number)  # of a move that was killed
            return stand.anew(number, before_listening=lambda: folder.stop_server(before.generation))
        except BaseException:
            folder.remove_generation(number)
            if find_server(folder.pgdata(before.generation)) is None:
                _log.warning("clone '%s' is down: move it again, or end it", folder.name)
            raise
