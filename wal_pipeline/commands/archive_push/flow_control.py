"""Bounds what an archiving run has in flight and how long it goes on; keeps a slow store from stopping the others."""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Self

from wal_pipeline.commands.archive_push.job import FileJob
from wal_pipeline.commands.archive_push.uploader import StoreUploader

_STARVED_SECONDS = 1.0
_IDLE_SHARE = 0.2  # a store that stands idle for less of the time while others are full does not starve
_LOOK_SECONDS = 0.25
_UNSETTLED_LINGER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class ArchiveOptions:
    """How an archiving run goes about it.

    ``concurrency``: files compressed at once, and uploads at once per store. ``memory_bytes`` bounds what the files
    in flight take. ``linger_seconds``: how long it waits for new files when nothing is left. After ``max_seconds`` of
    work, or ``max_age_seconds`` with the waiting, it takes no new file and ends.
    """

    concurrency: int = 4
    memory_bytes: int = 160 * 2**20
    read_back: bool = True
    linger_seconds: float = 0.0
    max_seconds: float = 900.0
    max_age_seconds: float = 7200.0
    max_backoff_seconds: float = 300.0


@dataclass(frozen=True, slots=True)
class Admitted:
    """The file may begin. ``stores`` take it; none where every store has it and is only asked to confirm."""

    stores: frozenset[str]


@dataclass(frozen=True, slots=True)
class Overtaken:
    """Only stores that are behind lack the file: it waits, and files after it may begin before it."""


@dataclass(frozen=True, slots=True)
class Blocked:
    """No room: the file waits, and so does every file after it."""


Admission = Admitted | Overtaken | Blocked


class RunTime:
    """How long an archiving run goes on.

    It takes files for ``work_seconds`` of work: waiting for files does not count, so that one run serves a cluster that
    finishes a segment every few minutes for ``age_seconds``. A run whose spool is empty waits ``linger_seconds`` for
    the next file; where something is left there, a new run is to look at it soon.
    """

    def __init__(
        self,
        *,
        work_seconds: float,
        age_seconds: float,
        linger_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._work_seconds = work_seconds
        self._age_seconds = age_seconds
        self._linger_seconds = linger_seconds
        self._monotonic = monotonic
        self._begun = self._looked_at = self._idle_since = monotonic()
        self._worked_seconds = 0.0

    @classmethod
    def of(cls, options: ArchiveOptions) -> Self:
        """Return the time of a run that begins now."""
        return cls(
            work_seconds=options.max_seconds,
            age_seconds=options.max_age_seconds,
            linger_seconds=options.linger_seconds,
        )

    def note(self, *, idle: bool) -> None:
        """Note what the run did since the last call."""
        now = self._monotonic()
        if not idle:
            self._worked_seconds += now - self._looked_at
            self._idle_since = now
        self._looked_at = now

    @property
    def is_over(self) -> bool:
        """Whether the run takes no new file any more."""
        return self._worked_seconds >= self._work_seconds or self._monotonic() - self._begun >= self._age_seconds

    def has_lingered(self, *, is_empty: bool) -> bool:
        """Whether the run has waited long enough for a file. ``is_empty``: nothing lies in the spool."""
        seconds = self._linger_seconds if is_empty else min(self._linger_seconds, _UNSETTLED_LINGER_SECONDS)
        return self._monotonic() - self._idle_since >= seconds


class FlowControl:
    """Keeps what is in flight within its bounds, and one store from stopping another.

    Stores go together, so that each file is compressed once. A store that is so slow that another one stands idle is
    **behind**: the others go on alone, and it gets its copies later.
    """

    def __init__(self, uploaders: Mapping[str, StoreUploader], memory_bytes: int) -> None:
        """``memory_bytes`` bounds what the files in flight take, but for one file of an idle store."""
        self._uploaders = uploaders
        self._memory_bytes = memory_bytes
        self._jobs: list[FileJob] = []
        self._starved_seconds = dict.fromkeys(uploaders, 0.0)
        self._looked_at = time.monotonic()
        self.behind: set[str] = set()

    def choose(self, size_bytes: int, usable: Collection[str], resting: Collection[str]) -> Admission:
        """Decide whether a file of that size may begin now, and which of the ``usable`` stores take it."""
        in_use = self._uploaders.keys() - resting
        ready = {store for store in usable if self._has_room(store, alone=len(in_use) == 1)}
        full = frozenset(usable) - ready
        if self._someone_starves(in_use - full, withheld=bool(full)):
            self.behind |= full
        if not full <= self.behind:
            return Blocked()
        if usable and not ready:
            return Overtaken()
        return Admitted(frozenset(ready)) if self._fits(size_bytes, ready) else Blocked()

    def begin(self, job: FileJob) -> None:
        """Count a job with the stores that it ``waiting``s for."""
        self._jobs.append(job)
        for store in job.waiting:
            self._uploaders[store].in_flight += 1

    def done(self, job: FileJob, store: str) -> None:
        """Give a store's place back: the job needs it no more."""
        job.waiting.discard(store)
        uploader = self._uploaders[store]
        uploader.in_flight -= 1
        if uploader.in_flight == 0:
            self.behind.discard(store)

    def end(self, job: FileJob) -> None:
        """Give all places of a job back."""
        for store in tuple(job.waiting):
            self.done(job, store)
        self._jobs.remove(job)

    def _fits(self, size_bytes: int, ready: Collection[str]) -> bool:
        """Whether the file's bytes, as read and as stored, may be held too.

        A store that has nothing to do gets one file in any case: what another one holds must not keep it idle.
        """
        held = sum(job.memory_bytes for job in self._jobs)
        idle = any(self._uploaders[store].in_flight == 0 for store in ready)
        return not self._jobs or idle or held + 2 * size_bytes <= self._memory_bytes

    def _has_room(self, store: str, *, alone: bool) -> bool:
        """Whether a store may take one more; what waits for it alone may fill half of the memory, if others work."""
        if not self._uploaders[store].has_room():
            return False
        held = sum(job.memory_bytes for job in self._jobs if job.waiting == {store} and job.is_prepared)
        return alone or 2 * held < self._memory_bytes

    def _someone_starves(self, stores: Collection[str], *, withheld: bool) -> bool:
        """Count how long stores stand idle while files are withheld from them; whether one did so for too long.

        A store may be fed one file at a time at another one's pace: so it is the share of the time that counts.
        """
        now = time.monotonic()
        seconds = min(now - self._looked_at, _LOOK_SECONDS)
        self._looked_at = now
        for store, starved in self._starved_seconds.items():
            idle = withheld and store in stores and self._uploaders[store].in_flight == 0
            change = (1 - _IDLE_SHARE) * seconds if idle else -_IDLE_SHARE * seconds
            self._starved_seconds[store] = max(0.0, starved + change)
        return withheld and any(self._starved_seconds[store] >= _STARVED_SECONDS for store in stores)
