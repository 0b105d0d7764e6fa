"""A recovery drill: a real restore from one store into a scratch cluster, started, checked, measured, removed."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

from wal_pipeline.archive.format.backup_manifest import BaseBackupManifest
from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.format.object_metadata import from_metadata
from wal_pipeline.archive.records import CommitTimes, WalFile
from wal_pipeline.archive.recovery.drill_choice import DrillChoice, choose_drill
from wal_pipeline.archive.recovery.restore_plan import plan_restore
from wal_pipeline.archive.recovery.target import RecoveryTarget
from wal_pipeline.archive.recovery.window import RecoveryWindow, WindowEnd
from wal_pipeline.commands.archive_get.wal_source import WalSource
from wal_pipeline.commands.copies.find import find_copy
from wal_pipeline.commands.drill.fetch_service import FetchService
from wal_pipeline.commands.drill.scratch_folder import PGDATA, scratch_folder
from wal_pipeline.commands.drill.scratch_server import (
    ClusterChecks,
    DrillCheck,
    failed_checks,
    plain_environment,
    scratch_settings,
)
from wal_pipeline.commands.restore.contents import gather
from wal_pipeline.commands.restore.perform import perform_restore
from wal_pipeline.commands.restore.prepare import PreparedRestore, RestoreRequest, prepare_restore
from wal_pipeline.commands.restore.reached import find_last_transaction
from wal_pipeline.errors import InvalidWalFileError, PostgresError, RecoveryTargetError, RestoreError, WalPipelineError
from wal_pipeline.postgres.recovery import bounded_command
from wal_pipeline.postgres.recovery_server import RecoveryProgress, RecoveryServer, ServerUser
from wal_pipeline.stores.base import Store
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import WalFileName, require_file_name

_LOOK_BACK_SEGMENTS = 512  # an idle cluster's segments hold no commit
_CONFIG = "postgresql.conf"


@dataclass(frozen=True, slots=True)
class DrillOptions:
    """How a drill goes about it.

    ``folder`` is made and removed. ``owner``: as root, the user who runs the server. ``role`` and ``database`` are what
    the checks connect as and to. ``sql_file``: the user's own checks.
    """

    folder: Path
    owner: str | None = None
    role: str = "postgres"
    database: str = "postgres"
    amcheck: bool = True
    sql_file: Path | None = None
    bindir: Path | None = None
    timeout_seconds: float = 4 * 3600.0


@dataclass(frozen=True, slots=True)
class DrillResult:
    """What a drill found. ``seconds`` by phase; ``rto_seconds`` is from the plan to a server that takes writes.

    ``predicted_commit_at`` is what the archive's records foretold of the last commit, None where they do not know it;
    ``reached_commit_at`` is what the server reported. ``error`` says why the drill failed.
    """

    store: str
    target: str
    ok: bool
    started_at: datetime
    finished_at: datetime
    base_backup: str | None = None
    predicted_commit_at: datetime | None = None
    reached_commit_at: datetime | None = None
    reached_lsn: str | None = None
    segments: int = 0
    downloaded_bytes: int = 0
    rto_seconds: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    checks: tuple[DrillCheck, ...] = ()
    error: str | None = None


@dataclass(slots=True)
class _Course:
    """What is known of a drill so far: a failed one reports how far it came.

    ``explained``: the server reports another moment than foretold, and the WAL says why.
    """

    target: str = ""
    base_backup: str | None = None
    predicted: tuple[datetime, ...] = ()
    explained: bool = False
    reached_commit_at: datetime | None = None
    reached_lsn: str | None = None
    segments: int = 0
    downloaded_bytes: int = 0
    rto_seconds: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    checks: tuple[DrillCheck, ...] = ()


@dataclass(frozen=True, slots=True)
class _Chosen:
    """What this drill restores, and from which base backup."""

    backup_id: str
    choice: DrillChoice
    manifest: BaseBackupManifest


class Drill:
    """Restores one cluster from one store alone, to a moment drawn from the window."""

    def __init__(
        self,
        *,
        store: Store,
        layout: Layout,
        identities: Sequence[Any],
        options: DrillOptions,
        clock: Callable[[], datetime],
        random: Random,
    ) -> None:
        self._store = store
        self._layout = layout
        self._identities = tuple(identities)
        self._options = options
        self._clock = clock
        self._random = random

    def run(self) -> DrillResult:
        """Do it, and report; an error of the restore or of the checks is a failed drill, not an exception.

        Raises: RestoreError where the scratch folder is in use or not a drill's: nothing is touched then.
        """
        started_at, course = self._clock(), _Course()
        try:
            with scratch_folder(self._options.folder, self._store.name):
                error = self._attempt(course)
        except OSError as failure:
            error = str(failure)
        error = error or _verdict(course)
        return DrillResult(
            store=self._store.name,
            target=course.target,
            ok=error is None,
            started_at=started_at,
            finished_at=self._clock(),
            base_backup=course.base_backup,
            predicted_commit_at=course.predicted[0] if course.predicted else None,
            reached_commit_at=course.reached_commit_at,
            reached_lsn=course.reached_lsn,
            segments=course.segments,
            downloaded_bytes=course.downloaded_bytes,
            rto_seconds=course.rto_seconds,
            seconds=course.seconds,
            checks=course.checks,
            error=error,
        )

    def _attempt(self, course: _Course) -> str | None:
        """Return why the restore or the checks could not be done; None where they came to their end."""
        try:
            self._restore_and_check(course)
        except (WalPipelineError, OSError) as failure:
            return str(failure)
        return None

    def _restore_and_check(self, course: _Course) -> None:
        begun = time.monotonic()
        chosen = self._choose()
        course.base_backup, course.target = chosen.backup_id, str(chosen.choice.target)
        course.predicted = self._predict(chosen.choice)
        course.seconds["choose"] = time.monotonic() - begun
        begun = time.monotonic()
        prepared = self._prepare(chosen)
        source = WalSource(self._layout, (self._store,), self._identities)
        with FetchService(self._options.folder / "fetch", source, prepared.user) as fetching:
            line = fetching.restore_command
            if chosen.choice.next_file is None:  # to the end as it was foretold: the original goes on archiving
                line = bounded_command(line, chosen.choice.last.name)
            result = perform_restore(prepared, line)
            course.downloaded_bytes = result.downloaded_bytes
            course.seconds.update(result.seconds)
            try:
                self._recover_and_check(prepared, course, chosen, begun)
            except PostgresError as error:
                raise RestoreError("\n".join([*fetching.faults, error.message])) from error

    def _recover_and_check(self, prepared: PreparedRestore, course: _Course, chosen: "_Chosen", begun: float) -> None:
        server = self._server(prepared)
        server.start()
        try:
            progress = server.watch(self._options.timeout_seconds)
            course.rto_seconds = time.monotonic() - begun
            course.seconds["recovery"] = progress.seconds.get(progress.state.value, 0.0)
            course.segments, course.reached_commit_at = progress.segments, progress.last_commit_at
            course.reached_lsn = str(progress.replayed_lsn) if progress.replayed_lsn is not None else None
            course.explained = self._explained(prepared, course, chosen, progress)
            begun = time.monotonic()
            course.checks = self._check(prepared)
            course.seconds["checks"] = time.monotonic() - begun
        finally:
            server.stop()

    def _choose(self) -> "_Chosen":
        """Draw a base backup from all that the store can restore, and a moment between it and the next one."""
        found = gather([self._store], self._layout, None, self._identities)
        self._require_no_gap(plan_restore(found.contents, RecoveryTarget()).window)
        plans = []
        for backup_id in sorted(found.contents.backups):
            try:
                plans.append(plan_restore(found.contents, RecoveryTarget(), base_backup=backup_id))
            except RecoveryTargetError:
                continue  # not restorable here, or not on the way to the newest timeline
        plan = self._random.choice(plans)
        backup, size = plan.backup, plan.backup.wal_segment_size
        ends = [one.backup.stop_lsn for one in plans if one.backup.stop_lsn > backup.stop_lsn]
        wal = [file.name for file in plan.wal if not ends or _starts_before(file.name, min(ends), size)]
        choice = choose_drill(wal, backup.stop_lsn, size, self._random)
        if choice is None:
            raise RestoreError(f"{self._store.name}: base backup '{backup.backup_id}' has no WAL to replay")
        if ends and choice.next_file is None:
            choice = choose_drill([file.name for file in plan.wal], backup.stop_lsn, size, self._random) or choice
        return _Chosen(backup.backup_id, choice, found.manifests[backup.backup_id])

    def _require_no_gap(self, window: RecoveryWindow) -> None:
        """Refuse an archive whose newest moments are out of reach: an older base backup would pass all the same."""
        if window.ended_by is WindowEnd.GAP:
            raise RestoreError(
                f"{self._store.name}: segment '{window.first_missing}' is missing: "
                "no base backup here leads to the segments after it",
                hint="'wal-pipeline verify --repair' copies it from another store; if no store has it, take a base "
                "backup, which begins a new window.",
            )

    def _predict(self, choice: DrillChoice) -> tuple[datetime, ...]:
        """Return the commit times that the last replayed commit may have, the likeliest first; empty: not known.

        A commit whose record begins in the last segment and ends in the next one is counted with the next one.
        """
        for name in reversed(choice.replayed[-_LOOK_BACK_SEGMENTS:]):
            file = self._describe(name)
            if file is None or file.commit_times is not CommitTimes.KNOWN:
                return ()
            if file.last_commit_at is not None:
                after = self._describe(choice.next_file) if choice.next_file is not None else None
                crossing = after.first_commit_at if after is not None else None
                return (file.last_commit_at,) if crossing is None else (file.last_commit_at, crossing)
        return ()

    def _explained(
        self, prepared: PreparedRestore, course: _Course, chosen: "_Chosen", progress: RecoveryProgress
    ) -> bool:
        """Whether the WAL itself says why the server reports another moment than the last commit's.

        PostgreSQL counts a rollback as a completed transaction, and a commit before its redo point not at all.
        """
        if not course.predicted or course.reached_commit_at in course.predicted:
            return False
        found = find_last_transaction(
            WalSource(self._layout, (self._store,), self._identities).fetch,
            chosen.choice,
            chosen.manifest.wal_segment_size,
            progress.redo_lsn or chosen.manifest.start_lsn,
            pg_waldump=prepared.binaries.program("pg_waldump"),
            folder=self._options.folder / "look",
        )
        return found.completed_at == course.reached_commit_at and found.commit_at in (None, *course.predicted)

    def _describe(self, name: WalFileName) -> WalFile | None:
        key = find_copy(self._store, self._layout, name)
        found = self._store.head(key) if key is not None else None
        if key is None or found is None:
            return None
        try:
            return from_metadata(key, found.metadata)[0]
        except InvalidWalFileError:
            return None

    def _prepare(self, chosen: "_Chosen") -> PreparedRestore:
        folder = self._options.folder
        request = RestoreRequest(
            pgdata=folder / PGDATA,
            target=chosen.choice.target,
            base_backup=chosen.backup_id,
            owner=self._options.owner,
            tablespaces={
                str(space.oid): folder / "tablespaces" / str(space.oid) for space in chosen.manifest.tablespaces
            },
            archiving=False,
            bindir=self._options.bindir,
        )
        return prepare_restore(request, [self._store], self._layout, self._identities)

    def _server(self, prepared: PreparedRestore) -> RecoveryServer:
        pgdata, folder = prepared.request.pgdata, self._options.folder
        _ensure_config(pgdata, prepared.user)
        settings = scratch_settings(folder, pgdata, prepared.user)
        return RecoveryServer(
            prepared.binaries,
            pgdata,
            user=prepared.user,
            log=folder / "recovery.log",
            settings=settings,
            inherited=plain_environment(),
        )

    def _check(self, prepared: PreparedRestore) -> tuple[DrillCheck, ...]:
        options = self._options
        checks = ClusterChecks(
            prepared.binaries, options.folder, prepared.user, role=options.role, database=options.database
        )
        found = [checks.answers()]
        if options.amcheck:
            found.append(checks.amcheck())
        if options.sql_file is not None:
            found.append(checks.sql(options.sql_file))
        return tuple(found)


def _starts_before(name: str, lsn: Lsn, wal_segment_size: int) -> bool:
    return require_file_name(name).start_lsn(wal_segment_size) < lsn


def _ensure_config(pgdata: Path, user: ServerUser) -> None:
    """Debian keeps the configuration outside PGDATA: an empty file will do for a drill."""
    path = pgdata / _CONFIG
    if not path.exists():
        path.write_text("", encoding="utf-8")
        if os.geteuid() == 0:
            os.chown(path, user.uid, user.gid)


def _verdict(course: _Course) -> str | None:
    """Return what is wrong with a drill that came to its end, None where nothing is."""
    if course.predicted and course.reached_commit_at not in course.predicted and not course.explained:
        reached = "no commit" if course.reached_commit_at is None else course.reached_commit_at.isoformat(" ")
        return f"the last commit replayed is {reached}, expected {course.predicted[0].isoformat(' ')}"
    failed = failed_checks(course.checks)
    return "; ".join(f"check '{name}' failed: {output}" for name, output in failed.items()) or None
