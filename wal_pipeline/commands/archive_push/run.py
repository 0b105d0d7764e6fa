"""Archives the spool: compresses each file once, stores it on every store, and releases it when all hold it."""

import logging
import queue
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from functools import partial

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.records import CopyStatus
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.catalog.store_states import StoreState
from wal_pipeline.commands.archive_push.backlog import Backlog
from wal_pipeline.commands.archive_push.deferred_records import DeferredRecords
from wal_pipeline.commands.archive_push.events import (
    ArchiveEvent,
    CopyFailed,
    CopyVerified,
    FileReleased,
    FilesWaiting,
    QuarantineReason,
    SpoolEmptied,
)
from wal_pipeline.commands.archive_push.flow_control import ArchiveOptions, FlowControl, RunTime
from wal_pipeline.commands.archive_push.intake import Intake, JudgedOrder
from wal_pipeline.commands.archive_push.job import (
    ConfirmedResult,
    FileJob,
    PreparedJob,
    PreparedResult,
    Result,
    StoredResult,
)
from wal_pipeline.commands.archive_push.prepare import Prepared, Preparer
from wal_pipeline.commands.archive_push.rejections import Rejections, other_content
from wal_pipeline.commands.archive_push.skipped_files import SkippedFiles
from wal_pipeline.commands.archive_push.uploader import StoredCopy, StoreUploader
from wal_pipeline.commands.cluster_identity import ClusterIdentity, adopt_first_segment
from wal_pipeline.commands.continuity.guard import ContinuityGuard
from wal_pipeline.errors import CopyConflictError, InvalidWalFileError, SpoolError, StoreError, StoreTooSlowError
from wal_pipeline.spool import Spool
from wal_pipeline.stores.base import Store

_POLL_SECONDS = 0.05
_log = logging.getLogger(__name__)


class Archiver:
    """One archiving run over one spool. Threads compress and upload; records and releases happen in one place.

    A file is read, checked, hashed and compressed once; stored and verified on each store; recorded; yielded to the
    caller as events; and only when every store's copy is recorded and yielded, removed from the spool. A crash
    anywhere leaves it in the spool, and the next run finds what was done. Where the catalog's disk is full the records
    are owed, and the file is removed all the same: the stores are the truth, and nothing else would make room.
    """

    def __init__(
        self,
        *,
        spool: Spool,
        stores: Mapping[str, Store],
        catalog: Catalog,
        identity: ClusterIdentity,
        preparer: Preparer,
        guard: Callable[[], ContinuityGuard],
        layout: Callable[[int], Layout],
        clock: Callable[[], datetime],
        options: ArchiveOptions,
    ) -> None:
        """``layout`` gives the keys for a system identifier. ``guard`` makes the judge of one run's files."""
        self._spool = spool
        self._stores = dict(stores)
        self._catalog = catalog
        self._identity = identity
        self._preparer = preparer
        self._guard = guard()
        self._make_guard = guard
        self._layout = layout
        self._clock = clock
        self._options = options
        self._deferred = DeferredRecords(catalog, clock)
        self._backlog = Backlog(spool, catalog, clock, self._deferred.owed)
        self._skipped = SkippedFiles(spool, catalog, clock)
        self._rejections = Rejections(
            *(spool, identity, self._backlog, self._skipped, clock),
            forget_tries=self._forget_tries,
            on_other_content=lambda name, path: self._guard.note_refused(name, path),  # noqa: PLW0108 - each run has its own
        )
        self._results: queue.SimpleQueue[Result] = queue.SimpleQueue()
        self._jobs: dict[str, FileJob] = {}
        self._uploaders: dict[str, StoreUploader] = {}
        self._flow = FlowControl({}, options.memory_bytes)
        self._intake = self._new_intake()
        self._order = JudgedOrder(self._guard, self._jobs)
        self._last_jobs: list[FileJob] | None = None
        self._held: frozenset[str] = frozenset()

    def drain(self, stop: Callable[[], bool] = lambda: False) -> Iterator[ArchiveEvent]:
        """Archive what lies in the spool and yield what happens, as it happens.

        A file is removed from the spool only after the caller has come back for the next event, so what the caller
        records of its copies is recorded before. ``stop`` ends it early: no new file is taken.

        Raises: SpoolError (SpoolBusyError where another process archives from this spool), CatalogError.
        """
        with self._spool.lock():
            self._identity.refresh()
            self._guard = self._make_guard()
            self._order = JudgedOrder(self._guard, self._jobs)
            states = self._catalog.stores.states()
            self._uploaders = {name: self._new_uploader(store, states) for name, store in self._stores.items()}
            self._flow = FlowControl(self._uploaders, self._options.memory_bytes)
            self._intake = self._new_intake()
            pool = ThreadPoolExecutor(self._options.concurrency, thread_name_prefix="prepare")
            try:
                yield from self._run(pool, stop)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
                for uploader in self._uploaders.values():
                    uploader.close()
                try:
                    self._deferred.keep(self._guard.save)
                    self._deferred.write()
                finally:
                    self._skipped.save()

    def _new_intake(self) -> Intake:
        return Intake(self._backlog, self._uploaders, self._flow, self._jobs, concurrency=self._options.concurrency)

    def _new_uploader(self, store: Store, states: Mapping[str, StoreState]) -> StoreUploader:
        return StoreUploader(
            store,
            states.get(store.name, StoreState(store.name)),
            width=self._options.concurrency,
            read_back=self._options.read_back,
            max_backoff_seconds=self._options.max_backoff_seconds,
        )

    def _run(self, pool: ThreadPoolExecutor, stop: Callable[[], bool]) -> Iterator[ArchiveEvent]:
        run_time = RunTime.of(self._options)
        has_told = True
        while True:
            overtime = run_time.is_over
            held = self._awaited_stores() if overtime else frozenset()
            ending = stop() or (overtime and not held)
            if not ending:
                yield from self._admit(pool, held)
            self._deferred.write_if_due()
            result = self._next_result()
            if result is not None:
                yield from self._settle(result)
                yield from self._judge_parked()
                has_told = False
            elif ending and not self._jobs:
                return
            is_idle = result is None and not self._jobs and not self._backlog.is_unsure
            run_time.note(idle=is_idle)
            if not is_idle:
                continue
            if run_time.has_lingered(is_empty=self._backlog.is_empty) or self._spool.is_wanted():
                return
            if not has_told and self._backlog.is_empty:
                has_told = True
                yield SpoolEmptied()

    def _awaited_stores(self) -> frozenset[str]:
        """Return the stores that a run whose time is over still waits for: meanwhile the others get new files."""
        if self._last_jobs is None:
            self._last_jobs = list(self._jobs.values())
        self._last_jobs = [job for job in self._last_jobs if self._jobs.get(job.name) is job]
        held = frozenset(store for job in self._last_jobs for store in job.waiting)
        if held != self._held:
            self._held = held
            self._backlog.mark_stale()
        return held

    def _next_result(self) -> Result | None:
        nothing_left = not self._jobs and not self._options.linger_seconds and not self._backlog.is_unsure
        try:
            return self._results.get(timeout=0 if nothing_left else _POLL_SECONDS)
        except queue.Empty:
            return None

    def _admit(self, pool: ThreadPoolExecutor, held: frozenset[str]) -> Iterator[ArchiveEvent]:
        self._intake.note_resting(self._clock())
        if held and not self._intake.has_open_store(held):
            return
        new = self._backlog.refresh(self._jobs)
        if not self._identity.accepted and len(self._backlog.waiting):
            adopt_first_segment(self._spool, self._backlog.listing.ready, self._identity)
        current = self._identity.current
        if current is not None:
            self._guard.open(current)
            for job in self._intake.jobs(current, held):
                self._begin(pool, job)
        if new:
            yield FilesWaiting(new)  # the first are prepared meanwhile; no event of a file comes before this one
        if current is None:
            for spooled in self._backlog.take_all():
                message = "which cluster it belongs to is not known before the first segment"
                yield self._rejections.put_off(spooled, message)

    def _begin(self, pool: ThreadPoolExecutor, job: FileJob) -> None:
        self._jobs[job.name] = job
        job.waiting = set(job.wanted)
        self._flow.begin(job)
        future = pool.submit(self._prepare, job, self._identity.accepted, self._identity.of_unnamed)
        future.add_done_callback(lambda done: self._results.put(PreparedResult(job, done)))

    def _prepare(self, job: FileJob, accepted: frozenset[int], of_unnamed: int | None) -> Prepared | None:
        prepared = self._preparer.prepare(
            *(job.spooled, accepted, of_unnamed),
            lambda file: bool(job.wanted - job.recorded.verified(file.system_identifier).keys()),
        )
        if prepared is not None and prepared.encoded is not None:
            self._guard.look_up(prepared.file)
        return prepared

    def _settle(self, result: Result) -> Iterator[ArchiveEvent]:
        match result:
            case PreparedResult(job=begun, future=prepared):
                yield from self._settle_prepared(begun, prepared)
                return
            case StoredResult(job=job, store=store, future=stored):
                yield from self._settle_stored(job, store, stored)
            case ConfirmedResult(job=job, store=store, future=confirmed):
                yield from self._settle_confirmed(job, store, confirmed)
        yield from self._end_if_done(job)

    def _end_if_done(self, job: PreparedJob) -> Iterator[ArchiveEvent]:
        if not job.job.waiting:
            job.drop_bytes()
        if job.is_done and job.name in self._jobs:
            yield from self._finish(job)

    def _settle_prepared(self, begun: FileJob, future: "Future[Prepared | None]") -> Iterator[ArchiveEvent]:
        """Park a file that was read until it is judged; drop it where it was rejected, or changed meanwhile."""
        try:
            prepared = future.result()
        except InvalidWalFileError as error:
            yield from self._rejections.refuse(begun.spooled, error)
            self._drop(begun)
            return
        except Exception as error:  # noqa: BLE001 - one file that cannot be read must not stop all others
            yield self._rejections.unreadable(begun.spooled, error)
            self._drop(begun)
            return
        if prepared is None:
            self._backlog.mark_stale()
            self._drop(begun)
            return
        identifier = prepared.file.system_identifier
        self._backlog.note_owner(begun.name, identifier)
        begun.is_prepared = True
        begun.memory_bytes = prepared.encoded.body.size_bytes if prepared.encoded else 0
        recorded, other_size = begun.recorded.files.get(identifier), self._guard.size_fault(prepared.file)
        if other_size is not None:  # before its content is compared: its name stands for other WAL
            yield self._rejections.leave(begun.spooled, other_size, needs_help=True)
            self._drop(begun)
            return
        if begun.recorded.is_stored(identifier) and recorded is not None and recorded.sha256 != prepared.file.sha256:
            message = other_content(recorded, prepared.file)
            yield self._rejections.quarantine(begun.spooled, QuarantineReason.OTHER_CONTENT, message)
            self._drop(begun)
            return
        job = PreparedJob(begun, prepared, begun.recorded.verified(identifier))
        self._order.add(job)

    def _judge_parked(self) -> Iterator[ArchiveEvent]:
        """Hand the files to the stores that may be archived behind the files before them; leave the others."""
        for job, reason in self._order.judged():
            if reason is None:
                self._submit(job)
                yield from self._end_if_done(job)
            else:
                yield self._rejections.leave(job.job.spooled, reason, needs_help=True)
                self._drop(job.job)

    def _submit(self, job: PreparedJob) -> None:
        layout, encoded = self._layout(job.file.system_identifier), job.prepared.encoded
        for store in job.job.wanted:
            if store in job.copies or encoded is None or self._uploaders[store].is_closed(self._clock()):
                self._flow.done(job.job, store)
                continue
            self._uploaders[store].submit(layout, job.file, encoded, self._stored_on(job, store))
        for store, uploader in self._uploaders.items():
            if store in job.copies and not uploader.is_closed(self._clock()):
                job.confirming.add(store)
                uploader.confirm(job.file, job.copies[store], self._confirmed_on(job, store))

    def _stored_on(self, job: PreparedJob, store: str) -> "Callable[[Future[StoredCopy]], None]":
        return lambda done: self._results.put(StoredResult(job, store, done))

    def _confirmed_on(self, job: PreparedJob, store: str) -> "Callable[[Future[bool]], None]":
        return lambda done: self._results.put(ConfirmedResult(job, store, done))

    def _settle_confirmed(self, job: PreparedJob, store: str, future: "Future[bool]") -> Iterator[ArchiveEvent]:
        """Believe the store, not the catalog: a copy that the store does not have any more is stored again."""
        job.confirming.discard(store)
        try:
            is_there = future.result()
        except CancelledError:
            return
        except StoreError as error:
            yield self._failed(job, store, error)
            return
        if is_there:
            self._note_proved(job, store)
            yield CopyVerified(job.file, job.copies[store], is_new=False, seconds=job.prepared.seconds)
        else:
            copy = job.copies.pop(store)
            message = f"{store}: object '{copy.object_key}' is not what is recorded of '{job.name}', or not there"
            _log.warning("%s; it is stored again", message)
            self._deferred.copy(job.file, replace(copy, status=CopyStatus.MISSING, last_error=message))

    def _settle_stored(self, job: PreparedJob, store: str, future: "Future[StoredCopy]") -> Iterator[ArchiveEvent]:
        self._flow.done(job.job, store)
        try:
            stored = future.result()
        except CancelledError:
            return
        except CopyConflictError as error:
            self._note_conflict(job, error)
        except StoreError as error:
            yield self._failed(job, store, error)
        else:
            if job.conflict is None:
                yield self._verified(job, store, stored)

    def _note_conflict(self, job: PreparedJob, error: CopyConflictError) -> None:
        """Forget what this job put on other stores: which content is the right one is not known any more."""
        job.conflict = error
        identifier = job.file.system_identifier
        for store in job.proved - job.job.recorded.verified(identifier).keys():
            self._deferred.keep(partial(self._catalog.files.remove_copy, identifier, [job.name], store))

    def _verified(self, job: PreparedJob, store: str, stored: StoredCopy) -> CopyVerified:
        now = self._clock()
        copy = job.copy_on(store, CopyStatus.VERIFIED, stored, verified_at=now)
        record_seconds = self._deferred.copy(job.file, copy)
        self._deferred.tried(store, succeeded=True)
        if self._uploaders[store].succeeded(now):
            self._deferred.keep(partial(self._catalog.stores.save_state, self._uploaders[store].state))
            self._backlog.mark_stale()
        job.copies[store] = copy
        self._note_proved(job, store)
        if stored.is_new:
            self._guard.note_new(job.file)
        job.prepared.seconds[f"store on {store}"] = stored.seconds
        seconds = {**job.prepared.seconds, "record": record_seconds}
        return CopyVerified(job.file, copy, is_new=True, seconds=seconds)

    def _note_proved(self, job: PreparedJob, store: str) -> None:
        job.proved.add(store)
        if not job.job.is_proved:
            job.job.is_proved = True
            self._deferred.keep(partial(self._guard.note_proved, job.file))

    def _failed(self, job: PreparedJob, store: str, error: StoreError) -> CopyFailed:
        now = self._clock()
        failed = job.copy_on(store, CopyStatus.FAILED, None, last_error=error.message)
        self._deferred.keep(partial(self._catalog.files.record_failed, job.file, failed))
        self._deferred.tried(store, succeeded=False)
        self._uploaders[store].failed(now, error.message, too_slow=isinstance(error, StoreTooSlowError))
        state = self._uploaders[store].state
        self._deferred.keep(partial(self._catalog.stores.save_state, state))
        return CopyFailed(job.name, store, error.message, failed.tries, state.consecutive_failures, error.hint)

    def _finish(self, job: PreparedJob) -> Iterator[ArchiveEvent]:
        if job.conflict is not None:
            yield self._rejections.quarantine(job.job.spooled, QuarantineReason.OTHER_CONTENT, job.conflict.message)
        elif job.proved >= self._stores.keys():
            yield from self._release(job)
        else:
            self._backlog.mark_stale()
        self._drop(job.job)

    def _release(self, job: PreparedJob) -> Iterator[ArchiveEvent]:
        try:
            released = self._spool.release(job.job.spooled)
        except SpoolError as error:
            yield self._rejections.unreadable(job.job.spooled, error)
            return
        if released:
            self._deferred.released(job.file.system_identifier, job.name)
            yield FileReleased(job.file, tuple(job.copies.values()), dict(job.prepared.seconds))
        else:
            self._backlog.mark_stale()

    def _forget_tries(self, name: str) -> None:
        self._deferred.keep(partial(self._catalog.files.forget_tries, name))

    def _drop(self, job: FileJob) -> None:
        """Forget a job and give its places back."""
        self._flow.end(job)
        del self._jobs[job.name]
