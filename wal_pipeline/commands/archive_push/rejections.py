"""Leaves a file that cannot be archived in the spool, or moves it to quarantine."""

import logging
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

from wal_pipeline.archive.records import WalFile
from wal_pipeline.commands.archive_push.backlog import Backlog
from wal_pipeline.commands.archive_push.events import ArchiveEvent, FileQuarantined, FileSkipped, QuarantineReason
from wal_pipeline.commands.archive_push.prepare import UnknownClusterError
from wal_pipeline.commands.archive_push.skipped_files import SkippedFiles
from wal_pipeline.commands.cluster_identity import ClusterIdentity
from wal_pipeline.errors import BeingWrittenError, InvalidWalFileError, MemoryShortError, SpoolError
from wal_pipeline.spool import Spool, SpoolFile
from wal_pipeline.wal.names import WalFileName
from wal_pipeline.wal.page_header import InvalidSegmentError, SegmentFault

_WRITER_SECONDS: Final = 15.0
_MEMORY_SECONDS: Final = 5.0
_log = logging.getLogger(__name__)


class Rejections:
    """Decides about the files of one run that are not archived. It removes none."""

    def __init__(
        self,
        spool: Spool,
        identity: ClusterIdentity,
        backlog: Backlog,
        skipped: SkippedFiles,
        clock: Callable[[], datetime],
        *,
        forget_tries: Callable[[str], None],
        on_other_content: Callable[[WalFileName, Path], None] = lambda _name, _path: None,
    ) -> None:
        """``forget_tries`` is called with the name of each file in quarantine: no copy of it is missing.

        ``on_other_content`` is called with each of which the archive holds other content.
        """
        self._on_other_content = on_other_content
        self._forget_tries = forget_tries
        self._spool = spool
        self._identity = identity
        self._backlog = backlog
        self._skipped = skipped
        self._clock = clock

    def refuse(self, spooled: SpoolFile, error: InvalidWalFileError) -> Iterator[ArchiveEvent]:
        """Quarantine what can never be archived; leave what may still be growing or may be accepted after all."""
        fault = error.fault if isinstance(error, InvalidSegmentError) else None
        if isinstance(error, UnknownClusterError) or fault is SegmentFault.WRONG_CLUSTER:
            before = self._identity.accepted
            self._identity.look_again()
            if self._identity.accepted != before:
                self._backlog.mark_stale()
                return
            if self._identity.contradiction is not None or isinstance(error, UnknownClusterError):
                yield self.leave(spooled, self._contradicted(error), needs_help=True)
            elif self._identity.is_sure:
                yield self.quarantine(spooled, QuarantineReason.WRONG_CLUSTER, error.message)
            else:  # after pg_upgrade it may be the new cluster's, whose server is not up yet
                message = f"{error.message}; the server does not answer, and may have a new one"
                yield self.leave(spooled, message, needs_help=True)
        elif not spooled.settled:
            yield self.leave(spooled, error.message)
        else:
            whole = fault not in (SegmentFault.TOO_SHORT, SegmentFault.NOT_A_WAL_PAGE)
            reason = QuarantineReason.NOT_VALID if whole else QuarantineReason.NOT_WHOLE
            yield self.quarantine(spooled, reason, error.message)

    def _contradicted(self, error: InvalidWalFileError) -> str:
        said = self._identity.contradiction or "the server is not asked now"
        return f"{error.message}; {said}: remove the setting, or set it to the server's"

    def quarantine(self, spooled: SpoolFile, reason: QuarantineReason, message: str) -> FileQuarantined | FileSkipped:
        """Move a file to quarantine; it stays where it changed meanwhile, or cannot be moved."""
        try:
            path = self._spool.quarantine(spooled, self._clock())
        except BeingWrittenError as error:
            return self.being_written(spooled, error)
        except SpoolError as error:
            return self.leave(spooled, f"{message}; {error.message}", needs_help=True)
        if path is None:
            self._backlog.mark_stale()
            return FileSkipped(spooled.name.name, f"{message}; it has changed since, and is looked at again")
        self._forget_tries(spooled.name.name)
        if reason is QuarantineReason.OTHER_CONTENT:
            self._on_other_content(spooled.name, path)
        return FileQuarantined(spooled.name.name, reason, message, path)

    def unreadable(self, spooled: SpoolFile, error: Exception) -> FileSkipped:
        """Leave a file that could not be read or prepared, whatever the reason."""
        if isinstance(error, BeingWrittenError):
            return self.being_written(spooled, error)
        if isinstance(error, MemoryShortError) and error.may_pass:
            self._backlog.leave(spooled, _MEMORY_SECONDS)
            return self.put_off(spooled, error.message)
        if isinstance(error, SpoolError):
            return self.leave(spooled, error.message, needs_help=True)
        _log.error("cannot prepare '%s'", spooled.name.name, exc_info=error)
        return self.leave(spooled, f"unexpected {type(error).__name__}: {error}", needs_help=True)

    def being_written(self, spooled: SpoolFile, error: BeingWrittenError) -> FileSkipped:
        """Leave a file to its writer for a while: that it is closed cannot be seen from outside."""
        self._backlog.leave(spooled, _WRITER_SECONDS)
        return self.put_off(spooled, error.message)

    def leave(self, spooled: SpoolFile, message: str, *, needs_help: bool = False) -> FileSkipped:
        """Pass a file over in this run until it has changed or settled."""
        self._backlog.leave(spooled)
        return self.put_off(spooled, message, needs_help=needs_help)

    def put_off(self, spooled: SpoolFile, message: str, *, needs_help: bool = False) -> FileSkipped:
        """Note why a file waits, without passing it over: the next listing of the spool looks at it again."""
        self._skipped.add(spooled, message, needs_help=needs_help)
        return FileSkipped(spooled.name.name, message, needs_help)


def other_content(recorded: WalFile, found: WalFile) -> str:
    """Say that a file has other content than the archive holds under its name."""
    return (
        f"'{found.name}' has content with SHA-256 {found.sha256}, "
        f"the archive holds it with {recorded.sha256}: a copy is never overwritten"
    )
