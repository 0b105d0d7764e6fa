"""Restores one generation of a clone and starts its server: the flow of a restore, with WAL from this process."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC
from pathlib import Path
from typing import Final

from wal_pipeline.archive.recovery.restore_plan import require_chosen_timeline
from wal_pipeline.archive.recovery.target import TargetKind
from wal_pipeline.commands.archive_get.tail_wal import RecoveryWal, limits_of
from wal_pipeline.commands.archive_get.wal_source import WalSource
from wal_pipeline.commands.beside.fetch_service import FetchService
from wal_pipeline.commands.beside.scratch_folder import FETCH_FOLDER
from wal_pipeline.commands.beside.scratch_server import SOCKET_FOLDER
from wal_pipeline.commands.clone.folder import CloneFolder
from wal_pipeline.commands.clone.server import CloneAddress, ask_position, clone_isolation, restarted
from wal_pipeline.commands.clone.target import last_record_target
from wal_pipeline.commands.restore.chosen.finish import drop_left_out
from wal_pipeline.commands.restore.perform import RestoreEvents, perform_restore, recovery_settings
from wal_pipeline.commands.restore.places.configuration import find_outside
from wal_pipeline.commands.restore.prepare import PreparedRestore, RestoreRequest, prepare_restore, require_answers
from wal_pipeline.commands.restore.reached import require_reached
from wal_pipeline.commands.restore.run import Restore
from wal_pipeline.commands.restore.start import RecoveryResult, ServerIsolation, start_and_watch
from wal_pipeline.errors import PostgresError, RestoreError
from wal_pipeline.host.file_owner import way_hint
from wal_pipeline.postgres.recovery import TargetAction
from wal_pipeline.postgres.replay_progress import RecoveryState

_TABLESPACES: Final = "tablespaces"
_LOG: Final = "recovery.log"
Planner = Callable[[RestoreRequest], PreparedRestore]


@dataclass(frozen=True, slots=True)
class ServerWish:
    """How a clone's server shall run. ``role`` and ``database`` are those with which it is asked."""

    port: int
    listens: bool
    role: str
    database: str
    read_only: bool
    original_pgdata: Path | None

    def address(self, place: Path) -> CloneAddress:
        """Return where a generation's server is asked."""
        return CloneAddress(place / SOCKET_FOLDER, self.port, self.role, self.database)


@dataclass(frozen=True, slots=True)
class StandingServer:
    """A generation whose server stands at its moment. ``settings`` stand on its command line."""

    prepared: PreparedRestore
    recovery: RecoveryResult


def request_for(restore: Restore, folder: CloneFolder, number: int, *, read_only: bool) -> RestoreRequest:
    """Return the request of a restore into one generation of a clone."""
    return replace(
        restore.request,
        pgdata=folder.pgdata(number),
        tablespace_root=folder.generation(number) / _TABLESPACES,
        archiving=False,
        action=TargetAction.PAUSE if read_only else TargetAction.PROMOTE,
    )


def plan_pause(request: RestoreRequest, plan: Planner) -> PreparedRestore:
    """Plan with a pause at the target, or at the last record where the target is the end of the archive.

    Raises: as ``plan`` does.
    """
    prepared = plan(replace(request, action=TargetAction.PROMOTE))
    if prepared.plan.target.kind is TargetKind.END:
        prepared = plan(replace(request, target=last_record_target(prepared), action=TargetAction.PAUSE))
    return replace(prepared, request=replace(prepared.request, action=TargetAction.PAUSE))


class CloneStand:
    """Stands one generation of a clone up. Its server gets its WAL from this process as long as that is needed."""

    def __init__(self, restore: Restore, folder: CloneFolder, wish: ServerWish, events: RestoreEvents) -> None:
        self._restore = restore
        self._folder = folder
        self._wish = wish
        self._events = events

    def anew(self, number: int, *, before_listening: Callable[[], None] | None = None) -> StandingServer:
        """Restore into a new generation, and start its server.

        ``before_listening``: it takes the place of a clone that stands: it listens to nothing but its own socket until
        it has reached its moment, and after this call, which stops the old one, it is started again where it listens.

        Raises: RecoveryTargetError, RestoreError, PostgresError, StoreError, CodecError.
        """
        place, wish = self._folder.generation(number), self._wish
        prepared = self._prepare(number)
        self._events.planned(prepared)
        self._events.writing()
        place.mkdir(mode=0o711)
        place.chmod(0o711)
        with self._served(prepared, place) as service:
            done = perform_restore(prepared, service.command(), self._events)
            isolation = self._isolation(prepared, place, listens=wish.listens and before_listening is None)
            recovery = self._start(prepared, isolation, place)
            if recovery.state is RecoveryState.OPEN:
                done = replace(done, databases=drop_left_out(prepared, role=wish.role))
            if before_listening is not None:
                before_listening()
                if wish.listens:
                    self._folder.stop_server(number)
                    isolation = self._isolation(prepared, place, listens=True)
                    again = self._start(prepared, isolation, place, looks=False)
                    recovery = replace(recovery, settings=again.settings, pid=again.pid)
        self._events.ended(prepared, done, recovery)
        return StandingServer(prepared, recovery)

    def onwards(self, prepared: PreparedRestore, number: int, settings: dict[str, str]) -> StandingServer:
        """Let a paused generation go on to the target of a plan: its server is started again with it.

        ``settings`` stand on its command line now. Raises: RestoreError, PostgresError, StoreError, CodecError.
        """
        place = self._folder.generation(number)
        self._events.planned(prepared)
        with self._served(prepared, place) as service:
            self._folder.stop_server(number)
            wanted = replace(recovery_settings(prepared, service.command().line), extra=())
            isolation = restarted(settings, wanted.values(), place / FETCH_FOLDER)
            return StandingServer(prepared, self._start(prepared, isolation, place))

    def _prepare(self, number: int) -> PreparedRestore:
        restore, read_only = self._restore, self._wish.read_only
        request = request_for(restore, self._folder, number, read_only=read_only)

        def plan(wanted: RestoreRequest) -> PreparedRestore:
            return prepare_restore(wanted, restore.stores, restore.layout, restore.identities)

        prepared = plan_pause(request, plan) if read_only else plan(request)
        require_chosen_timeline(prepared.plan)
        require_answers(prepared)
        if prepared.configuration.trouble is not None and self._config_file(prepared) is None:
            raise prepared.configuration.trouble
        hint = way_hint([prepared.request.pgdata], prepared.user.uid)
        if hint is not None:
            raise RestoreError("the server's user cannot reach the clone's folder", hint=hint)
        return prepared

    def _config_file(self, prepared: PreparedRestore) -> Path | None:
        """Return the original's configuration file of this machine, where the clone has none of its own."""
        original = self._wish.original_pgdata
        if prepared.configuration.trouble is None or original is None:
            return None
        return find_outside(original.absolute(), prepared.binaries.major)

    def _isolation(self, prepared: PreparedRestore, place: Path, *, listens: bool) -> ServerIsolation:
        config_file, fetched = self._config_file(prepared), place / FETCH_FOLDER
        try:
            return clone_isolation(
                prepared, place, port=self._wish.port, listens=listens, config_file=config_file, wal_folder=fetched
            )
        except OSError as error:
            raise RestoreError(f"'{error.filename}' cannot be made: {error.strerror}") from error

    @contextmanager
    def _served(self, prepared: PreparedRestore, place: Path) -> Iterator[FetchService]:
        """Serve the server's WAL while the block runs; where it fails, say also why a file was not delivered."""
        source = WalSource(prepared.layout, prepared.stores, prepared.identities)
        wal = RecoveryWal(source, limits_of(prepared.plan))
        with FetchService(place / FETCH_FOLDER, wal, prepared.user) as service:
            try:
                yield service
            except PostgresError as error:
                raise RestoreError("\n".join([*service.faults, error.message]), hint=error.hint) from error

    def _start(
        self, prepared: PreparedRestore, isolation: ServerIsolation, place: Path, *, looks: bool = True
    ) -> RecoveryResult:
        """Start the server and wait for its moment. ``looks``: compare that with the plan."""
        self._events.starting(prepared)
        found = start_and_watch(prepared, isolation, log=place / _LOG, on_progress=self._events.recovering)
        recovery = self._located(found, place)
        expected = RecoveryState.PAUSED if self._wish.read_only else RecoveryState.OPEN
        if recovery.state is not expected:
            raise RestoreError(
                f"the clone's server is {recovery.state.value}, expected {expected.value}: its log is '{recovery.log}'"
            )
        if looks:
            require_reached(prepared, recovery)
        return recovery

    def _located(self, recovery: RecoveryResult, place: Path) -> RecoveryResult:
        """Return the result with the place of a paused server. Each server is asked: the line that is printed works."""
        try:
            position = ask_position(self._wish.address(place))
        except PostgresError as error:
            raise RestoreError(
                f"the clone's server does not let role '{self._wish.role}' in: {error.message}",
                hint="WAL_PIPELINE_DRILL_ROLE and WAL_PIPELINE_DRILL_DATABASE name a superuser of the cluster and a "
                "database to connect to.",
            ) from error
        if position is None or recovery.state is not RecoveryState.PAUSED:
            return recovery
        commit_at = None if position.commit_at is None else position.commit_at.astimezone(UTC)
        return replace(recovery, replayed_lsn=position.lsn, last_commit_at=commit_at)
