"""Finds out whether the spool holds work for an archiving run now, cheaply enough for many looks a minute."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.commands.archive_push.backlog import LOOK_UP_NAMES, look_up
from wal_pipeline.commands.archive_push.skipped_files import skipped_names
from wal_pipeline.commands.archive_push.uploader import is_resting
from wal_pipeline.commands.pause import Pause, current_pause
from wal_pipeline.spool import Spool, SpoolFile


@dataclass(frozen=True, slots=True)
class PendingWork:
    """The files that wait in the spool.

    ``is_due``: a run can do something now. ``left``: files that the last run had to leave, and that are as they were.
    ``foreign``: names that are not PostgreSQL's or not plain files. ``resting``: stores that failed, with the moment of
    their next try.
    """

    files: int
    size_bytes: int
    growing: int
    foreign: tuple[str, ...]
    is_due: bool
    resting: tuple[tuple[str, datetime], ...]
    pause: Pause | None = None
    left: int = 0

    def describe(self) -> str:
        """Say it in one line, for a sensor's tick."""
        if not self.files and not self.growing:
            return ", ".join(["the spool is empty", *self._others()])
        parts = [f"{self.files} files wait in the spool ({self.size_bytes / 2**20:.0f} MiB)"]
        if self.growing:
            parts.append(f"{self.growing} still growing")
        if self.left:
            parts.append(f"{self.left} of them cannot be archived: 'wal-pipeline status' says why")
        if self.pause is not None:
            parts.append(self.pause.describe())
        parts += [f"{store} failed and is tried again at {at:%H:%M:%S} UTC" for store, at in self.resting]
        return ", ".join([*parts, *self._others()])

    def _others(self) -> list[str]:
        if not self.foreign:
            return []
        return [f"{len(self.foreign)} other names are left alone, the first '{self.foreign[0]}'"]


def pending_work(spool: Spool, catalog: Catalog, stores: Collection[str], now: datetime) -> PendingWork:
    """Look at the spool and at what the catalog knows of its files.

    Raises: SpoolError, CatalogError.
    """
    listing = spool.scan(now)
    states = catalog.stores.states()
    resting = {name: state for name, state in states.items() if name in stores and is_resting(state, now)}
    pause = current_pause(catalog, now)
    left = skipped_names(spool, catalog, listing.ready, now)
    ready = [file for file in listing.ready if file.name.name not in left]
    due = pause is None and bool(ready)
    return PendingWork(
        files=len(listing.ready),
        size_bytes=listing.size_bytes,
        growing=len(listing.growing),
        foreign=listing.foreign,
        is_due=due and _is_due(ready, catalog, frozenset(stores), frozenset(resting)),
        resting=tuple((name, state.retry_at) for name, state in sorted(resting.items()) if state.retry_at is not None),
        pause=pause,
        left=len(left),
    )


def _is_due(ready: Sequence[SpoolFile], catalog: Catalog, stores: frozenset[str], resting: frozenset[str]) -> bool:
    """Whether some file can go on: to a store that is not resting, or out of the spool, which all stores must allow.

    The newest files first: while a store rests, the older ones are most likely waiting for it alone. All others are one
    question: a spool of 200,000 files must not cost a sensor's tick hundreds of them.
    """
    if not resting:
        return True
    known = catalog.system_identifiers.known()
    current, usable = known[-1] if known else 0, stores - resting
    if not usable:
        return False
    names = [file.name.name for file in ready]
    newest = look_up(catalog, names[-LOOK_UP_NAMES:])
    if any(usable - recorded.held_by(current) for recorded in newest.values()):
        return True
    older = names[:-LOOK_UP_NAMES]
    return bool(older) and not _are_held(catalog, older, usable, current)


def _are_held(catalog: Catalog, names: Sequence[str], stores: frozenset[str], current: int) -> bool:
    """Whether each of the stores most likely holds all these files, by the rule of ``Recorded.held_by``."""
    held = catalog.measures.held_names(names)
    others = {owner for owner, _store in held} - {current}
    ours = catalog.measures.names_of(current, names) if others else frozenset(names)
    rest = frozenset(names) - ours
    nothing = frozenset[str]()
    for store in stores:
        elsewhere = nothing.union(*(held.get((owner, store), nothing) for owner in others))
        if ours - held.get((current, store), nothing) or rest - elsewhere:
            return False
    return True
