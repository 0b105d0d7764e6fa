"""Archive the spool: every file compressed and hashed once, stored on every store, and released when all hold it."""

import logging
import queue
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from wal_pipeline.archive.layout import Layout
from wal_pipeline.archive.records import CopyStatus, WalFile
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.catalog.stores import StoreState
from wal_pipeline.commands.admission import Admission
from wal_pipeline.commands.archive_events import (
    ArchiveEvent,
    CopyFailed,
    CopyVerified,
    FileLeft,
    FileQuarantined,
    FileReleased,
    FilesWaiting,
    QuarantineReason,
)
from wal_pipeline.commands.archive_jobs import Job, PreparedResult, StoredResult
from wal_pipeline.commands.backlog import Backlog, FileQueue
from wal_pipeline.commands.first_segment import adopt_first_segment
from wal_pipeline.commands.identity import ClusterIdentity
from wal_pipeline.commands.lane import Lane, StoredCopy
from wal_pipeline.commands.late_records import LateRecords
from wal_pipeline.commands.left_files import LeftFiles
from wal_pipeline.commands.prepare import Prepared, Preparer
from wal_pipeline.errors import CopyConflictError, InvalidWalFileError, SpoolError, StoreError
from wal_pipeline.spool import Spool, SpoolFile
from wal_pipeline.stores.base import Store
from wal_pipeline.wal.page_header import InvalidSegmentError, SegmentFault

_POLL_SECONDS = 0.05
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ArchiveOptions:
    """How an archiving run goes about it.

    ``concurrency``: files compressed at once, and uploads at once per store. ``memory_bytes`` bounds what the files
    in flight take. ``linger_seconds``: how long it waits for new files when nothing is left; after ``max_seconds``
    it takes no new file and ends.
    """

    concurrency: int = 4
    memory_bytes: int = 160 * 2**20
    read_back: bool = True
    linger_seconds: float = 0.0
    max_seconds: float = 900.0
    max_backoff_seconds: float = 300.0


class Archiver:
    """One archiving run over one spool. Threads compress and upload; records and releases happen in one place.

    A file goes through: read and checked, hashed, compressed once; stored and verified on each store; recorded;
    told to the caller; and only when every store's copy is recorded and told, removed from the spool. A crash
    anywhere leaves it in the spool, and the next run finds what was done.
    """

    def __init__(
        self,
        *,
        spool: Spool,
        stores: Mapping[str, Store],
        catalog: Catalog,
        identity: ClusterIdentity,
        preparer: Preparer,
        layout: Callable[[int], Layout],
        clock: Callable[[], datetime],
        options: ArchiveOptions,
    ) -> None:
        """``layout`` gives the keys for a system identifier."""
        self._spool = spool
        self._stores = dict(stores)
        self._catalog = catalog
        self._identity = identity
        self._preparer = preparer
        self._layout = layout
        self._clock = clock
        self._options = options
        self._backlog = Backlog(spool, catalog, clock)
        self._late = LateRecords(catalog, clock)
        self._left = LeftFiles(spool, catalog, clock)
        self._results: queue.SimpleQueue[PreparedResult | StoredResult] = queue.SimpleQueue()
        self._jobs: dict[str, Job] = {}
        self._lanes: dict[str, Lane] = {}
        self._admission = Admission({}, options.memory_bytes)
        self._resting: frozenset[str] = frozenset()
        self._last_jobs: list[Job] | None = None
        self._held: frozenset[str] = frozenset()

    def drain(self, stop: Callable[[], bool] = lambda: False) -> Iterator[ArchiveEvent]:
        """Archive what lies in the spool and yield what happens, as it happens.

        A file is removed from the spool only after the caller has come back for the next event, so what the caller
        records of its copies is recorded before. ``stop`` ends it early: no new file is taken.

        Raises: SpoolError (SpoolBusyError where another process archives from this spool), CatalogError.
        """
        with self._spool.lock():
            self._identity.refresh()
            states = self._catalog.stores.states()
            self._lanes = {name: self._lane(store, states) for name, store in self._stores.items()}
            self._admission = Admission(self._lanes, self._options.memory_bytes)
            pool = ThreadPoolExecutor(self._options.concurrency, thread_name_prefix="prepare")
            try:
                yield from self._run(pool, stop)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
                for lane in self._lanes.values():
                    lane.close()
                self._late.write()
                self._left.save()

    def _lane(self, store: Store, states: Mapping[str, StoreState]) -> Lane:
        return Lane(
            store,
            states.get(store.name, StoreState(store.name)),
            width=self._options.concurrency,
            read_back=self._options.read_back,
            max_backoff_seconds=self._options.max_backoff_seconds,
        )

    def _run(self, pool: ThreadPoolExecutor, stop: Callable[[], bool]) -> Iterator[ArchiveEvent]:
        begun = idle_since = time.monotonic()
        while True:
            overtime = time.monotonic() - begun >= self._options.max_seconds
            held = self._held_up() if overtime else frozenset()
            ending = stop() or (overtime and not held)
            if not ending:
                yield from self._admit(pool, held)
            self._late.write_if_due()
            result = self._next_result()
            if result is not None:
                yield from self._settle(result)
                idle_since = time.monotonic()
            elif ending and not self._jobs:
                return
            elif self._jobs or self._backlog.is_unsure:
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since >= self._options.linger_seconds:
                return

    def _held_up(self) -> frozenset[str]:
        """Return the stores that a run whose time is over still waits for: meanwhile the others get new files."""
        if self._last_jobs is None:
            self._last_jobs = list(self._jobs.values())
        self._last_jobs = [job for job in self._last_jobs if self._jobs.get(job.name) is job]
        held = frozenset(store for job in self._last_jobs for store in job.waiting)
        if held != self._held:
            self._held = held
            self._backlog.mark_stale()
        return held

    def _next_result(self) -> PreparedResult | StoredResult | None:
        nothing_left = not self._jobs and not self._options.linger_seconds and not self._backlog.is_unsure
        try:
            return self._results.get(timeout=0 if nothing_left else _POLL_SECONDS)
        except queue.Empty:
            return None

    # Which file goes next, and to which stores

    def _admit(self, pool: ThreadPoolExecutor, held: frozenset[str]) -> Iterator[ArchiveEvent]:
        self._note_resting(self._clock())
        if held and not self._stores.keys() - self._resting - held:
            return
        new = self._backlog.refresh(self._jobs)
        if not self._identity.accepted and len(self._backlog.waiting):
            adopt_first_segment(self._spool, self._backlog.listing.ready, self._identity)
        if self._identity.current is not None:
            self._take(pool, self._backlog.postponed, self._resting | held)
            self._take(pool, self._backlog.waiting, self._resting | held)
        if new:
            yield FilesWaiting(new)  # the first are prepared meanwhile; nothing is told of a file before this
        if self._identity.current is None:
            for spooled in self._backlog.take_all():
                message = "which cluster it belongs to is not known before the first segment"
                self._left.add(spooled, message, needs_help=False)
                yield FileLeft(spooled.name.name, message)

    def _take(self, pool: ThreadPoolExecutor, files: FileQueue, shut: frozenset[str]) -> None:
        """Begin files from the head of a queue until one has to wait."""
        assert self._identity.current is not None  # noqa: S101 - _admit has looked
        for _ in range(len(files)):
            spooled, recorded = files.head, files.recorded()
            needed = self._stores.keys() - self._backlog.verified(spooled, recorded, self._identity.current)
            usable = needed - shut
            if needed and not usable:
                files.pop()
                continue
            wanted = self._admission.choose(spooled.size_bytes, usable, self._resting)
            if wanted is None or (usable and not wanted and files is self._backlog.postponed):
                return
            files.pop()
            if usable and not wanted:
                self._backlog.postponed.append(spooled)
            else:
                self._begin(pool, Job(spooled, recorded, wanted, 2 * spooled.size_bytes))

    def _note_resting(self, now: datetime) -> None:
        resting = frozenset(name for name, lane in self._lanes.items() if lane.is_closed(now))
        if self._resting - resting:
            self._backlog.mark_stale()  # a store may be tried again: files that were passed over for it are due
        self._resting = resting

    def _begin(self, pool: ThreadPoolExecutor, job: Job) -> None:
        self._jobs[job.name] = job
        job.waiting = set(job.wanted)
        self._admission.begin(job)
        accepted, current = self._identity.accepted, self._identity.current
        assert current is not None  # noqa: S101 - _admit begins nothing before the cluster is known
        future = pool.submit(
            self._preparer.prepare,
            job.spooled,
            accepted,
            current,
            lambda file: bool(job.wanted - job.recorded.verified(file.system_identifier).keys()),
        )
        future.add_done_callback(lambda done: self._results.put(PreparedResult(job, done)))

    # What became of it

    def _settle(self, result: PreparedResult | StoredResult) -> Iterator[ArchiveEvent]:
        if isinstance(result, PreparedResult):
            yield from self._settle_prepared(result.job, result.future)
        else:
            yield from self._settle_stored(result.job, result.store, result.future)
        if not result.job.waiting and result.job.name in self._jobs:
            yield from self._finish(result.job)

    def _settle_prepared(self, job: Job, future: "Future[Prepared | None]") -> Iterator[ArchiveEvent]:
        try:
            job.prepared = future.result()
        except InvalidWalFileError as error:
            yield from self._refuse(job, error)
            self._drop(job)
            return
        except Exception as error:  # noqa: BLE001 - one file that cannot be read must not hold up all others
            yield self._unreadable(job, error)
            self._drop(job)
            return
        if job.prepared is None:  # it changed while it was read
            self._backlog.mark_stale()
            self._drop(job)
            return
        self._backlog.note_owner(job.name, job.file.system_identifier)
        job.memory_bytes = job.prepared.encoded.body.size_bytes if job.prepared.encoded else 0
        recorded = job.recorded.files.get(job.file.system_identifier)
        job.copies = job.recorded.verified(job.file.system_identifier)
        is_stored = job.recorded.is_stored(job.file.system_identifier)
        if is_stored and recorded is not None and recorded.sha256 != job.file.sha256:
            yield self._quarantine(job.spooled, QuarantineReason.OTHER_CONTENT, _other_content(recorded, job.file))
            self._drop(job)
            return
        for copy in job.copies.values():
            yield CopyVerified(job.file, copy, is_new=False, seconds=job.prepared.seconds)
        self._submit(job, job.prepared)

    def _submit(self, job: Job, prepared: Prepared) -> None:
        layout = self._layout(prepared.file.system_identifier)
        for store in job.wanted:
            if store in job.copies or prepared.encoded is None or self._lanes[store].is_closed(self._clock()):
                self._admission.done(job, store)
                continue
            self._lanes[store].submit(layout, prepared.file, prepared.encoded, self._stored_on(job, store))

    def _stored_on(self, job: Job, store: str) -> "Callable[[Future[StoredCopy]], None]":
        return lambda done: self._results.put(StoredResult(job, store, done))

    def _settle_stored(self, job: Job, store: str, future: "Future[StoredCopy]") -> Iterator[ArchiveEvent]:
        self._admission.done(job, store)
        try:
            stored = future.result()
        except CancelledError:
            return
        except CopyConflictError as error:
            job.conflict = error
        except StoreError as error:
            yield self._failed(job, store, error)
        else:
            yield self._verified(job, store, stored)

    def _verified(self, job: Job, store: str, stored: StoredCopy) -> CopyVerified:
        now = self._clock()
        copy = job.copy_on(store, CopyStatus.VERIFIED, stored, verified_at=now)
        self._catalog.files.record_verified(job.file, [copy])
        self._late.tried(store, succeeded=True)
        if self._lanes[store].succeeded(now):
            self._catalog.stores.save_state(self._lanes[store].state)
            self._backlog.mark_stale()
        job.copies[store] = copy
        assert job.prepared is not None  # noqa: S101
        job.prepared.seconds[f"store on {store}"] = stored.seconds
        return CopyVerified(job.file, copy, is_new=True, seconds=dict(job.prepared.seconds))

    def _failed(self, job: Job, store: str, error: StoreError) -> CopyFailed:
        now = self._clock()
        failed = job.copy_on(store, CopyStatus.FAILED, None, last_error=error.message)
        self._catalog.files.record_failed(job.file, failed)
        self._late.tried(store, succeeded=False)
        self._lanes[store].failed(now, error.message)
        state = self._lanes[store].state
        self._catalog.stores.save_state(state)
        return CopyFailed(job.name, store, error.message, failed.tries, state.consecutive_failures)

    def _finish(self, job: Job) -> Iterator[ArchiveEvent]:
        if job.conflict is not None:
            yield self._quarantine(job.spooled, QuarantineReason.OTHER_CONTENT, job.conflict.message)
        elif job.copies.keys() >= self._stores.keys():
            yield from self._release(job)
        else:
            self._backlog.mark_stale()
        self._drop(job)

    def _release(self, job: Job) -> Iterator[ArchiveEvent]:
        assert job.prepared is not None  # noqa: S101
        try:
            released = self._spool.release(job.spooled)
        except SpoolError as error:
            yield self._leave(job.spooled, error.message, needs_help=True)
            return
        if released:
            self._late.released(job.file.system_identifier, job.name)
            yield FileReleased(job.file, tuple(job.copies.values()), dict(job.prepared.seconds))
        else:
            self._backlog.mark_stale()

    def _refuse(self, job: Job, error: InvalidWalFileError) -> Iterator[ArchiveEvent]:
        """Quarantine what can never be archived; leave what may still be growing or may be accepted after all."""
        fault = error.fault if isinstance(error, InvalidSegmentError) else None
        if fault is SegmentFault.WRONG_CLUSTER:
            before = self._identity.accepted
            self._identity.refresh()
            if self._identity.accepted != before:
                self._backlog.mark_stale()
                return
            yield self._quarantine(job.spooled, QuarantineReason.WRONG_CLUSTER, error.message)
        elif not job.spooled.settled:
            yield self._leave(job.spooled, error.message)
        else:
            whole = fault not in (SegmentFault.TOO_SHORT, SegmentFault.NOT_A_WAL_PAGE)
            reason = QuarantineReason.NOT_VALID if whole else QuarantineReason.NOT_WHOLE
            yield self._quarantine(job.spooled, reason, error.message)

    def _quarantine(self, spooled: SpoolFile, reason: QuarantineReason, message: str) -> FileQuarantined | FileLeft:
        try:
            path = self._spool.quarantine(spooled, self._clock())
        except SpoolError as error:
            return self._leave(spooled, f"{message}; {error.message}", needs_help=True)
        if path is None:
            self._backlog.mark_stale()
            return FileLeft(spooled.name.name, f"{message}; it has changed since, and is looked at again")
        return FileQuarantined(spooled.name.name, reason, message, path)

    def _unreadable(self, job: Job, error: Exception) -> FileLeft:
        if isinstance(error, SpoolError):
            return self._leave(job.spooled, error.message, needs_help=True)
        _LOG.error("cannot prepare '%s'", job.name, exc_info=error)
        return self._leave(job.spooled, f"unexpected {type(error).__name__}: {error}", needs_help=True)

    def _leave(self, spooled: SpoolFile, message: str, *, needs_help: bool = False) -> FileLeft:
        self._backlog.leave(spooled)
        self._left.add(spooled, message, needs_help=needs_help)
        return FileLeft(spooled.name.name, message, needs_help)

    def _drop(self, job: Job) -> None:
        self._admission.end(job)
        del self._jobs[job.name]


def _other_content(recorded: WalFile, found: WalFile) -> str:
    return (
        f"'{found.name}' has content with SHA-256 {found.sha256}, "
        f"the archive holds it with {recorded.sha256}: a copy is never overwritten"
    )
