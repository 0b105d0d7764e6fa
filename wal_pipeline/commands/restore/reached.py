"""Checks that a recovery reached the moment that its plan foretold."""

import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from wal_pipeline.archive.recovery.drill_choice import DrillChoice
from wal_pipeline.archive.recovery.target import TargetKind
from wal_pipeline.commands.archive_get.tail_wal import RecoveryWal, limits_of
from wal_pipeline.commands.archive_get.wal_source import FetchedWal, WalSource
from wal_pipeline.commands.restore.prepare import PreparedRestore
from wal_pipeline.commands.restore.start import RecoveryResult
from wal_pipeline.errors import RestoreError, WalPipelineError
from wal_pipeline.postgres.last_transaction import LastTransaction, read_last_transaction
from wal_pipeline.postgres.replay_progress import RecoveryState
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import WalFileName, require_file_name


def find_last_transaction(
    fetch: Callable[[WalFileName], FetchedWal | None],
    choice: DrillChoice,
    wal_segment_size: int,
    begin: Lsn,
    *,
    pg_waldump: Path,
    folder: Path,
    end: Lsn | None = None,
) -> LastTransaction:
    """Return the last transaction that ended, looking from the last replayed segment backwards to ``begin``.

    ``end`` bounds the beginnings of the records; without it they may be anywhere in the last segment.

    At most two segments lie in ``folder`` at a time: a record may begin in the one and end in the next.

    Raises: WalPipelineError, OSError.
    """
    folder.mkdir()
    after = choice.next_file
    for name in reversed(choice.replayed):
        if name.end_lsn(wal_segment_size) <= begin:
            break
        pair = [name, after] if after is not None and after.timeline == name.timeline else [name]
        _place(fetch, pair, folder)
        first, last = max(begin, name.start_lsn(wal_segment_size)), name.end_lsn(wal_segment_size)
        last = last if end is None else min(last, end)
        found = read_last_transaction(pg_waldump, folder, [one.name for one in pair], first, last)
        if found.completed_at is not None:
            return found
        after = name
    return LastTransaction(None, None)


def _place(fetch: Callable[[WalFileName], FetchedWal | None], wanted: list[WalFileName], folder: Path) -> None:
    """Bring the wanted segments, and only these, into the folder."""
    names = {one.name for one in wanted}
    for path in folder.iterdir():
        if path.name not in names:
            path.unlink()
    for one in wanted:
        if not (folder / one.name).exists() and (fetched := fetch(one)) is not None:
            (folder / one.name).write_bytes(fetched.data)


def require_reached(prepared: PreparedRestore, recovery: RecoveryResult) -> None:
    """Refuse a recovery that lost data by the server's own words, or ended elsewhere than planned.

    One whose server does not say where it ended passes. Raises: RestoreError.
    """
    if recovery.lost is not None:
        raise RestoreError(
            f"{recovery.lost} (in '{prepared.request.pgdata}')",
            hint=f"Do not let anyone use this server before you know what is lost: look into its log '{recovery.log}', "
            "and restore again from an older base backup, which has the same moments.",
        )
    if recovery.state is RecoveryState.FOLLOWING:
        return  # its recovery does not end
    if recovery.replayed_lsn is None and recovery.state is not RecoveryState.OPEN:
        return  # it stopped at the target by its own account, and says no more
    if recovery.redo_lsn is None and recovery.replayed_lsn is None:
        raise RestoreError(
            f"the server in '{prepared.request.pgdata}' is open, and its log '{recovery.log}' does not tell where its "
            "recovery ended",
            hint="Do not let anyone use this server before you have looked: SELECT pg_last_wal_replay_lsn(), "
            "pg_last_xact_replay_timestamp()",
        )
    wrong = _Comparison(prepared, recovery).wrong()
    if wrong is not None:
        raise RestoreError(
            f"the recovery in '{prepared.request.pgdata}' did not end where it was planned to: {wrong}",
            hint=f"Do not let anyone use this server, which is {recovery.state.value.replace('_', ' ')}: look into its "
            f"log '{recovery.log}', stop it, and restore again.",
        )


class _Comparison:
    def __init__(self, prepared: PreparedRestore, recovery: RecoveryResult) -> None:
        self._prepared = prepared
        self._plan = prepared.plan
        self._reached_at = recovery.last_commit_at
        self._lsn = recovery.replayed_lsn or Lsn(0)
        self._redo = max(recovery.redo_lsn or Lsn(0), prepared.plan.backup.start_lsn)  # later where it began again
        self._paused = recovery.state is RecoveryState.PAUSED
        self._segment_size = prepared.plan.backup.wal_segment_size
        self._wal = tuple(require_file_name(file.name) for file in prepared.plan.wal)

    def wrong(self) -> str | None:
        """Return the difference from the plan; None where there is none."""
        plan = self._plan
        if self._is_past_the_plan():
            if plan.bound is not None:
                return f"it replayed WAL up to {self._lsn}, past '{plan.bound}', the last segment of the plan"
            if plan.asked.kind in (TargetKind.END, TargetKind.XID, TargetKind.NAME):
                return None  # the archive has grown, and all of it was asked for
        lsn = plan.backup.stop_lsn if plan.target.kind is TargetKind.IMMEDIATE else plan.target.lsn
        if lsn is not None and not self._is_at(lsn):
            return f"it ended at LSN {self._lsn}, expected {plan.target}"
        return self._wrong_commit(plan.commit_at_least, self._at_most())

    def _is_past_the_plan(self) -> bool:
        tail = self._plan.tail
        return self._lsn >= self._wal[-1].end_lsn(self._segment_size) if tail is None else self._lsn > tail.end_lsn

    def _is_at(self, lsn: Lsn) -> bool:
        # its log names the record at which it stopped, also where that was not replayed (xlogrecovery.c: redo done at)
        return self._lsn >= lsn or (self._paused and not self._plan.target.inclusive)

    def _at_most(self) -> datetime | None:
        """Return the latest commit, None where PostgreSQL stops by another measure than the commits' times.

        The plan does not know where an xid or a name is, and an immediate end is foretold by the clock that the base
        backup was taken with, which is not the server's.
        """
        free = (TargetKind.LSN, TargetKind.IMMEDIATE, TargetKind.XID, TargetKind.NAME)
        return None if self._plan.asked.kind in free else self._plan.commit_at_most

    def _wrong_commit(self, at_least: datetime | None, at_most: datetime | None) -> str | None:
        reached_at = self._reached_at
        early = at_least is not None and (reached_at is None or reached_at < at_least)
        late = at_most is not None and reached_at is not None and reached_at > at_most
        if not early and not late:
            return None
        bounds = (("not before", at_least), ("not after", at_most))
        expected = " and ".join(f"{word} {at.isoformat(' ')}" for word, at in bounds if at is not None)
        reached = "no commit" if reached_at is None else reached_at.isoformat(" ")
        text = f"the last commit replayed is {reached}, expected {expected}"
        try:
            explained = self._is_before_redo(at_least) if early else self._is_rollback(at_most)
        except (WalPipelineError, OSError) as error:
            return f"{text} (the WAL that may explain it cannot be read: {error})"
        return None if explained else text

    def _is_before_redo(self, at_least: datetime | None) -> bool:
        """Return whether the plan's last commit is before the redo point: the server does not count it."""
        return self._last_transaction(Lsn(0), self._redo).commit_at == at_least

    def _is_rollback(self, at_most: datetime | None) -> bool:
        """Return whether the server reports a rollback after the last commit: it counts both."""
        found = self._last_transaction(self._plan.backup.start_lsn, Lsn(self._lsn + 1))
        no_later = found.commit_at is None or (at_most is not None and found.commit_at <= at_most)
        return found.completed_at == self._reached_at and no_later

    def _last_transaction(self, begin: Lsn, end: Lsn) -> LastTransaction:
        names = tuple(name for name in self._wal if name.start_lsn(self._segment_size) < end)
        if not names:
            return LastTransaction(None, None)
        after = self._wal[len(names)] if len(names) < len(self._wal) else None
        source = WalSource(self._prepared.layout, self._prepared.stores, self._prepared.identities)
        wal = RecoveryWal(source, limits_of(self._plan))
        with tempfile.TemporaryDirectory(prefix="wal-pipeline-look-") as folder:
            return find_last_transaction(
                wal.fetch,
                DrillChoice(self._plan.target, names[-1], names, after),
                self._segment_size,
                begin,
                pg_waldump=self._prepared.binaries.program("pg_waldump"),
                folder=Path(folder) / "wal",
                end=end,
            )
