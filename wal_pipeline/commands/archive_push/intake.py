"""Chooses the waiting file that an archiving run takes next, the stores that take it, and when they may store it."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import Enum, auto

from wal_pipeline.commands.archive_push.backlog import Backlog, FileQueue, Recorded
from wal_pipeline.commands.archive_push.flow_control import Admitted, Blocked, FlowControl
from wal_pipeline.commands.archive_push.job import FileJob, PreparedJob
from wal_pipeline.commands.archive_push.uploader import StoreUploader
from wal_pipeline.commands.continuity.guard import ContinuityGuard
from wal_pipeline.spool import SpoolFile


class Refusal(Enum):
    """Why the file at the head of a queue does not begin now.

    ``ALL_SHUT``: no store that lacks it may be tried; it is looked at again when the spool is listed again.
    ``OTHERS_FIRST``: the stores that lack it are behind, or many files wait for a store's confirmation already:
    files after it may begin before it. ``NO_ROOM``: it waits, and so does every file after it.
    """

    ALL_SHUT = auto()
    OTHERS_FIRST = auto()
    NO_ROOM = auto()


class Intake:
    """Takes files from the backlog in archiving order. It begins nothing: the run does, one job at a time."""

    def __init__(
        self,
        backlog: Backlog,
        uploaders: Mapping[str, StoreUploader],
        flow: FlowControl,
        jobs: Mapping[str, FileJob],
        *,
        concurrency: int,
    ) -> None:
        """``jobs`` are those under way, by file name; the run adds each job that it begins before it asks on."""
        self._backlog = backlog
        self._uploaders = uploaders
        self._flow = flow
        self._jobs = jobs
        self._most_confirming = 4 * concurrency
        self._resting: frozenset[str] = frozenset()

    def note_resting(self, now: datetime) -> None:
        """Note which stores failed and may not be tried yet. Files that were passed over for others are due again."""
        resting = frozenset(name for name, uploader in self._uploaders.items() if uploader.is_closed(now))
        if self._resting - resting:
            self._backlog.mark_stale()
        self._resting = resting

    def has_open_store(self, held: frozenset[str]) -> bool:
        """Whether some store may get a file: it is neither resting nor among ``held``."""
        return bool(self._uploaders.keys() - self._resting - held)

    def jobs(self, system_identifier: int, held: frozenset[str]) -> Iterator[FileJob]:
        """Yield the jobs to begin now; stores in ``held`` get none.

        ``system_identifier`` is the current cluster's, for which a file is taken until it was read. A job counts as
        begun when the next one is asked for.

        Raises: CatalogError.
        """
        shut = self._resting | held
        yield from self._from(self._backlog.postponed, system_identifier, shut)
        yield from self._from(self._backlog.waiting, system_identifier, shut)

    def _from(self, files: FileQueue, system_identifier: int, shut: frozenset[str]) -> Iterator[FileJob]:
        postponed = self._backlog.postponed
        for _ in range(len(files)):
            step = self._judge(files.head, files.recorded(), system_identifier, shut)
            if step is Refusal.NO_ROOM or (step is Refusal.OTHERS_FIRST and files is postponed):
                return
            spooled = files.pop()
            if isinstance(step, FileJob):
                yield step
            elif step is Refusal.OTHERS_FIRST:
                postponed.append(spooled)

    def _judge(
        self, spooled: SpoolFile, recorded: Recorded, system_identifier: int, shut: frozenset[str]
    ) -> FileJob | Refusal:
        needed = self._uploaders.keys() - self._backlog.verified(spooled, recorded, system_identifier)
        usable = needed - shut
        if not usable and (needed or shut):
            return Refusal.ALL_SHUT
        if not needed and self._confirming_alone() >= self._most_confirming:
            return Refusal.OTHERS_FIRST  # a store that is slow to confirm keeps no new file waiting
        admission = self._flow.choose(spooled.size_bytes, usable, self._resting)
        if isinstance(admission, Admitted):
            return FileJob(spooled, recorded, admission.stores, 2 * spooled.size_bytes)
        return Refusal.NO_ROOM if isinstance(admission, Blocked) else Refusal.OTHERS_FIRST

    def _confirming_alone(self) -> int:
        return sum(not job.wanted for job in self._jobs.values())


class JudgedOrder:
    """Holds prepared files until they may be stored behind the files before them, which are judged first.

    On each timeline of a run, the first new segment is proven on a store before any other goes: another server may have
    taken its name, or this one was set back.
    """

    def __init__(self, guard: ContinuityGuard, jobs: Mapping[str, FileJob]) -> None:
        """``jobs`` are those under way, by file name."""
        self._guard = guard
        self._jobs = jobs
        self._parked: list[PreparedJob] = []

    def add(self, job: PreparedJob) -> None:
        """Take a file that was read."""
        self._parked.append(job)

    def judged(self) -> Iterator[tuple[PreparedJob, str | None]]:
        """Yield each file whose turn has come, with the reason why it may not be archived. Raises: CatalogError.

        One that may be archived counts as judged when the next one is asked for.
        """
        while ready := [job for job in self._parked if not self._must_wait(job)]:
            for job in ready:
                self._parked.remove(job)
                reason = None if job.copies else self._guard.judge(job.file)
                yield job, reason
                job.job.is_judged = reason is None

    def _must_wait(self, job: PreparedJob) -> bool:
        before = [self._jobs[name] for name in self._guard.waits_for(job.file) if name in self._jobs]
        is_known = self._guard.is_known(job.file)
        return any(not one.is_judged or not (is_known or one.is_proved) for one in before)
