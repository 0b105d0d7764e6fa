"""Runs a restore from its request to the moment that its plan foretold."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.recovery.restore_plan import require_chosen_timeline
from wal_pipeline.archive.restore_time.forecast import RestoreForecast
from wal_pipeline.archive.restore_time.measure import MeasuredBy
from wal_pipeline.commands.audit import AuditLog
from wal_pipeline.commands.restore.checks import check_runnable, server_user
from wal_pipeline.commands.restore.chosen.finish import FinishedDatabases, drop_left_out
from wal_pipeline.commands.restore.options import RestoreOptions
from wal_pipeline.commands.restore.original import OriginalServer, decide_role, require_role
from wal_pipeline.commands.restore.perform import RestoreCommand, RestoreEvents, RestoreResult, perform_restore
from wal_pipeline.commands.restore.places.workspace import require_unmarked
from wal_pipeline.commands.restore.prepare import PreparedRestore, RestoreRequest, prepare_restore, require_answers
from wal_pipeline.commands.restore.reached import require_reached
from wal_pipeline.commands.restore.standby.primary import look_at_primary
from wal_pipeline.commands.restore.standby.wal_only import prepare_wal_only
from wal_pipeline.commands.restore.start import RecoveryResult, restored_server, start_and_watch
from wal_pipeline.commands.restore.timing.work import ReceivedBytes, measured_restore, work_of
from wal_pipeline.commands.restore_times import RestoreTimes
from wal_pipeline.errors import PostgresError, RestoreError, WalPipelineError
from wal_pipeline.host.file_owner import way_hint
from wal_pipeline.host.mounts import has_room_beside
from wal_pipeline.postgres.recovery import drop_setting
from wal_pipeline.postgres.recovery_server import require_own_log
from wal_pipeline.postgres.replay_progress import RecoveryState
from wal_pipeline.stores.base import Store

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Restore:
    """One restore. ``request`` is made from ``options``, which also say how far it goes and from which stores.

    ``stores`` and ``layout`` are where the cluster's objects lie, ``identities`` open those that are encrypted.
    ``original`` is the server that may still live. ``times`` predict how long it takes, and learn from it. ``by``: who
    or what asked for it, as the audit log shall say; by default the user.
    """

    options: RestoreOptions
    request: RestoreRequest
    stores: Sequence[Store]
    layout: Layout
    identities: Sequence[Any]
    command: RestoreCommand
    audit: AuditLog
    original: OriginalServer
    by: str | None = None
    times: RestoreTimes | None = None

    def run(self, events: RestoreEvents) -> None:
        """Plan and check; unless only the plan is asked for, bring the files back, and start the server if asked to.

        ``events.ended`` comes before the comparison of what was reached with what was planned.

        Raises: RecoveryTargetError, RestoreError, PostgresError, StoreError, CodecError; RestoreError too where the
        recovery did not end where it was planned to.
        """
        prepared = self._prepared()
        events.planned(prepared)
        if self.options.plan_only:
            return
        if prepared.refusals:
            raise prepared.refusals[0]
        received = ReceivedBytes(prepared.stores)
        result = self._perform(prepared, events)
        received_bytes = received.by_store
        recovery = self._start(prepared, events) if self.options.start else None
        result = self._timed(prepared, result, recovery, received_bytes)
        if recovery is not None and recovery.state is RecoveryState.OPEN and prepared.chosen is not None:
            result = replace(result, databases=_finish(prepared))
        events.ended(prepared, result, recovery)
        if recovery is not None:
            require_reached(prepared, recovery)
        if result.databases is not None and isinstance(result.databases.trouble, RestoreError):
            raise result.databases.trouble

    def _forecast(self, prepared: PreparedRestore) -> RestoreForecast | None:
        if self.times is None or prepared.request.wal_only:
            return None
        return self.times.forecast(work_of(prepared))

    def _timed(
        self,
        prepared: PreparedRestore,
        result: RestoreResult,
        recovery: RecoveryResult | None,
        received_bytes: Mapping[str, int],
    ) -> RestoreResult:
        """Keep how long the restore took, and return its result with the comparison with what was predicted."""
        if self.times is None or prepared.request.wal_only:
            return result
        measured = measured_restore(
            prepared,
            result,
            recovery,
            host=self.times.host,
            by=MeasuredBy.RESTORE,
            finished_at=self.times.clock(),
            received_bytes=received_bytes,
        )
        reason = self.times.keep(measured)
        if reason is not None:
            _log.info("how long the restore took is not kept: %s", reason)
        return replace(result, predicted_seconds=measured.predicted_seconds, took_seconds=measured.took_seconds)

    def _prepared(self) -> PreparedRestore:
        request = self.request
        with ThreadPoolExecutor(1, thread_name_prefix="check-runnable") as pool:
            runnable = pool.submit(self._check_runnable)
            if request.standby is None:  # a standby's original lives: no sign of it decides anything
                signs = self.original.signs_of_life(request.pgdata, self.layout.system_identifier)
                request = decide_role(request, signs)
            prepare = prepare_wal_only if request.wal_only else prepare_restore
            prepared = prepare(request, self.stores, self.layout, self.identities)
            primary = look_at_primary(prepared)
            forecast = self._forecast(prepared)
            prepared = replace(prepared, notes=(*prepared.notes, *primary.notes))
            refusals = (*self._refusals(prepared, runnable), *primary.refusals)
        return replace(prepared, refusals=refusals, forecast=forecast)

    def _check_runnable(self) -> None:
        """Try the restore command, which takes as long as the plan and needs nothing of it."""
        check_runnable(self.command.program, server_user(self.request.pgdata.absolute(), self.request.owner))

    def _refusals(self, prepared: PreparedRestore, runnable: Future[None]) -> Iterator[WalPipelineError]:
        """Yield all that keeps a planned restore from being done as it was asked for. Nothing is written."""
        checks: list[Callable[[], None]] = [
            lambda: require_role(prepared.request),
            lambda: require_chosen_timeline(prepared.plan),
            lambda: require_answers(prepared),
            runnable.result,
            *(partial(require_unmarked, folder, prepared.request.pgdata) for folder in prepared.filled_elsewhere),
        ]
        if self.options.start:
            checks += [lambda: self._require_startable(prepared)]
        for check in checks:
            try:
                check()
            except WalPipelineError as error:
                yield error

    def _require_startable(self, prepared: PreparedRestore) -> None:
        """Refuse a start that must fail. Raises: RestoreError, PostgresError."""
        if prepared.configuration.trouble is not None:
            raise prepared.configuration.trouble
        config_file = [] if self.options.config_file is None else [self.options.config_file]
        hint = way_hint([prepared.request.pgdata, *prepared.filled_elsewhere, *config_file], prepared.user.uid)
        if hint is not None:
            raise RestoreError("the server's user cannot reach the restored cluster", hint=hint)
        require_own_log(recovery_log(self.request.pgdata, self.request.work_dir), prepared.user)

    def _perform(self, prepared: PreparedRestore, events: RestoreEvents) -> RestoreResult:
        events.writing()
        values = {"pgdata": str(self.request.pgdata), "store": self.options.store}
        values |= {"as": "standby"} if self.request.standby is not None else {}
        values |= {"files": "kept"} if self.request.wal_only else {}
        with self.audit.work("restore", self.layout.cluster, by=self.by, **values) as line:
            result = perform_restore(prepared, self.command, events)
            line["result"] = "restored"
        return result

    def _start(self, prepared: PreparedRestore, events: RestoreEvents) -> RecoveryResult:
        """Start the server, wait until its recovery ends, and remove the files that were fetched ahead of it."""
        folders = () if self.command.prefetched is None else (self.command.prefetched.path,)
        isolation = restored_server(prepared, self.options.server_settings, self.options.config_file, folders)
        events.starting(prepared)
        log = recovery_log(self.request.pgdata, self.request.work_dir)
        recovery = start_and_watch(prepared, isolation, log=log, on_progress=events.recovering)
        if recovery.state is RecoveryState.OPEN:
            drop_setting(self.request.pgdata, "hot_standby")  # a standby that is made of it shall be a hot one
        goes_on = recovery.state in (RecoveryState.PAUSED, RecoveryState.FOLLOWING)
        if not goes_on and self.command.prefetched is not None:
            self.command.prefetched.destroy()
        return recovery


def _finish(prepared: PreparedRestore) -> FinishedDatabases:
    """Drop the databases that were not asked for; where that fails, say why: the server is there all the same."""
    try:
        return drop_left_out(prepared)
    except (RestoreError, PostgresError) as error:
        return FinishedDatabases(trouble=error)


def recovery_log(pgdata: Path, work_dir: Path | None = None) -> Path:
    """Return the log of a restored server until its next restart: a file beside its data directory.

    In ``work_dir`` where there is one, and in the data directory where nothing can lie beside it.
    """
    if work_dir is None and not has_room_beside(pgdata):
        return pgdata / "wal-pipeline-recovery.log"
    return (work_dir or pgdata.parent) / f"{pgdata.name}-recovery.log"
