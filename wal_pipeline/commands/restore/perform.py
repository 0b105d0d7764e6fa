"""Brings a planned restore's files back and hands the cluster to PostgreSQL's recovery."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from wal_pipeline.archive.recovery.restore_plan import RestorePlan
from wal_pipeline.archive.recovery.target import RecoveryTarget, TargetKind
from wal_pipeline.commands.archive_get.prefetch_folder import PrefetchFolder
from wal_pipeline.commands.archive_get.restore_command import shell_line
from wal_pipeline.commands.archive_get.tail_wal import limits_of
from wal_pipeline.commands.restore.chosen.databases import replay_settings
from wal_pipeline.commands.restore.chosen.finish import FinishedDatabases
from wal_pipeline.commands.restore.files.fetch import DownloadFault
from wal_pipeline.commands.restore.files.placing import FilePlacing, PlacingEvents
from wal_pipeline.commands.restore.folders import check_folders
from wal_pipeline.commands.restore.place import (
    begin_keeping,
    make_owned,
    own,
    verify_files,
    write_tablespace_map,
)
from wal_pipeline.commands.restore.places.configuration import write_configuration
from wal_pipeline.commands.restore.places.disk_flush import DiskFlush
from wal_pipeline.commands.restore.places.wal_folder import PG_WAL
from wal_pipeline.commands.restore.places.workspace import Workspace, empty, may_keep, remove_tree, workspace
from wal_pipeline.commands.restore.prepare import PreparedRestore, require_answers
from wal_pipeline.commands.restore.standby.settings import fit_for_standby, following_settings
from wal_pipeline.commands.restore.standby.wal_only import point_to_stores
from wal_pipeline.commands.restore.start import RecoveryResult
from wal_pipeline.commands.restore.untar import hold_back_pg_control, release_pg_control
from wal_pipeline.errors import RestoreError
from wal_pipeline.postgres.isolation import copy_settings, own_access_files, told_apart, worker_settings
from wal_pipeline.postgres.own_folder import keep_own_folder
from wal_pipeline.postgres.recovery import RecoverySettings, TargetAction, bounded_command, write_recovery_settings
from wal_pipeline.postgres.replay_progress import RecoveryProgress
from wal_pipeline.wal.lsn import Lsn


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """The files of a restore are in place. ``seconds`` by phase: plan, download, combine, verify, finish.

    ``predicted_seconds`` is what had been predicted for all that was done, ``took_seconds`` what it took; None where it
    was not known.
    ``mended`` says what had to be changed in the restored configuration, for a person. ``warnings`` are those of
    pg_combinebackup and pg_verifybackup. ``databases`` says what became of those that were not asked for, where the
    server was started. ``kept_bytes`` are those of files, and of parts of files, that were right already.
    """

    pgdata: Path
    backup_ids: tuple[str, ...]
    timeline: int
    downloaded_bytes: int
    seconds: Mapping[str, float]
    faults: tuple[DownloadFault, ...]
    mended: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    databases: FinishedDatabases | None = None
    kept_bytes: int = 0
    predicted_seconds: float | None = None
    took_seconds: float | None = None


class RestoreEvents:
    """Receives the progress of a restore. Each method does nothing: override those that matter."""

    def planned(self, prepared: PreparedRestore) -> None:
        """The plan is made and checked, and nothing is written yet."""

    def writing(self) -> None:
        """Nothing stands against the restore any more, and the first folder is about to be changed."""

    def phase(self, name: str) -> None:
        """A phase begins."""

    def will_fetch(self, count: int) -> None:
        """So many bytes are to be downloaded: fewer than was planned, where what is right in the folders stays."""

    def bytes_came(self, count: int) -> None:
        """Bytes were downloaded, in any thread. ``count`` is negative where a download starts over."""

    def fault(self, fault: DownloadFault) -> None:
        """A copy was passed over, and another store is tried."""

    def starting(self, prepared: PreparedRestore) -> None:
        """The server is about to be started."""

    def recovering(self, progress: RecoveryProgress) -> None:
        """The started server went on with its recovery."""

    def ended(self, prepared: PreparedRestore, result: RestoreResult, recovery: RecoveryResult | None) -> None:
        """The files are in place; ``recovery`` is None where the server was not started."""


@dataclass(frozen=True, slots=True)
class RestoreCommand:
    """The ``restore_command`` of a restored server.

    ``program`` is the call that fetches one file, ``prefetched`` the folder of files that are fetched ahead, ``client``
    the script that asks for one in that folder (default: ``prefetch_client``). No segment after ``last_segment`` is
    delivered.
    """

    program: tuple[str, ...]
    prefetched: PrefetchFolder | None = None
    last_segment: str | None = None
    client: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """The line for ``sh``."""
        line = shell_line(self.program, None if self.prefetched is None else self.prefetched.path, self.client)
        return line if self.last_segment is None else bounded_command(line, self.last_segment)

    def with_pieces(self, plan: RestorePlan) -> "RestoreCommand":
        """Return the command that also gets the pieces that a plan counts on; a drill's asks a process that does.

        A standby's plan counts on none (docs/adr/0011).
        """
        return replace(self, program=(*self.program, *limits_of(plan).words())) if self.program else self


def perform_restore(
    prepared: PreparedRestore, command: RestoreCommand, events: RestoreEvents | None = None
) -> RestoreResult:
    """Bring the files back, write the recovery settings and make the prefetch folder; the server is not started.

    Until everything is in place and verified, ``global/pg_control`` has another name, so that nothing can start there.
    The prefetch folder belongs to the server's user, who runs the ``restore_command``.

    Raises: RestoreError, also where a store did not answer, CodecError, StoreError, PostgresError.
    """
    require_answers(prepared)
    if prepared.request.wal_only:
        mended = point_to_stores(prepared, recovery_settings(prepared, command.with_pieces(prepared.plan).line))
        pgdata, seconds = prepared.request.pgdata.absolute(), {"plan": prepared.plan_seconds}
        return _with_prefetched(
            RestoreResult(pgdata, (), prepared.plan.timeline, 0, seconds, (), mended), prepared, command
        )
    result = _Placement(prepared, command.with_pieces(prepared.plan).line, events or RestoreEvents()).run()
    return _with_prefetched(result, prepared, command)


def _with_prefetched(result: RestoreResult, prepared: PreparedRestore, command: RestoreCommand) -> RestoreResult:
    if command.prefetched is not None:
        make_owned(command.prefetched.path, prepared.user)
    return result


class _Placement:
    """The files of one restore on their way into the data directory and the tablespaces."""

    def __init__(self, prepared: PreparedRestore, restore_command: str, events: RestoreEvents) -> None:
        self._prepared = prepared
        self._restore_command = restore_command
        self._events = events
        self._pgdata = prepared.request.pgdata.absolute()
        self._seconds = {"plan": prepared.plan_seconds}
        self._faults: list[DownloadFault] = []
        self._mended: tuple[str, ...] = ()
        self._bytes = 0
        self._keeps = False
        self._lock = threading.Lock()

    def run(self) -> RestoreResult:
        with workspace(self._pgdata, self._prepared.request.work_dir) as work:
            return self._place(work)

    def _place(self, work: Workspace) -> RestoreResult:
        """Fill the folders. What is there when that fails keeps its mark, so that the next restore may remove it."""
        chain = self._prepared.chain
        try:
            with self._make_folders(work) as flush:
                events = PlacingEvents(self._phase, self._events.will_fetch, self._came, self._fault)
                placing = FilePlacing(self._prepared, work.staging, self._keeps, events)
                placing.run()
                self._finish(work, placing, flush)
        finally:
            remove_tree(work.staging)
        return RestoreResult(
            self._pgdata,
            tuple(one.backup_id for one in chain),
            self._prepared.plan.timeline,
            self._bytes,
            self._seconds,
            tuple(self._faults),
            self._mended,
            tuple(placing.warnings),
            kept_bytes=placing.kept_bytes,
        )

    def _make_folders(self, work: Workspace) -> DiskFlush:
        """Mark the folders, and empty those that may be emptied; make the link to the WAL where it has its own disk.

        Their content may have changed since the plan, so they are checked again. Where what is right in them stays,
        they are emptied of the rest later, and only the WAL and all links go now; nothing can be started from here on.
        Return what waits for the disk: opened before anything is written.

        Raises: RestoreError where a folder may not be emptied, or holds something that the plan did not see.
        """
        request, wal = self._prepared.request, self._prepared.wal_folder
        own = self._prepared.layout.system_identifier if request.delta else None
        emptied = check_folders(self._pgdata, self._prepared.moves, force=request.force, left=work.was_left, own=own)
        unplanned = [folder for folder in emptied if folder not in self._prepared.emptied]
        if unplanned:
            raise RestoreError(f"'{unplanned[0]}' was empty when the restore was planned and is not any more")
        self._keeps = self._prepared.is_single and bool(emptied) and may_keep(self._pgdata, delta=request.delta)
        try:
            work.begin(self._prepared.filled_elsewhere)
            if self._keeps:
                begin_keeping(self._pgdata)
            for folder in (
                *(() if self._keeps else emptied),
                *([wal.folder] if wal is not None and wal.emptied else []),
            ):
                empty(folder)
            if wal is not None:
                (self._pgdata / PG_WAL).symlink_to(wal.folder)
            return DiskFlush([self._pgdata, *self._prepared.filled_elsewhere])
        except OSError as error:
            raise RestoreError(f"'{error.filename}' cannot be made, emptied or opened: {error.strerror}") from error

    def _finish(self, work: Workspace, placing: FilePlacing, flush: DiskFlush) -> None:
        """Prove the files, and give the cluster what its recovery needs. Only then a server can start there.

        All of it is on the disk before: the server itself flushes only what it writes from then on.
        """
        request, prepared = self._prepared.request, self._prepared
        remove_tree(work.staging)
        if request.verify:
            with self._phase("verify"), _meanwhile(lambda: _flush_all(flush, work)):
                placing.warnings += verify_files(
                    request,
                    prepared.binaries,
                    self._pgdata,
                    prepared.moves,
                    ignored=placing.left_out_folders,
                    proven=placing.proven,
                )
        with self._phase("finish"):
            write_tablespace_map(self._pgdata, prepared.moves)
            write_configuration(prepared.configuration, self._pgdata)
            write_recovery_settings(self._pgdata, recovery_settings(prepared, self._restore_command))
            own([self._pgdata, *self._prepared.filled_elsewhere], prepared.user)
            self._mended = keep_own_folder(self._pgdata, prepared.binaries, prepared.user)
            _flush_all(flush, work)
            release_pg_control(self._pgdata)  # it says what a standby's settings must be
            try:
                self._mended += fit_for_standby(prepared)
                _flush_all(flush, work)
            except BaseException:
                hold_back_pg_control(self._pgdata)
                raise
            work.end(self._prepared.filled_elsewhere)

    def _came(self, count: int) -> None:
        with self._lock:
            self._bytes += count
        self._events.bytes_came(count)

    def _fault(self, fault: DownloadFault) -> None:
        self._faults.append(fault)
        self._events.fault(fault)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        self._events.phase(name)
        begun = time.monotonic()
        yield
        self._seconds[name] = time.monotonic() - begun


def _flush_all(flush: DiskFlush, work: Workspace) -> None:
    """Wait until everything is on the disk.

    Raises: RestoreError where a write to it failed, ours or another program's: from then on no file counts as right.
    """
    try:
        flush.run()
    except OSError as error:
        work.say_lost_writes()
        raise RestoreError(
            f"the disk of '{error.filename}' lost something that was written since the restore began: {error.strerror}",
            hint="Look at the disk and the kernel's log. Restore again, which writes everything anew, or elsewhere.",
        ) from error


@contextmanager
def _meanwhile(work: Callable[[], None]) -> Iterator[None]:
    """Let the disk write while the block reads from memory. Raises: what the work raises."""
    with ThreadPoolExecutor(1, thread_name_prefix="flush") as pool:
        done = pool.submit(work)
        yield
        done.result()


def recovery_settings(prepared: PreparedRestore, restore_command: str) -> RecoverySettings:
    """Return the server's recovery settings: their target is the plan's, which may differ from the one asked for."""
    if prepared.request.standby is not None:
        return following_settings(prepared.request, prepared.request.standby, restore_command)
    target, last = prepared.plan.target, prepared.plan.bound
    return RecoverySettings(
        restore_command=restore_command if last is None else bounded_command(restore_command, last),
        target=_target_setting(target),
        inclusive=target.inclusive,
        timeline=str(target.timeline),
        action=prepared.request.action,
        extra=tuple(_copy_lines(prepared).items()) if prepared.request.is_copy else (),
    )


def _copy_lines(prepared: PreparedRestore) -> dict[str, str]:
    """Return what holds for a copy that a person starts: data_directory cannot stand in postgresql.auto.conf.

    With hot standby no preloaded library stays: its own configuration may lie elsewhere.
    """
    return {
        **copy_settings(prepared.binaries.major),
        **worker_settings(None, hot_standby=prepared.request.action is TargetAction.PAUSE),
        **own_access_files(prepared.request.pgdata.absolute()),
        **replay_settings(prepared.chosen),
    }


def apart_in_a_copy(prepared: PreparedRestore) -> tuple[str, ...]:
    """Return what will be set apart in a copy, in a person's words; its own access files only where it brings some."""
    return told_apart({"data_directory": "", **_copy_lines(prepared)})


def _target_setting(target: RecoveryTarget) -> tuple[str, str] | None:
    match target:
        case RecoveryTarget(kind=TargetKind.END):
            return None
        case RecoveryTarget(kind=TargetKind.IMMEDIATE):
            return "recovery_target", "immediate"
        case RecoveryTarget(at=datetime() as at):
            return "recovery_target_time", at.isoformat(" ")
        case RecoveryTarget(lsn=Lsn() as lsn):
            return "recovery_target_lsn", str(lsn)
        case RecoveryTarget(xid=int() as xid):
            return "recovery_target_xid", str(xid)
        case _:
            return "recovery_target_name", str(target.name)
