"""Searches the archived WAL between two moments for transactions."""

import heapq
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import numpy as np

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.recovery.names.relation_names import RelationNames
from wal_pipeline.commands.find.chain import PartChain
from wal_pipeline.commands.find.choose import TransactionChoice
from wal_pipeline.commands.find.found import FindResult, FoundTransaction
from wal_pipeline.commands.find.look_back import earlier_parts
from wal_pipeline.commands.find.naming import ChangeNaming, choose_relations, commit_moment, microseconds_of
from wal_pipeline.commands.find.options import FindOptions, FindRequest
from wal_pipeline.commands.find.read_ahead import DecodedPart, PartReader
from wal_pipeline.commands.find.suspicion import Harm, harm_of
from wal_pipeline.commands.find.window import FindWindow, FindWindowError, choose_window
from wal_pipeline.commands.restore.contents import gather
from wal_pipeline.stores.base import Store
from wal_pipeline.text import moment_utc
from wal_pipeline.wal.records.assemble import CommitBlock, CommittedTransaction

_LATE_PARTS: Final = 2  # commit times are not quite in the order of the WAL


class FindEvents:
    """Hears how a search goes on. Each method may be overridden."""

    def planned(self, window_bytes: int) -> None:
        """Hear about how many bytes of WAL there are to read."""

    def came(self, size_bytes: int) -> None:
        """Hear of bytes of WAL that were read."""


@dataclass(slots=True)
class _Looked:
    """Counts what a search has looked at so far."""

    begun_at: float = field(default_factory=time.monotonic)
    read_bytes: int = 0
    segments: int = 0
    pieces: int = 0
    commits: int = 0
    matching: int = 0
    first_us: int | None = None
    last_us: int | None = None
    before_us: int | None = None
    first_after_us: int | None = None
    last_read_us: int | None = None
    late_parts: int = 0
    is_at_end: bool = True
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Find:
    """One search.

    ``read_names`` reads the relations' names as of the beginning of its window, and says which lists it could not read.
    """

    options: FindOptions
    request: FindRequest
    stores: Sequence[Store]
    layout: Layout
    identities: Sequence[Any]
    read_names: Callable[[datetime], tuple[RelationNames, Sequence[str]]]
    now: Callable[[], datetime]
    _naming: ChangeNaming = field(init=False)
    _window: FindWindow | None = None
    _looked: _Looked = field(default_factory=_Looked)
    _chain: PartChain = field(default_factory=PartChain)
    _suspect: tuple[Harm, FoundTransaction] | None = None

    def run(self, events: FindEvents | None = None) -> FindResult:
        """Search, and return the transactions in the order of their commits, or the biggest first.

        Of more than ``limit`` those are taken that did most harm, or the biggest. Raises: as ``transactions``.
        """
        kept: list[tuple[tuple[int, ...], int, FoundTransaction]] = []
        limit = self.options.limit
        for block, choice in self._blocks(events or FindEvents()):
            least = kept[0][0] if limit is not None and len(kept) >= limit else None
            for one in self._worst(block, choice, limit, least):
                found = self._found(one)
                item = self._weight(found), -int(found.lsn), found
                if limit is None or len(kept) < limit:
                    heapq.heappush(kept, item)
                elif item[:2] > kept[0][:2]:
                    heapq.heapreplace(kept, item)
        chosen = [item[2] for item in kept]
        if self.options.biggest_first:
            chosen.sort(key=lambda one: (-one.wal_bytes, one.lsn))
        else:
            chosen.sort(key=lambda one: one.lsn)
        return self.result(chosen)

    def transactions(self, events: FindEvents | None = None) -> Iterator[FoundTransaction]:
        """Yield the transactions as they are found, in the order of their commits; ``result`` may be asked for then.

        Raises: FindOptionError, FindWindowError, RestoreError, StoreError, InvalidWalFileError.
        """
        for block, choice in self._blocks(events or FindEvents()):
            for one in choice.choose(block):
                self._looked.matching += 1
                yield self._found(one)

    def result(self, transactions: Iterable[FoundTransaction] = ()) -> FindResult:
        """Return how a search went that has ended."""
        looked, window = self._looked, self._window
        if window is None:
            raise RuntimeError("the search has not begun")
        base_backup, notes = self._base_backup(window)
        return FindResult(
            transactions=tuple(transactions),
            matching=looked.matching,
            commits=looked.commits,
            suspect=None if self._suspect is None else self._suspect[1],
            read_bytes=looked.read_bytes,
            segments=looked.segments,
            pieces=looked.pieces,
            seconds=time.monotonic() - looked.begun_at,
            first_commit_at=None if looked.first_us is None else commit_moment(looked.first_us),
            last_commit_at=None if looked.last_us is None else commit_moment(looked.last_us),
            begin_at=window.begin_at,
            end_at=window.end_at,
            notes=(*window.notes, *dict.fromkeys(looked.notes), *self._edges(window), *notes),
            holes=tuple(dict.fromkeys(self._chain.holes)),
            base_backup=base_backup,
        )

    def _base_backup(self, window: FindWindow) -> tuple[str | None, list[str]]:
        """Return the base backup that leads to the suspect, where a recovery would not choose it by itself."""
        if self._suspect is None:
            return None, []
        suspect = self._suspect[1]
        known = [backup for backup, _ in window.coverage.restorable(window.path)]
        before = [backup for backup in known if backup.stop_lsn <= suspect.lsn]
        if not before:
            return None, [f"no base backup is archived from which transaction {suspect.xid} can be reached"]
        return None if before[-1] == known[-1] else before[-1].backup_id, []

    def _blocks(self, events: FindEvents) -> Iterator[tuple[CommitBlock, TransactionChoice]]:
        """Yield what commits in each stretch of WAL of the window."""
        inventory = gather(self.stores, self.layout, self.request.begin_at, self.identities)
        window = self._window = choose_window(inventory, self.request, self.now())
        names, notes = self.read_names(window.begin_at)
        self._looked.notes += [*inventory.notes, *notes]
        naming = self._naming = ChangeNaming(names)
        relations = choose_relations(naming, self.options.relation, self.options.database)
        choice = TransactionChoice(
            naming,
            relations,
            microseconds_of(window.begin_at),
            None if window.end_at is None else microseconds_of(window.end_at),
            self.options.dropping,
            self.options.min_deletes,
            self.options.min_rows,
        )
        reader = PartReader(inventory.source, window.path.wal_segment_size)
        events.planned(window.estimated_bytes())
        for decoded in earlier_parts(reader, window):
            yield from ((block, choice) for block in self._take(decoded, choice, events))
        for decoded in reader.read_all(window.parts()):
            yield from ((block, choice) for block in self._take(decoded, choice, events))
            if self._looked.late_parts >= _LATE_PARTS:
                self._looked.is_at_end = False
                break
        self._require_wal(window)

    def _take(self, decoded: DecodedPart, choice: TransactionChoice, events: FindEvents) -> Iterator[CommitBlock]:
        looked = self._looked
        looked.read_bytes += decoded.size_bytes
        looked.segments += decoded.pieces == 0 and decoded.fault is None
        looked.pieces += decoded.pieces
        looked.notes += decoded.notes
        first_us: int | None = None
        for block in self._chain.add(decoded):
            times = _times(block)
            if len(times):
                first_us = min(int(times.min()), first_us if first_us is not None else int(times.min()))
                self._look(times, choice, is_early=decoded.part.is_early)
                yield block
        if first_us is not None and choice.end_us is not None:
            looked.late_parts = looked.late_parts + 1 if first_us > choice.end_us else 0
        events.came(0 if decoded.part.is_early else decoded.size_bytes)

    def _look(self, times: "np.ndarray[Any, Any]", choice: TransactionChoice, *, is_early: bool) -> None:
        """Count the commits, and note the first and the last one."""
        looked = self._looked
        inside = times[(times >= choice.begin_us) & (times <= (choice.end_us or np.iinfo(np.int64).max))]
        looked.commits += len(inside)
        if len(inside):
            looked.first_us = min(int(inside.min()), looked.first_us if looked.first_us is not None else int(inside[0]))
            looked.last_us = max(int(inside.max()), looked.last_us or 0)
        before = times[times < choice.begin_us]
        if len(before):
            looked.before_us = int(before.max())
        after = times[times >= choice.begin_us]
        if not is_early and len(after) and looked.first_after_us is None:
            looked.first_after_us = int(after.min())
        looked.last_read_us = int(times.max())

    def _worst(
        self, block: CommitBlock, choice: TransactionChoice, limit: int | None, least: tuple[int, ...] | None
    ) -> Iterator[CommittedTransaction]:
        """Yield the transactions of a block that may be among the ``limit`` that are shown."""
        rows, others = choice.wanted(block)
        self._looked.matching += len(rows) + len(others)
        if limit is not None and len(rows) > 0:
            if self.options.biggest_first:
                weights = block.sums(block.changes.wal_bytes, np.ones(len(block.changes.relations), np.bool_))[rows]
            else:
                weights = choice.harmed(block)[rows]
            if least is not None:
                rows, weights = rows[weights >= least[-1]], weights[weights >= least[-1]]
            if len(rows) > limit:
                rows = np.sort(rows[np.argsort(-weights, kind="stable")[:limit]])
        yield from block.in_order(rows, others)

    def _weight(self, found: FoundTransaction) -> tuple[int, ...]:
        return (found.wal_bytes,) if self.options.biggest_first else harm_of(found)

    def _found(self, one: CommittedTransaction) -> FoundTransaction:
        found = self._naming.transaction(one, self._timeline(one.lsn))
        harm = harm_of(found)
        if self._suspect is None or harm > self._suspect[0]:
            self._suspect = harm, found
        return found

    def _timeline(self, lsn: int) -> int:
        if self._window is None:
            return 1
        for one in self._window.path.stretches:
            if lsn < one.end_lsn:
                return one.timeline
        return self._window.path.timeline

    def _edges(self, window: FindWindow) -> Iterator[str]:
        """Say where the window reaches past what is archived."""
        looked = self._looked
        first_us = looked.first_after_us
        if window.begins_run and first_us is not None and commit_moment(first_us) > window.begin_at:
            yield (
                f"the WAL that was read begins with a commit of {moment_utc(commit_moment(first_us))}: "
                "nothing from the window before it was seen"
            )
        if looked.is_at_end and looked.last_read_us is not None and window.end_at is not None:
            last_at = commit_moment(looked.last_read_us)
            if last_at < window.end_at:
                yield f"the last commit that is archived is of {moment_utc(last_at)}: nothing after it was seen"

    def _require_wal(self, window: FindWindow) -> None:
        """Refuse a window in which there is no WAL at all. Raises: FindWindowError."""
        looked = self._looked
        lacks_some = window.begins_run or bool(self._chain.holes)
        if looked.commits or not lacks_some or window.end_at is None or looked.first_after_us is None:
            return
        after_at = commit_moment(looked.first_after_us)
        if after_at <= window.end_at:
            return
        before_at = window.before_at if looked.before_us is None else commit_moment(looked.before_us)
        before = "" if before_at is None else f"{moment_utc(before_at)} (before) and "
        raise FindWindowError(
            f"no WAL between {moment_utc(window.begin_at)} and {moment_utc(window.end_at)} is archived",
            hint=f"The nearest commits that are archived are of {before}{moment_utc(after_at)} (after).",
        )


def _times(block: CommitBlock) -> "np.ndarray[Any, Any]":
    others = np.array([one.committed_us for one in block.others], np.int64)
    return np.concatenate([block.committed_us, others])
