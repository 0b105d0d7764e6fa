"""Restores a cluster from one store into a scratch folder, starts it, checks it, measures all and removes it."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from random import Random
from typing import Any, Final

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.restore_time.measure import MeasuredBy
from wal_pipeline.commands.archive_get.tail_wal import RecoveryWal
from wal_pipeline.commands.archive_get.wal_source import WalSource
from wal_pipeline.commands.beside.fetch_service import FetchService
from wal_pipeline.commands.beside.scratch_folder import FETCH_FOLDER, PGDATA, ScratchUse, scratch_folder
from wal_pipeline.commands.beside.scratch_server import scratch_isolation
from wal_pipeline.commands.drill.choice import DrillTarget, choose_target, predict_commit
from wal_pipeline.commands.drill.cluster_checks import ClusterChecks, failed_checks, not_proven
from wal_pipeline.commands.drill.comparison import difference_from_prediction
from wal_pipeline.commands.drill.result import DrillCheck, DrillOptions, DrillResult
from wal_pipeline.commands.restore.perform import RestoreResult, perform_restore
from wal_pipeline.commands.restore.prepare import PreparedRestore, RestoreRequest, prepare_restore
from wal_pipeline.commands.restore.start import RecoveryResult, running_server
from wal_pipeline.commands.restore.timing.work import measured_restore, work_of
from wal_pipeline.commands.restore_times import KnownTimes
from wal_pipeline.errors import PostgresError, RestoreError, WalPipelineError
from wal_pipeline.postgres.replay_progress import RecoveryProgress
from wal_pipeline.stores.base import Store
from wal_pipeline.stores.cluster_store import ClusterStore

DRILL_USE: Final = ScratchUse("drill", "WAL_PIPELINE_DRILL_FOLDER")
_log = logging.getLogger(__name__)


def _note_wait(progress: RecoveryProgress) -> None:
    if progress.waits_for is not None:
        _log.warning("recovery waits for %s, for %.0f s now", progress.waits_for, progress.quiet_seconds)


class Drill:
    """Restores one cluster from one store alone, to a moment drawn from the window."""

    _result: DrillResult  # of the drill that runs: also a failed one reports how far it came

    def __init__(
        self,
        *,
        store: Store,
        layout: Layout,
        identities: Sequence[Any],
        options: DrillOptions,
        clock: Callable[[], datetime],
        random: Random,
        host: str = "",
        known: KnownTimes | None = None,
    ) -> None:
        """``known``: the times by which it is predicted how long the restore takes on ``host``."""
        self._store = store
        self._layout = layout
        self._identities = tuple(identities)
        self._options = options
        self._clock = clock
        self._random = random
        self._host = host
        self._known = known or KnownTimes()

    def run(self) -> DrillResult:
        """Do it, and report; an error of the restore or of the checks is a failed drill, not an exception.

        Raises: RestoreError where the scratch folder is in use or not a drill's: nothing is touched then.
        """
        now = self._clock()
        self._result = DrillResult(self._store.name, now, now)
        try:
            with scratch_folder(self._options.folder, DRILL_USE, {"store": self._store.name}):
                error = self._attempt()
        except OSError as failure:
            error = str(failure)
        return replace(self._result, finished_at=self._clock(), error=error)

    def _attempt(self) -> str | None:
        """Return why the drill failed; None where it passed. ``_result`` holds how far it came."""
        try:
            return self._restore_and_check()
        except (WalPipelineError, OSError) as failure:
            return str(failure)

    def _restore_and_check(self) -> str | None:
        begun = time.monotonic()
        place = ClusterStore(self._store, self._layout)
        target = choose_target(place, self._identities, self._random)
        self._result = replace(self._result, base_backup=target.manifest.backup_id, target=str(target.choice.target))
        predicted = predict_commit(place, target.choice, target.tails)
        self._result = replace(self._result, predicted_commit_at=predicted[0] if predicted else None)
        self._note_seconds(choose=time.monotonic() - begun)
        begun = time.monotonic()
        prepared = prepare_restore(self._request(target), [self._store], self._layout, self._identities)
        prepared = replace(prepared, forecast=self._known.forecast(work_of(prepared), self._host))
        source = WalSource(self._layout, (self._store,), self._identities)
        wal = RecoveryWal(source, target.limits(prepared.plan))
        with FetchService(self._options.folder / FETCH_FOLDER, wal, prepared.user) as fetching:
            done = self._perform(prepared, target, fetching)
            try:
                return self._recover_and_check(prepared, done, target, predicted, begun)
            except PostgresError as error:
                raise RestoreError("\n".join([*fetching.faults, error.message])) from error

    def _request(self, target: DrillTarget) -> RestoreRequest:
        folder = self._options.folder
        return RestoreRequest(
            pgdata=folder / PGDATA,
            target=target.choice.target,
            base_backup=target.manifest.backup_id,
            owner=self._options.owner,
            tablespaces={
                str(space.oid): folder / "tablespaces" / str(space.oid) for space in target.manifest.tablespaces
            },
            archiving=False,
            bindir=self._options.bindir,
        )

    def _perform(self, prepared: PreparedRestore, target: DrillTarget, fetching: FetchService) -> RestoreResult:
        # The original goes on archiving: the end of the archive is where it was when the commit was predicted.
        last = target.choice.last.name if target.choice.next_file is None else None
        done = perform_restore(prepared, fetching.command(last))
        self._result = replace(self._result, downloaded_bytes=done.downloaded_bytes, warnings=done.warnings)
        self._note_seconds(**done.seconds)
        return done

    def _recover_and_check(
        self,
        prepared: PreparedRestore,
        done: RestoreResult,
        target: DrillTarget,
        predicted: tuple[datetime, ...],
        begun: float,
    ) -> str | None:
        options = self._options
        self._result = replace(self._result, not_proven=(*not_proven(prepared), *target.beyond))
        isolation = scratch_isolation(options.folder, prepared, options.folder / FETCH_FOLDER)
        with running_server(
            prepared,
            isolation,
            log=options.folder / "recovery.log",
            timeout_seconds=options.timeout_seconds,
            on_progress=_note_wait,
        ) as recovery:
            self._note_recovery(recovery, time.monotonic() - begun)
            self._note_measured(prepared, done, recovery)
            difference = difference_from_prediction(prepared, target, predicted, recovery, options.folder / "look")
            begun = time.monotonic()
            checks = self._check(prepared)
            warned = (words for check in checks for words in check.warnings)
            self._result = replace(self._result, checks=checks, warnings=(*self._result.warnings, *warned))
            self._note_seconds(checks=time.monotonic() - begun)
        failed = (f"check '{name}' failed: {output}" for name, output in failed_checks(checks).items())
        return recovery.lost or difference or "; ".join(failed) or None

    def _note_recovery(self, recovery: RecoveryResult, rto_seconds: float) -> None:
        self._result = replace(
            self._result,
            rto_seconds=rto_seconds,
            segments=recovery.segments,
            reached_commit_at=recovery.last_commit_at,
            reached_lsn=str(recovery.replayed_lsn) if recovery.replayed_lsn is not None else None,
            not_proven=(*self._result.not_proven, *recovery.lower_words),
            warnings=(*self._result.warnings, *recovery.warnings),
        )
        self._note_seconds(recovery=recovery.seconds.get(recovery.state.value, 0.0))

    def _note_measured(self, prepared: PreparedRestore, done: RestoreResult, recovery: RecoveryResult) -> None:
        measured = measured_restore(
            prepared, done, recovery, host=self._host, by=MeasuredBy.DRILL, finished_at=self._clock()
        )
        self._result = replace(self._result, measured=measured)

    def _note_seconds(self, **seconds: float) -> None:
        self._result = replace(self._result, seconds={**self._result.seconds, **seconds})

    def _check(self, prepared: PreparedRestore) -> tuple[DrillCheck, ...]:
        options = self._options
        checks = ClusterChecks(
            prepared.binaries,
            options.folder,
            prepared.user,
            role=options.role,
            database=options.database,
            timeout_seconds=options.timeout_seconds,
        )
        found = [checks.answers()]
        if options.amcheck:
            found.append(checks.amcheck())
        if options.sql_file is not None:
            found.append(checks.sql(options.sql_file))
        return tuple(found)
