"""Follows one file through an archiving run, and carries what its threads report."""

from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import datetime

from wal_pipeline.archive.records import Copy, CopyStatus, WalFile
from wal_pipeline.commands.archive_push.backlog import Recorded
from wal_pipeline.commands.archive_push.prepare import Prepared
from wal_pipeline.commands.archive_push.uploader import StoredCopy
from wal_pipeline.errors import CopyConflictError
from wal_pipeline.spool import SpoolFile


@dataclass(slots=True, eq=False)
class FileJob:
    """One file on its way. ``wanted``: the stores that take it this time; ``waiting``: those not done yet.

    ``memory_bytes``: what the file takes in memory, estimated until it ``is_prepared``. ``is_judged``: it may be
    archived; ``is_proved``: a store has a verified copy.
    """

    spooled: SpoolFile
    recorded: Recorded
    wanted: frozenset[str]
    memory_bytes: int
    waiting: set[str] = field(default_factory=set)
    is_prepared: bool = False
    is_judged: bool = False
    is_proved: bool = False

    @property
    def name(self) -> str:
        """The file's name."""
        return self.spooled.name.name


@dataclass(slots=True, eq=False)
class PreparedJob:
    """A job whose file was read and checked. ``copies``: the verified copies by store, recorded or stored now.

    ``confirming``: stores that are asked whether they still have the copy that is recorded. ``proved``: those whose
    copy was stored or confirmed in this run. ``conflict``: a store has other content under that name.
    """

    job: FileJob
    prepared: Prepared
    copies: dict[str, Copy]
    confirming: set[str] = field(default_factory=set)
    proved: set[str] = field(default_factory=set)
    conflict: CopyConflictError | None = None

    @property
    def name(self) -> str:
        """The file's name."""
        return self.job.name

    @property
    def file(self) -> WalFile:
        """The file as it was described when it was prepared."""
        return self.prepared.file

    @property
    def is_done(self) -> bool:
        """Whether no store is to store or to confirm it any more."""
        return not self.job.waiting and not self.confirming

    def drop_bytes(self) -> None:
        """Free the file's bytes: no store takes them any more."""
        self.prepared = replace(self.prepared, encoded=None)
        self.job.memory_bytes = 0

    def copy_on(
        self,
        store: str,
        status: CopyStatus,
        stored: StoredCopy | None,
        *,
        verified_at: datetime | None = None,
        last_error: str | None = None,
    ) -> Copy:
        """Return the record of one more try to store the file."""
        before = self.job.recorded.copies.get(self.file.system_identifier, {}).get(store)
        lag = None if verified_at is None else max(0.0, (verified_at - self.file.spooled_at).total_seconds())
        return Copy(
            name=self.name,
            system_identifier=self.file.system_identifier,
            store=store,
            status=status,
            object_key=stored.object_key if stored else "",
            encoding=stored.encoding if stored else None,
            tries=(before.tries if before else 0) + 1,
            last_error=last_error,
            verified_at=verified_at,
            store_seconds=stored.seconds if stored else None,
            lag_seconds=lag,
        )


@dataclass(frozen=True, slots=True)
class PreparedResult:
    """A file was prepared, or could not be."""

    job: FileJob
    future: "Future[Prepared | None]"


@dataclass(frozen=True, slots=True)
class StoredResult:
    """A store took a file, or failed."""

    job: PreparedJob
    store: str
    future: "Future[StoredCopy]"


@dataclass(frozen=True, slots=True)
class ConfirmedResult:
    """A store said whether it still has a recorded copy, or failed."""

    job: PreparedJob
    store: str
    future: "Future[bool]"


Result = PreparedResult | StoredResult | ConfirmedResult
