"""Defines every error that this program raises on purpose, each with its message and a hint."""

import errno
from typing import Final

READ_ONLY_HINT: Final = (
    "The file system is mounted read-only for this process. In a systemd unit the folder must stand in ReadWritePaths: "
    "'wal-pipeline setup --print-systemd' prints the lines. Else mount it for writing."
)
_FULL: Final = "The disk is full, or this user's quota of it: make room there."
_CAUSES: Final = {
    errno.EROFS: READ_ONLY_HINT,
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EIO: "The disk, or the network file system, fails: look into the kernel's log (dmesg).",
    errno.ESTALE: "The network file system was replaced under this mount: mount it again.",
}


def cause_hint(error: OSError) -> str | None:
    """Say what to do where no owner and no mode is wrong: a read-only file system, a full disk, a failing one."""
    return _CAUSES.get(error.errno or 0)


class WalPipelineError(Exception):
    """The base of all our errors.

    The message is lower case, without a full stop, with names in quotes, and gives the found and the expected value.
    ``hint`` is one sentence: what a person can do now. ``is_refusal``: something was asked for that cannot be done,
    and nothing was changed.
    """

    is_refusal = False

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\nHINT: {self.hint}"


class SettingsError(WalPipelineError):
    """A setting is missing, misspelt or has a value that cannot be used."""

    is_refusal = True


class InvalidWalNameError(WalPipelineError):
    """A name is not one that PostgreSQL gives to a file of the WAL archive."""


class InvalidWalFileError(WalPipelineError):
    """A file's content is not that of the file that its name says (half a file, another cluster's)."""


class SpoolError(WalPipelineError):
    """The spool cannot be read or written."""


class SpoolBusyError(SpoolError):
    """Another process of ours is archiving from this spool."""

    is_refusal = True


class BeingWrittenError(SpoolError):
    """A process has the file open for writing, so the file must wait until it is closed."""


class MemoryShortError(SpoolError):
    """A file needs more memory than there is. ``may_pass``: it would fit if others used less."""

    def __init__(self, message: str, *, hint: str | None = None, may_pass: bool) -> None:
        super().__init__(message, hint=hint)
        self.may_pass = may_pass


class ShippingError(WalPipelineError):
    """The open segment cannot be shipped."""


class ShipperBusyError(ShippingError):
    """Another process of ours ships the same cluster's WAL."""

    is_refusal = True


class PausedError(WalPipelineError):
    """Archiving is paused."""

    is_refusal = True


class StoreError(WalPipelineError):
    """A store refused or failed; ``store`` is its name. The message begins with it."""

    def __init__(self, store: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(f"{store}: {message}", hint=hint)
        self.store = store


class StoreUnavailableError(StoreError):
    """The store did not answer, or answered that it cannot do it now; the same call may succeed later."""

    may_pass = True


class StoreTooSlowError(StoreUnavailableError):
    """Our own time limit for an upload passed: the line is slow, or carries too many uploads at once."""


class StoreAccessError(StoreError):
    """The store refused the credentials, or the credentials do not allow the call."""


class BucketMissingError(StoreError):
    """The bucket does not exist."""


class ObjectMissingError(StoreError):
    """The object does not exist: the store answered, and has no such key."""


class ObjectLockedError(StoreError):
    """The object may not be deleted: the bucket's retention rules hold it."""


class DamagedCopyError(StoreError):
    """The stored bytes differ from those that were sent or recorded."""


class CopyConflictError(StoreError):
    """The store has a copy with that name and other content. A copy is never overwritten."""


class CodecError(WalPipelineError):
    """Bytes cannot be compressed or opened: damaged, too large when opened, or no identity to decrypt with."""


class CatalogError(WalPipelineError):
    """The catalog cannot be reached, or is of another version."""


class CatalogFullError(CatalogError):
    """The catalog cannot be written because its disk is full."""


class PostgresError(WalPipelineError):
    """PostgreSQL or one of its programs failed or could not be found."""


class SegmentGoneError(PostgresError):
    """A segment is not in pg_wal any more: it is archived and removed or recycled, or its timeline was left."""


class RecoveryTargetError(WalPipelineError):
    """The recovery target cannot be reached with the base backups and WAL on the stores."""

    is_refusal = True


class RestoreError(WalPipelineError):
    """A restore cannot begin or continue."""


class BaseBackupError(WalPipelineError):
    """A base backup failed or is not restorable."""


class ParentError(BaseBackupError):
    """A base backup that was asked for cannot be the parent of an incremental one."""

    is_refusal = True


class LaterFormatError(BaseBackupError):
    """A base backup's manifest was written by a newer version of this program."""


class BaseBackupRunningError(BaseBackupError):
    """Another process is taking a base backup of the same cluster, or storing the same one."""

    is_refusal = True


class RelationListError(WalPipelineError):
    """A list of the cluster's relations cannot be made or read."""


class RetentionError(WalPipelineError):
    """Expiry would leave a store with fewer restorable base backups than the rules keep."""
