"""Removes from one store what its plan expires, in the plan's order, and then the records of it."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from threading import Lock
from typing import Final

from wal_pipeline.archive.retention.plan import Expired, Step
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.commands.audit import AuditLog
from wal_pipeline.commands.expire.pieces import forget_pieces
from wal_pipeline.commands.expire.plan import StorePlan
from wal_pipeline.errors import ObjectLockedError, StoreError
from wal_pipeline.stores.base import Store

_log = logging.getLogger(__name__)
_RECORDS_AT_ONCE: Final = 200
Replan = Callable[[frozenset[str]], StorePlan]
"""Plan the store again with these base backups' ids as locked."""


@dataclass(frozen=True, slots=True)
class Removed:
    """The objects that were removed from one store. ``versions`` counts all versions of all objects.

    ``pieces`` is the number of pieces and ``pieces_bytes`` their part of ``freed_bytes``; ``lists`` is the number of
    lists of relations. ``locked`` are the keys that the store refused to remove. ``error``: why it ended before the
    plan did.
    """

    files: tuple[str, ...] = ()
    base_backups: tuple[str, ...] = ()
    versions: int = 0
    freed_bytes: int = 0
    locked: tuple[str, ...] = ()
    error: str | None = None
    pieces: int = 0
    pieces_bytes: int = 0
    lists: int = 0


class _ManifestLockedError(Exception):
    """A base backup has to stay whole, for its manifest stays."""

    def __init__(self, backup_id: str) -> None:
        super().__init__(backup_id)
        self.backup_id = backup_id


@dataclass(slots=True)
class StepRunner:
    """Does one store's plan. ``concurrency`` files are removed at once; base backups go one object after the other."""

    store: Store
    catalog: Catalog
    audit: AuditLog
    concurrency: int
    _files: list[str] = field(default_factory=list)
    _unrecorded: list[str] = field(default_factory=list)
    _base_backups: list[str] = field(default_factory=list)
    _emptied: set[str] = field(default_factory=set)
    _locked: dict[str, str] = field(default_factory=dict)
    _versions: int = 0
    _freed_bytes: int = 0
    _pieces: int = 0
    _pieces_bytes: int = 0
    _lists: int = 0
    _counting: Lock = field(default_factory=Lock)

    def run(self, plan: StorePlan, replan: Replan) -> tuple[StorePlan, Removed]:
        """Do the steps, and return the plan as it was in the end.

        A manifest that is locked stays with all that it needs: the rest is planned again.

        Raises: CatalogError.
        """
        locked = frozenset[str]()
        error = None
        while True:
            try:
                self._do(plan)
            except _ManifestLockedError as met:
                locked |= {met.backup_id}
                plan = replan(locked)
                continue
            except StoreError as failure:
                error = failure.message
            break
        return plan, Removed(
            files=tuple(self._files),
            base_backups=tuple(self._base_backups),
            versions=self._versions,
            freed_bytes=self._freed_bytes,
            locked=tuple(self._locked.values()),
            error=error,
            pieces=self._pieces,
            pieces_bytes=self._pieces_bytes,
            lists=self._lists,
        )

    def _do(self, plan: StorePlan) -> None:
        steps = plan.plan.expire if plan.plan is not None else ()
        try:
            for step in steps:
                if step.step is Step.PIECES:
                    self._remove_pieces(plan, step)
                elif step.step is Step.RELATIONS:
                    self._remove_list(plan, step)
                elif step.step is not Step.WAL_FILE:
                    self._remove_backup(plan, step)
            self._remove_files(plan, [step for step in steps if step.step is Step.WAL_FILE])
        finally:
            self._forget(plan)

    def _remove_backup(self, plan: StorePlan, step: Expired) -> None:
        if step.step is Step.BACKUP_MANIFEST and step.name in self._base_backups:
            return  # gone before the rest was planned again
        if step.step is Step.BACKUP_MANIFEST:
            removed = self._delete(plan.layout.manifest_key(step.name))
            if removed is None:
                raise _ManifestLockedError(step.name)
            self._base_backups.append(step.name)
            self.catalog.base_backups.remove_copy(plan.layout.system_identifier, step.name, self.store.name)
            self._write_down(step)
            return
        if step.name not in self._emptied:
            gone = [self._delete(key) is not None for key in plan.keys.get(step.name, ())]
            self._emptied.add(step.name)
            self._freed_bytes += step.stored_bytes if all(gone) else 0

    def _remove_pieces(self, plan: StorePlan, step: Expired) -> None:
        keys = plan.keys.get(step.name, ())
        gone = [key for key in keys if self._delete(key) is not None]
        self._pieces += len(gone)
        forget_pieces(self.catalog, plan.layout, self.store.name, gone)
        if len(gone) == len(keys):
            self._freed_bytes += step.stored_bytes
            self._pieces_bytes += step.stored_bytes
            self._write_down(step)

    def _remove_list(self, plan: StorePlan, step: Expired) -> None:
        if self._remove_file(plan, step):
            self._lists += 1
            self._freed_bytes += step.stored_bytes
            self._write_down(step)

    def _remove_files(self, plan: StorePlan, steps: Sequence[Expired]) -> None:
        """Remove files some at a time: a crash leaves no hole wider than what was under way."""
        with ThreadPoolExecutor(self.concurrency, thread_name_prefix="expire") as pool:
            for some in _chunks(steps, self.concurrency):
                answers = list(pool.map(lambda step: self._remove_file(plan, step), some))
                for step, gone in zip(some, answers, strict=True):
                    if gone:
                        self._files.append(step.name)
                        self._unrecorded.append(step.name)
                        self._freed_bytes += step.stored_bytes
                        self._write_down(step)
                if len(self._unrecorded) >= _RECORDS_AT_ONCE:
                    self._forget(plan)

    def _remove_file(self, plan: StorePlan, step: Expired) -> bool:
        gone = [self._delete(key) is not None for key in plan.keys.get(step.name, ())]
        return all(gone)

    def _delete(self, key: str) -> int | None:
        """Remove an object with all its versions; None where it is locked, which is asked once in a run."""
        if key in self._locked:
            return None
        try:
            removed = self.store.delete(key)
        except ObjectLockedError as error:
            _log.warning("%s", error.message)
            self._locked[key] = error.message
            return None
        with self._counting:
            self._versions += removed
        return removed

    def _write_down(self, step: Expired) -> None:
        self.audit.write("delete", step.name, "removed", store=self.store.name, reason=step.reason)

    def _forget(self, plan: StorePlan) -> None:
        system_identifier, store = plan.layout.system_identifier, self.store.name
        if self._unrecorded:
            self.catalog.files.remove_copy(system_identifier, self._unrecorded, store)
            self._unrecorded.clear()
        for backup_id in plan.forget:
            self.catalog.base_backups.remove_copy(system_identifier, backup_id, store)


def _chunks(steps: Iterable[Expired], size: int) -> Iterator[list[Expired]]:
    remaining = iter(steps)
    while some := list(islice(remaining, size)):
        yield some
