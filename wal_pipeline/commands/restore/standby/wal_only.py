"""Points a data directory that is there to the stores: its files stay, and its recovery gets its WAL from them."""

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.records import BackupKind, BaseBackup
from wal_pipeline.archive.recovery.coverage import ArchiveContents, HeldBackup
from wal_pipeline.archive.recovery.restore_plan import RestorePlan, plan_restore
from wal_pipeline.commands.restore.checks import check_identities, check_writable, require_action, server_user
from wal_pipeline.commands.restore.contents import gather
from wal_pipeline.commands.restore.folders import check_not_running
from wal_pipeline.commands.restore.places.configuration import plan_configuration
from wal_pipeline.commands.restore.places.workspace import left_by_restore, workspace
from wal_pipeline.commands.restore.prepare import PreparedRestore, RestoreRequest
from wal_pipeline.commands.restore.standby.settings import fit_for_standby
from wal_pipeline.errors import PostgresError, RecoveryTargetError, RestoreError
from wal_pipeline.postgres.binaries import Binaries, find_binaries
from wal_pipeline.postgres.control_data import RecoveryStart, read_recovery_start
from wal_pipeline.postgres.control_file import read_control_file, read_server_major
from wal_pipeline.postgres.own_folder import keep_own_folder
from wal_pipeline.postgres.recovery import (
    AUTO_CONF,
    RECOVERY_SIGNAL,
    STANDBY_SIGNAL,
    RecoverySettings,
    write_recovery_settings,
)
from wal_pipeline.stores.base import Store
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import segment_at

THIS_FOLDER: Final = "the data directory"
_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)
_HINT: Final = (
    "Where the directory is ahead of the stores, its WAL has not been archived yet; where it is of another history, or "
    "too old, restore a base backup, without --wal-only."
)


def identifier_of(pgdata: Path) -> int:
    """Return the system identifier of a data directory that is there. Raises: RestoreError."""
    try:
        return read_control_file(pgdata).system_identifier
    except PostgresError as error:
        raise RestoreError(error.message, hint="--wal-only is for a data directory that is there.") from error


def prepare_wal_only(
    request: RestoreRequest, stores: Sequence[Store], layout: Layout, identities: Sequence[Any] = ()
) -> PreparedRestore:
    """Plan the recovery of the data directory that is there, from its own start to the target. Nothing is written.

    Raises: RecoveryTargetError, RestoreError, PostgresError, StoreError.
    """
    begun = time.monotonic()
    pgdata = request.pgdata.absolute()
    start, binaries = _look(request, pgdata, layout)
    found = gather(stores, layout, request.target.at or request.target.not_before_at, identities)
    backup = _as_base_backup(start, request)

    def plan(contents: ArchiveContents) -> RestorePlan:
        usable = contents if request.standby is None else replace(contents, tails={})  # a standby gets no pieces
        return plan_restore(usable, request.target, base_backup=backup.backup_id)

    held = HeldBackup(backup, frozenset(found.contents.stores))
    found = replace(found, contents=replace(found.contents, backups={**found.contents.backups, THIS_FOLDER: held}))
    try:
        made = found.checked_plan(plan)
    except RecoveryTargetError as error:
        raise _not_continued(pgdata, start, error) from error
    require_action(made.asked, made.target, request.action)
    return PreparedRestore(
        request,
        made,
        (),
        found.answered,
        tuple(store.name for store in stores if store not in found.answered),
        layout,
        tuple(identities),
        moves=(),
        emptied=(),
        encrypted=check_identities(made, (), found.answered, layout, identities),
        disk=(),
        user=server_user(pgdata, request.owner),
        binaries=binaries,
        notes=(*_folder_notes(pgdata, request, start), *found.notes, *made.notes),
        plan_seconds=time.monotonic() - begun,
        configuration=plan_configuration(
            pgdata,
            binaries.major,
            kept=None,
            given=request.config_file,
            wanted=False,
            has_own=(pgdata / "postgresql.conf").exists,
        ),
    )


def point_to_stores(prepared: PreparedRestore, settings: RecoverySettings) -> tuple[str, ...]:
    """Write the recovery settings into the data directory, and return what was changed in its configuration.

    Raises: RestoreError where a server runs there, or the directory is not what was planned any more; PostgresError.
    """
    pgdata = prepared.request.pgdata.absolute()
    with workspace(pgdata):  # nobody else restores into it meanwhile
        start, _ = _look(prepared.request, pgdata, prepared.layout)
        if _as_base_backup(start, prepared.request) != prepared.plan.backup:
            raise RestoreError(
                f"the data directory '{pgdata}' is not what it was when the recovery was planned",
                hint="A server was started there meanwhile. Stop it, and begin again.",
            )
        write_recovery_settings(pgdata, settings)
        for name in (AUTO_CONF, STANDBY_SIGNAL, RECOVERY_SIGNAL):
            if os.geteuid() != prepared.user.uid and (pgdata / name).exists():
                os.lchown(pgdata / name, prepared.user.uid, prepared.user.gid)
        mended = keep_own_folder(pgdata, prepared.binaries, prepared.user)
        return (*mended, *fit_for_standby(prepared))


def _look(request: RestoreRequest, pgdata: Path, layout: Layout) -> tuple[RecoveryStart, Binaries]:
    """Return where the directory's recovery begins, and its programs, after a look at all that may stand against it."""
    if not (pgdata / "PG_VERSION").is_file():
        raise RestoreError(
            f"'{pgdata}' is no data directory: it has no 'PG_VERSION'",
            hint="--wal-only is for a data directory that is there. Without it the restore brings one.",
        )
    if left_by_restore(pgdata):
        raise RestoreError(
            f"'{pgdata}' was left by a restore that did not end", hint="Restore into it again, without --wal-only."
        )
    check_not_running(pgdata)
    check_writable(pgdata, ())
    binaries = find_binaries(
        read_server_major(pgdata), exactly=True, programs=("postgres", "pg_controldata"), bindir=request.bindir
    )
    start = read_recovery_start(pgdata, binaries)
    if start.system_identifier != layout.system_identifier:
        raise RestoreError(
            f"the data directory '{pgdata}' has system identifier {start.system_identifier}, expected "
            f"{layout.system_identifier}",
            hint="It is of another cluster than the WAL of the stores.",
        )
    return start, binaries


def _as_base_backup(start: RecoveryStart, request: RestoreRequest) -> BaseBackup:
    """Return the directory as a base backup, from which recovery is planned as from any other.

    Where only the WAL tells when it is consistent, PostgreSQL itself refuses a target before that. A standby may stream
    what the stores do not have yet, so that they need only reach its start.
    """
    redo = Lsn(start.redo_lsn + 1)
    stop = redo if request.standby is not None or start.consistent_lsn is None else start.consistent_lsn
    return BaseBackup(
        backup_id=THIS_FOLDER,
        kind=BackupKind.FULL,
        parent_id=None,
        system_identifier=start.system_identifier,
        timeline=start.timeline,
        start_lsn=start.redo_lsn,
        stop_lsn=max(redo, stop),
        started_at=start.ended_at or _LONG_AGO,
        finished_at=start.ended_at or _LONG_AGO,
        wal_segment_size=start.wal_segment_size,
        server_version=0,
        label="",
        size_bytes=0,
        stored_size_bytes=0,
    )


def _not_continued(pgdata: Path, start: RecoveryStart, error: RecoveryTargetError) -> RestoreError:
    first = segment_at(start.timeline, start.redo_lsn, start.wal_segment_size)
    return RestoreError(
        f"the stores do not continue '{pgdata}', whose recovery begins at {start.redo_lsn} in '{first.name}': "
        f"{error.message}",
        hint=f"{error.hint} {_HINT}" if error.hint else _HINT,
    )


def _folder_notes(pgdata: Path, request: RestoreRequest, start: RecoveryStart) -> list[str]:
    first = segment_at(start.timeline, start.redo_lsn, start.wal_segment_size)
    notes = [
        f"the files in '{pgdata}' stay as they are; only its recovery is set up, which begins at {start.redo_lsn} in "
        f"'{first.name}'"
    ]
    if start.consistent_lsn is None:
        notes.append("where it is consistent only its WAL tells: PostgreSQL refuses a target before that")
    if request.standby is None and (pgdata / STANDBY_SIGNAL).exists():
        notes.append("it was a standby, and is none any more")
    return notes
