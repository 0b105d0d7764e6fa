"""Finds out how far each store's recovery window reaches: from the records, the server, and the WAL on this host."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import takewhile
from os import R_OK, access
from pathlib import Path
from typing import Final

from wal_pipeline.archive.recovery.reach import CommitsBeyond, RecoveryReach, WrittenEnd, reach_of
from wal_pipeline.archive.recovery.window import RecoveryWindow
from wal_pipeline.commands.health.windows import CurrentWindows
from wal_pipeline.errors import WalPipelineError
from wal_pipeline.postgres.server_facts import ServerFacts
from wal_pipeline.postgres.waldump import PgWaldump
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import WalFileName, segment_name

Reaches = Mapping[str | None, RecoveryReach]
_MOST_FILES: Final = 64  # segments that wait; the first commit is mostly in the first of them


@dataclass(frozen=True, slots=True)
class ServerLook:
    """The server's answer; ``error`` where it gave none. Both are None where nobody asked."""

    facts: ServerFacts | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class UnarchivedWal:
    """Reads the commits of WAL that is on this host and on no store: in the spool, and in ``pg_wal``.

    ``spool`` and ``pgdata`` are None where this host has none.
    """

    reader: PgWaldump
    spool: Path | None = None
    pgdata: Path | None = None

    def read(
        self, windows: CurrentWindows, window: RecoveryWindow, begin: Lsn, server: ServerFacts | None
    ) -> tuple[CommitsBeyond, str | None]:
        """Return the first commit from ``begin`` on, and why it is not known where it is not.

        ``server`` is the one that writes this WAL, None where it was not asked.
        """
        nothing = CommitsBeyond(None, begin)
        size = next(one.wal_segment_size for one in windows.backups if one.backup_id in window.backup_ids)
        end = None if server is None else server.wal_lsn
        files = dict(self._files(window.timeline, begin, end, size, self._folders(server)))
        if not files:
            return nothing, f"the WAL from {begin} on, which is not archived, is not on this host or cannot be read"
        try:
            found = self.reader.first_commit(files, begin, end, system_identifier=window.system_identifier)
        except (WalPipelineError, OSError) as error:
            return nothing, f"the WAL from {begin} on, which is not archived, cannot be read for commits: {error}"
        return CommitsBeyond(None if found.commit is None else found.commit.at, found.read_to), None

    def _folders(self, server: ServerFacts | None) -> list[Path]:
        data = None if server is None or server.data_directory is None else Path(server.data_directory)
        clusters = [one / "pg_wal" for one in (data, self.pgdata) if one is not None]
        return [*([] if self.spool is None else [self.spool]), *dict.fromkeys(clusters)]

    @staticmethod
    def _files(
        timeline: int, begin: Lsn, end: Lsn | None, size: int, folders: list[Path]
    ) -> Iterator[tuple[WalFileName, Path]]:
        """Yield the segment before that of ``begin``, where it is there, and those from it on without a hole."""

        def places(number: int) -> tuple[WalFileName, Path | None]:
            name = segment_name(timeline, number, size)
            return name, next((path for one in folders if access(path := one / name.name, R_OK)), None)

        first = begin // size
        last = first + _MOST_FILES - 1 if end is None else min(first + _MOST_FILES, (max(end, 1) - 1) // size + 1) - 1
        found = takewhile(lambda one: one[1] is not None, map(places, range(first, last + 1)))
        yield from ((name, path) for name, path in [places(first - 1)] if first and path is not None)
        yield from ((name, path) for name, path in found if path is not None)


def look_at_reaches(
    windows: CurrentWindows, server: ServerLook, unarchived: UnarchivedWal | None, now: datetime
) -> Reaches:
    """Return how far the main window of each store (None: any store) reaches; none where there is no window."""
    read: dict[tuple[int, Lsn], tuple[CommitsBeyond, str | None]] = {}
    found: dict[str | None, RecoveryReach] = {}
    for store in windows.windows:
        window = windows.main(store)
        if window is None:
            continue
        writer, why = _writer(windows, window, server)
        beyond = windows.beyond.get(store, CommitsBeyond(None, window.latest_lsn))
        if beyond.first_commit_at is None and not _all_read(beyond, writer) and unarchived is not None:
            key = window.timeline, beyond.read_to
            if key not in read:
                read[key] = unarchived.read(windows, window, beyond.read_to, writer)
            beyond, not_read = read[key]
            why = why or not_read
        if writer is not None and _all_read(beyond, writer):
            beyond = replace(beyond, read_to=max(beyond.read_to, writer.wal_lsn))
        end = None if writer is None else WrittenEnd(writer.wal_lsn, writer.server_at)
        reach = reach_of(window, beyond, end, now, unknown=why)
        is_other = writer is None and server.facts is not None and not server.facts.in_recovery
        found[store] = replace(reach, rpo_seconds=None, rpo_is_bound=False) if is_other and reach.is_at_least else reach
    return found


def _all_read(beyond: CommitsBeyond, writer: ServerFacts | None) -> bool:
    """Whether it is known that the server has written no commit beyond."""
    if writer is None or beyond.first_commit_at is not None:
        return False
    is_idle = writer.idle_since_lsn is not None and writer.idle_since_lsn <= beyond.read_to
    return is_idle or writer.wal_lsn <= beyond.read_to


def _writer(
    windows: CurrentWindows, window: RecoveryWindow, server: ServerLook
) -> tuple[ServerFacts | None, str | None]:
    """Return the server where it is the one whose WAL continues the window, else the reason why it is not."""
    facts = server.facts
    if facts is None:
        return None, "PostgreSQL did not answer" if server.error is not None else "PostgreSQL was not asked"
    if facts.system_identifier != windows.system_identifier:
        return None, f"the server that answers is another cluster, with system identifier {facts.system_identifier}"
    if facts.in_recovery:
        return None, "the server that answers is a standby, and its primary was not asked"
    if facts.timeline != window.timeline:
        return None, f"the server writes timeline {facts.timeline}, and this window follows timeline {window.timeline}"
    return facts, None
