"""What the WAL itself says of the last transaction that a recovery replays, where records of commits do not suffice."""

from collections.abc import Callable
from pathlib import Path

from wal_pipeline.archive.drill_choice import DrillChoice
from wal_pipeline.commands.archive_get import FetchedWal
from wal_pipeline.postgres.last_transaction import LastTransaction, read_last_transaction
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import WalFileName


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
    """Look from the end of what is replayed backwards to ``begin`` for the last transaction that ended.

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
