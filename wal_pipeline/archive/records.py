"""Defines the archive's records as plain values: files, copies and base backups."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from wal_pipeline.wal.joint import SegmentJoints
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import FileKind


class Codec(StrEnum):
    """How an object's bytes are compressed. The value is the setting's word."""

    GZIP = "gzip"
    ZSTD = "zstd"
    LZ4 = "lz4"
    NONE = "none"

    @property
    def suffix(self) -> str:
        """The codec's ending for a file's name; the codec's standard tool opens such a file."""
        return {"gzip": ".gz", "zstd": ".zst", "lz4": ".lz4", "none": ""}[self.value]


class CopyStatus(StrEnum):
    """The state of one file's copy on one store."""

    PENDING = "pending"  # not there yet, or not yet verified
    VERIFIED = "verified"  # there, and its stored bytes were read back and compared
    FAILED = "failed"  # the last try failed; ``last_error`` says why, and it is tried again
    MISSING = "missing"  # was verified once, and is not there any more
    DAMAGED = "damaged"  # there, but with other bytes than were stored


class CommitTimes(StrEnum):
    """Whether a segment's commit times are known."""

    KNOWN = "known"  # read by pg_waldump; both times None: the segment holds no commit
    UNKNOWN = "unknown"  # pg_waldump could not be run, or could not read the segment
    NONE = "none"  # not a segment


@dataclass(frozen=True, slots=True)
class WalFile:
    """One file of the WAL archive, by its content.

    ``sha256`` (64 hex digits) and ``size_bytes`` are of the file as PostgreSQL wrote it. ``wal_segment_size`` in
    bytes, ``server_major`` (such as 18), ``start_lsn`` and ``end_lsn`` (exclusive) are None for files without
    WAL pages (``.history``, ``.backup``). ``spooled_at`` is when the file came into the spool.
    ``first_commit_at``/``last_commit_at`` are the commit times in it, where ``commit_times`` is KNOWN. ``joints`` say
    what it continues; its content decides them, the catalog keeps none, and objects of earlier versions have none.
    """

    name: str
    kind: FileKind
    system_identifier: int
    timeline: int
    size_bytes: int
    sha256: str
    spooled_at: datetime
    wal_segment_size: int | None = None
    server_major: int | None = None
    start_lsn: Lsn | None = None
    end_lsn: Lsn | None = None
    commit_times: CommitTimes = CommitTimes.NONE
    first_commit_at: datetime | None = None
    last_commit_at: datetime | None = None
    joints: SegmentJoints | None = field(default=None, compare=False)

    @property
    def is_unread(self) -> bool:
        """Whether it is a segment of a version that is not known, or encrypted: its digest alone says what it is."""
        return self.server_major is None and self.kind in (FileKind.SEGMENT, FileKind.PARTIAL)


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a file's bytes were compressed and encrypted before they were stored.

    ``size_bytes``, ``sha256`` (hex) and ``md5`` (hex) are of the stored bytes; ``seconds`` is compression's wall time.
    """

    codec: Codec
    encrypted: bool
    size_bytes: int
    sha256: str
    md5: str
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Copy:
    """One file on one store. ``store_seconds``: put and read-back. ``lag_seconds``: spooled to verified."""

    name: str
    system_identifier: int
    store: str
    status: CopyStatus
    object_key: str
    encoding: Encoding | None
    tries: int = 0
    last_error: str | None = None
    verified_at: datetime | None = None
    store_seconds: float | None = None
    lag_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class KnownCopy:
    """A ``Copy`` in short, for looking at all copies. ``size_bytes`` as stored; None where it was never stored."""

    status: CopyStatus
    size_bytes: int | None
    verified_at: datetime | None


class BackupKind(StrEnum):
    """Whether a base backup stands alone or needs its parent."""

    FULL = "full"
    INCREMENTAL = "incremental"


class BackupMethod(StrEnum):
    """How a base backup was read. The value is the setting's word."""

    LOCAL = "local"  # by workers of this program, which read the files of the data directory
    REMOTE = "remote"  # by pg_basebackup, over a connection


class MethodChoice(StrEnum):
    """The method that is asked for. The value is the setting's word."""

    AUTO = "auto"  # local where the data directory is proven to be the server's own, else remote
    LOCAL = "local"
    REMOTE = "remote"


class FileComparison(StrEnum):
    """The proof, beside size and time, that a file did not change since the parent of an incremental base backup."""

    CONTENT = "content"  # it is read: its checksum is the same, and no page in it is newer or damaged
    TIME = "time"  # nothing: it is not read


@dataclass(frozen=True, slots=True)
class DamagedPages:
    """The pages of one file whose checksums were wrong when a base backup was taken.

    ``blocks`` are those that the server named, which it does for the first five of a file; ``total`` counts all.
    """

    file: str
    blocks: tuple[int, ...]
    total: int

    def __str__(self) -> str:
        if not self.blocks:
            return f"'{self.file}'"
        word = "block" if len(self.blocks) == 1 else "blocks"
        more = f" and {self.total - len(self.blocks)} more" if self.total > len(self.blocks) else ""
        return f"'{self.file}' {word} {', '.join(map(str, self.blocks))}{more}"


@dataclass(frozen=True, slots=True)
class BaseBackup:
    """One base backup, as its manifest object records it.

    ``backup_id`` sorts by start time (``20261122T174500Z-<first segment's name>``). ``parent_id`` names the base backup
    that an incremental one is built on. ``start_lsn`` is where replay begins, ``stop_lsn`` the first LSN at
    which it is consistent; ``finished_at`` the server's time of the stop. ``server_version`` as in
    ``server_version_num`` (180006). ``size_bytes``: as read from the server, ``stored_size_bytes``: as stored.
    ``warnings`` are what PostgreSQL's programs and server said of it though it ended well. ``damaged_pages`` had wrong
    checksums: such a base backup is kept, and older ones stay until there is a good one.
    ``note`` is a person's word, kept with it. ``fetched_size_bytes`` is what a restore of this one alone downloads,
    with the volumes of earlier ones that it names; None: a restore combines it with its parent.
    """

    backup_id: str
    kind: BackupKind
    parent_id: str | None
    system_identifier: int
    timeline: int
    start_lsn: Lsn
    stop_lsn: Lsn
    started_at: datetime
    finished_at: datetime
    wal_segment_size: int
    server_version: int
    label: str
    size_bytes: int
    stored_size_bytes: int
    warnings: tuple[str, ...] = ()
    damaged_pages: tuple[DamagedPages, ...] = ()
    note: str = ""
    fetched_size_bytes: int | None = None

    @property
    def title(self) -> str:
        """Its id, with the note where there is one."""
        return f"{self.backup_id} ({self.note})" if self.note else self.backup_id

    @property
    def method(self) -> BackupMethod:
        """How it was read: one of the method ``local`` alone knows what a restore of it downloads."""
        return BackupMethod.REMOTE if self.fetched_size_bytes is None else BackupMethod.LOCAL

    @property
    def is_damaged(self) -> bool:
        """Whether pages of the cluster were damaged when it was taken."""
        return bool(self.damaged_pages)
