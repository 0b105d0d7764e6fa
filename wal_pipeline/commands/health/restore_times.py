"""Predicts for each store how long a restore to the end of its window takes, by the catalog alone."""

from collections.abc import Mapping

from wal_pipeline.archive.records import BaseBackup
from wal_pipeline.archive.restore_time.forecast import RestoreForecast
from wal_pipeline.archive.restore_time.measure import RestoreWork
from wal_pipeline.commands.health.windows import CurrentWindows
from wal_pipeline.commands.restore_times import KnownTimes


def predict_restores(windows: CurrentWindows, known: KnownTimes, host: str) -> dict[str, RestoreForecast]:
    """Return the prediction for each store from which something can be restored, as a restore there would be planned.

    It begins with the newest base backup of the window, and replays all of its WAL.
    """
    backups = {one.backup_id: one for one in windows.backups}
    found = ((store, restore_work(windows, backups, store)) for store in windows.stores)
    return {store: known.forecast(work, host) for store, work in found if work is not None}


def restore_work(windows: CurrentWindows, backups: Mapping[str, BaseBackup], store: str) -> RestoreWork | None:
    """Return what a restore from a store alone would have to do; None where its base backups are not all known."""
    window = windows.main(store)
    if window is None:
        return None
    chain = _chain(backups, window.backup_ids[-1])
    if chain is None:
        return None
    last, needed = chain[-1], _needed(chain)
    sizes = [one.size_bytes for one in needed]
    return RestoreWork(
        (store,),
        sum(_fetched_bytes(one) for one in needed),
        max(sizes),
        max(0, window.latest_lsn - last.start_lsn),
        combined_bytes=sum(sizes) if len(sizes) > 1 else 0,
    )


def _needed(chain: list[BaseBackup]) -> list[BaseBackup]:
    """Return those of a chain that are brought back: from the newest one on that is whole by itself."""
    whole = [number for number, one in enumerate(chain) if one.fetched_size_bytes is not None]
    return chain[whole[-1] :] if whole else chain


def _fetched_bytes(backup: BaseBackup) -> int:
    return backup.stored_size_bytes if backup.fetched_size_bytes is None else backup.fetched_size_bytes


def _chain(backups: Mapping[str, BaseBackup], backup_id: str) -> list[BaseBackup] | None:
    """Return a base backup with those it is built on, the full one first; None where one is not known."""
    chain: list[BaseBackup] = []
    wanted: str | None = backup_id
    while wanted is not None:
        one = backups.get(wanted)
        if one is None or one in chain:
            return None
        chain.insert(0, one)
        wanted = one.parent_id
    return chain
