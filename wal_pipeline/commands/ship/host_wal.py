"""Reads the WAL that is not archived yet in ``pg_wal``, on the database's host."""

import os
import time
from pathlib import Path
from typing import Final

from wal_pipeline.commands.ship.source import OpenWal
from wal_pipeline.errors import PostgresError, SegmentGoneError
from wal_pipeline.postgres.control_file import ClusterState, ControlFile, read_control_file
from wal_pipeline.postgres.flushed_wal import ControlMark, FlushedWal, FlushWatch
from wal_pipeline.postgres.open_segment import PaddingError, SegmentBytes, cannot_read, read_segment_bytes
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import WalFileName, history_name
from wal_pipeline.wal.timeline import InvalidTimelineHistoryError, TimelineHistory

_TRIES: Final = 20  # of a control file that the server may be writing at each look
_SWITCH_SECONDS: Final = 2.0
_POLL_SECONDS: Final = 0.05
_ELSEWHERE_HINT: Final = (
    "Set PGDATA to the data directory as this host sees it (a container's own path differs). Where the server runs on "
    "another host, set WAL_PIPELINE_SHIP_FROM to pg_receivewal."
)


class HostWal(OpenWal):
    """The ``pg_wal`` of a server on this host."""

    def __init__(self, watch: FlushWatch, pgdata: Path | None) -> None:
        """``pgdata`` is the data directory by the settings; None: where the server says that it is."""
        self._watch = watch
        self._configured = pgdata
        self._proven_connection = 0

    def look(self) -> FlushedWal:
        """Return what the server has flushed. On a new connection the folder is proven to be that server's."""
        seen = self._watch.look()
        if self._watch.connections != self._proven_connection:
            self._prove(seen)
            self._proven_connection = self._watch.connections
        return seen

    def read(self, segment: WalFileName, from_offset: int, to_offset: int, seen: FlushedWal) -> bytes:
        """Read from the segment's file."""
        end = Lsn(segment.start_lsn(seen.wal_segment_size) + to_offset)
        self._require_flushed(segment, end, seen)
        try:
            return self._read(segment, from_offset, to_offset, seen)
        except PaddingError:
            deadline = time.monotonic() + _SWITCH_SECONDS
            while not _is_finished(segment, seen := self._watch.look()):  # a switch that has written half of its zeros
                if time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_SECONDS)
        return self._read(segment, from_offset, to_offset, seen)

    def _read(self, segment: WalFileName, from_offset: int, to_offset: int, seen: FlushedWal) -> bytes:
        return read_segment_bytes(
            self._folder / segment.name,
            SegmentBytes(segment, from_offset, to_offset, _is_finished(segment, seen)),
            system_identifier=seen.system_identifier,
            wal_segment_size=seen.wal_segment_size,
        )

    def history(self, timeline: int) -> TimelineHistory | None:
        """Read the history file in ``pg_wal``, which PostgreSQL keeps."""
        return read_history(self._folder / history_name(timeline).name, timeline)

    def close(self) -> None:
        """Close the connection."""
        self._watch.close()

    @property
    def pgdata(self) -> Path:
        """The data directory, as this host sees it. Raises: PostgresError where nobody says where it is."""
        found = self._configured or self._watch.server.data_directory
        if found is None:
            raise PostgresError(
                "the server does not say where its data directory is",
                hint="Set PGDATA to it, or grant pg_read_all_settings to the role.",
            )
        return found

    @property
    def _folder(self) -> Path:
        return self.pgdata / "pg_wal"

    def _require_flushed(self, segment: WalFileName, end: Lsn, seen: FlushedWal) -> None:
        """Refuse what the server has not flushed, or what is no part of its history."""
        last = seen.lsn if segment.timeline == seen.timeline else self._left_at(segment.timeline, seen.timeline)
        if last is None or (end > last and segment.timeline != seen.timeline):
            raise SegmentGoneError(
                f"'{segment.name}' up to {end} is no part of timeline {seen.timeline}",
                hint="The server was promoted: its new timeline has the bytes that count.",
            )
        if end > last:
            raise ValueError(f"{end} is asked for, and {last} is flushed")

    def _left_at(self, timeline: int, present: int) -> Lsn | None:
        """Return where the path to the present timeline left another one; None where it never was on it."""
        history = self.history(present)
        if history is None:
            return None
        return next((switch.lsn for switch in history.switches if switch.parent == timeline), None)

    def _prove(self, seen: FlushedWal) -> None:
        """Refuse a data directory that is not the one of the server that was asked. Raises: PostgresError."""
        pgdata = self.pgdata
        self._require_folder(pgdata)
        for _ in range(_TRIES):
            before = read_control_file(pgdata)
            self._require_cluster(before, seen)
            mark = self._watch.control_mark()
            if any(_is_of(mark, control) for control in (before, read_control_file(pgdata))):
                return
        raise PostgresError(
            f"'{pgdata}' is not the data directory of the server that was asked: its control file was written at "
            f"another moment ({before.written_epoch}, the server's {mark.written_epoch})",
            hint="It is a standby's, a copy's or a stopped server's of the same cluster. " + _ELSEWHERE_HINT,
        )

    def _require_folder(self, pgdata: Path) -> None:
        folder = pgdata / "pg_wal"
        try:
            if not pgdata.is_dir():
                raise PostgresError(f"the data directory '{pgdata}' is not on this host", hint=_ELSEWHERE_HINT)
            os.scandir(folder).close()
        except FileNotFoundError as error:
            target = f", a link to '{folder.readlink()}', which" if folder.is_symlink() else ""
            raise PostgresError(f"'{folder}'{target} is not on this host", hint=_ELSEWHERE_HINT) from error
        except OSError as error:
            raise cannot_read(folder, error) from error

    def _require_cluster(self, control: ControlFile, seen: FlushedWal) -> None:
        if control.system_identifier != seen.system_identifier:
            raise PostgresError(
                f"'{self.pgdata}' is of the cluster with system identifier {control.system_identifier}, the server's "
                f"is {seen.system_identifier}",
                hint="PGDATA and WAL_PIPELINE_CONNINFO must name the same server.",
            )


def read_history(path: Path, timeline: int) -> TimelineHistory | None:
    """Read a history file; None where there is none. Raises: PostgresError where it cannot be read."""
    try:
        return TimelineHistory.parse(timeline, path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise cannot_read(path, error) from error
    except InvalidTimelineHistoryError as error:
        raise PostgresError(error.message, hint=error.hint) from error


def _is_finished(segment: WalFileName, seen: FlushedWal) -> bool:
    return segment.end_lsn(seen.wal_segment_size) <= seen.lsn


def _is_of(mark: ControlMark, control: ControlFile) -> bool:
    in_recovery = control.state in (ClusterState.IN_ARCHIVE_RECOVERY, ClusterState.IN_CRASH_RECOVERY)
    return (mark.written_epoch, mark.checkpoint_lsn, mark.is_standby) == (
        control.written_epoch,
        control.checkpoint_lsn,
        in_recovery,
    )
