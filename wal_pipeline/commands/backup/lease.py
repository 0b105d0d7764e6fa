"""Holds a lease on each store while a base backup is stored there.

A process that stores a base backup gives a sign of life every two minutes. Until ten minutes after the last one no
second base backup of the cluster begins. A lease ends by itself, by the store's clock; a process that waits for it also
sees by its own that no sign of life comes, whatever the clocks say.

Nobody removes what it stored, whatever its age, while its lease is there. Only a base backup removes leases that have
ended: it has one of its own beside them, and so knows the store's time.
"""

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from wal_pipeline import __version__
from wal_pipeline.archive.format.lease import LEASE_LASTS, Lease, LeasedWork, StoredLease
from wal_pipeline.commands.inventory.leases import find_leases, is_over
from wal_pipeline.errors import (
    BaseBackupError,
    BaseBackupRunningError,
    ObjectLockedError,
    StoreAccessError,
    StoreError,
    StoreUnavailableError,
)
from wal_pipeline.host.process_identity import own_identity
from wal_pipeline.stores.base import Body
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.text import moment_utc

_log = logging.getLogger(__name__)
_RENEW_SECONDS: Final = 120.0
_RETRY_SECONDS: Final = 15.0
_POLL_SECONDS: Final = 5.0
_CONTENTION_SECONDS: Final = 20.0
_PUT_TRIES: Final = 3
_BETWEEN_TRIES_SECONDS: Final = 1.0
# Two leases that a store dates so close together may have been stored in either order: a clock may count whole seconds.
_SAME_MOMENT: Final = timedelta(seconds=2)
_KEPT_AFTER_END: Final = timedelta(hours=1)
_TAKE_OVER_SECONDS: Final = 660
_SILENT_SECONDS: Final = LEASE_LASTS.total_seconds()
_METADATA: Final = {"base-format": "1"}
WaitCallback = Callable[[str], object]


class NoStoreError(BaseBackupError):
    """No store took a lease, so nothing could be stored. ``first`` is the first store's error."""

    def __init__(self, message: str, first: Exception, *, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.first = first


class HeldLease:
    """Our lease on several stores, which threads of its own renew. ``failures``: the stores that did not take it."""

    def __init__(self, places: Sequence[ClusterStore], lease: Lease, clock: Callable[[], datetime]) -> None:
        self.failures: dict[str, Exception] = {}
        self._places = list(places)
        self._reached: list[ClusterStore] = []
        self._lease = lease
        self._clock = clock
        self._numbers = {place.name: 0 for place in places}
        self._locks = {place.name: threading.Lock() for place in places}
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    @property
    def places(self) -> list[ClusterStore]:
        """The stores that took the lease."""
        return [place for place in self._places if place.name not in self.failures]

    @property
    def token(self) -> str:
        """The name of this holder."""
        return self._lease.token

    def put_first(self) -> None:
        """Store the first sign of life. Raises: BaseBackupError where no store takes it."""
        for place in self._places:
            try:
                self._put_retried(place)
                self._reached.append(place)
            except StoreError as error:
                self.leave_out(place, error)
        self.require_store()

    def put_again(self, place: ClusterStore) -> None:
        """Store another sign of life on one store. Raises: StoreError."""
        self._put(place)

    def leave_out(self, place: ClusterStore, error: StoreError) -> None:
        """Go on without a store."""
        self.failures[place.name] = error
        _log.warning("base backup continues without store %s: %s", place.name, error.message)

    def require_store(self) -> None:
        """Raise BaseBackupError where no store is left."""
        if not self.places:
            errors = list(self.failures.values())
            hints = [hint for error in errors if (hint := getattr(error, "hint", None))]
            reasons = "; ".join(str(getattr(error, "message", error)) for error in errors)
            hint = hints[0] if hints else "Nothing was read from the server. Repair the stores and take it again."
            raise NoStoreError(f"no store took the base backup: {reasons}", errors[0], hint=hint)

    def keep(self) -> None:
        """Begin to renew."""
        for place in self.places:
            thread = threading.Thread(target=self._renew, args=(place,), name=f"lease-{place.name}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def protect(self, backup_id: str) -> None:
        """Say on every store which base backup is stored, before its first object is."""
        self._lease = replace(self._lease, backup_id=backup_id)
        for place in self.places:
            try:
                self._put(place)
            except StoreError as error:  # what is stored is young, and the next renewal says it
                _log.warning("the lease is renewed later: %s", error.message)

    def release(self) -> None:
        """Remove our lease everywhere; what stays ends by itself."""
        self._stop.set()
        for thread in self._threads:
            thread.join(_RETRY_SECONDS)
        for place in self._reached:
            try:
                prefix = f"{place.layout.lease_root}{self.token}."
                removed = [_is_removed(place, item.key) for item in list(place.store.list(prefix))]
                if not all(removed):
                    self._put(place, ended=True)
            except StoreError as error:
                _log.info("a lease stays until it ends by itself: %s", error.message)

    def _renew(self, place: ClusterStore) -> None:
        pause_seconds = _RENEW_SECONDS
        while not self._stop.wait(pause_seconds):
            try:
                self._put(place)
                pause_seconds = _RENEW_SECONDS
            except StoreError as error:
                _log.warning("the lease is not renewed, tried again in %g s: %s", _RETRY_SECONDS, error.message)
                pause_seconds = _RETRY_SECONDS

    def _put_retried(self, place: ClusterStore) -> None:
        for tries_left in range(_PUT_TRIES - 1, -1, -1):
            try:
                self._put(place)
            except StoreUnavailableError:
                if not tries_left:
                    raise
                time.sleep(_BETWEEN_TRIES_SECONDS)
            else:
                return

    def _put(self, place: ClusterStore, *, ended: bool = False) -> None:
        with self._locks[place.name]:
            before = self._numbers[place.name]
            self._numbers[place.name] = before + 1  # also where it fails: the object may be there all the same
            lease = replace(self._lease, expires_at=self._clock() + LEASE_LASTS, ended=ended)
            place.store.put_if_absent(
                place.layout.lease_key(self.token, before + 1), Body.of(lease.to_json()), _METADATA
            )
            if before:
                _is_removed(place, place.layout.lease_key(self.token, before))


def _is_removed(place: ClusterStore, key: str) -> bool:
    """Remove an object; return False where its store locks it or our keys may not delete. Raises: StoreError."""
    try:
        place.store.delete(key)
    except (ObjectLockedError, StoreAccessError):
        return False
    return True


class _Signs:
    """The signs of life that a waiting process saw: how long each holder has given no new one, by our own clock."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], tuple[int, float]] = {}

    def silent_seconds(self, found: StoredLease) -> float:
        """Return for how long the lease has been the same."""
        now, key = time.monotonic(), (found.store, found.token)
        number, since = self._seen.get(key, (found.number, now))
        self._seen[key] = (found.number, since if number == found.number else now)
        return now - self._seen[key][1]


@dataclass(frozen=True, slots=True)
class _Rival:
    """A lease that goes before ours. One that is not running began in the same moment, and withdraws as we do."""

    lease: StoredLease
    is_running: bool


@contextmanager
def held_lease(
    places: Sequence[ClusterStore],
    work: LeasedWork,
    *,
    clock: Callable[[], datetime],
    backup_id: str | None = None,
    needs: tuple[str, ...] = (),
    wait_seconds: float = 0.0,
    on_wait: WaitCallback = lambda _: None,
) -> Iterator[HeldLease]:
    """Hold a lease while the block runs. It waits up to ``wait_seconds`` for another process to end.

    ``on_wait`` gets a text that says what is waited for.

    Raises: BaseBackupRunningError where another process stores a base backup of this cluster (for a refill: the same
    one); BaseBackupError where no store takes the lease.
    """
    begun = time.monotonic()
    deadline = begun + wait_seconds
    signs = _Signs()
    while True:
        held = HeldLease(places, _new_lease(work, backup_id, needs, clock()), clock)
        try:
            held.put_first()
            rival = _rival(held, work, backup_id, clock(), signs)
            if rival is None:
                held.keep()
                yield held
                return
        finally:
            held.release()
        until = deadline if rival.is_running else max(deadline, begun + _CONTENTION_SECONDS)
        left_seconds = until - time.monotonic()
        if left_seconds <= 0:
            raise _refusal(rival.lease, wait_seconds)
        if rival.is_running:
            on_wait(f"another base backup of this cluster is running: {_described(rival.lease)}")
        by_chance = secrets.randbelow(1000) / 1000
        time.sleep(min(left_seconds, _POLL_SECONDS + by_chance if rival.is_running else _POLL_SECONDS * by_chance))


def _new_lease(work: LeasedWork, backup_id: str | None, needs: tuple[str, ...], now: datetime) -> Lease:
    host = socket.gethostname()
    token, identity = secrets.token_hex(8), own_identity()
    return Lease(token, work, backup_id, needs, host, os.getpid(), identity, __version__, now, now + LEASE_LASTS)


def _rival(held: HeldLease, work: LeasedWork, backup_id: str | None, now: datetime, signs: _Signs) -> "_Rival | None":
    """Return a lease that goes before ours; leases of processes that ended long ago are removed.

    A store where the leases cannot be read is left out: another process may be storing there. Of two processes that
    store their first sign of life in the same moment each sees the other. Both withdraw, and begin again by chance.

    Raises: BaseBackupError where no store is left.
    """
    for place in held.places:
        try:
            rival = _look_retried(held, place, lambda other: _concerns(other, work, backup_id), now, signs)
        except StoreError as error:
            held.leave_out(place, error)
            continue
        if rival is not None:
            return rival
    held.require_store()
    return None


def _look_retried(
    held: HeldLease, place: ClusterStore, concerns: Callable[[StoredLease], bool], now: datetime, signs: _Signs
) -> "_Rival | None":
    for tries_left in range(_PUT_TRIES - 1, -1, -1):
        try:
            return _look(held.token, place, concerns, now, signs)
        except StoreUnavailableError:
            if not tries_left:
                raise
            time.sleep(_BETWEEN_TRIES_SECONDS)
            held.put_again(place)
    return None


def _look(
    token: str, place: ClusterStore, concerns: Callable[[StoredLease], bool], now: datetime, signs: _Signs
) -> "_Rival | None":
    """Look at the leases on one store. Raises: StoreError, also where ours is not there as it was stored."""
    found = find_leases(place)
    ours = next((one for one in found if one.token == token), None)
    if ours is None or ours.lease is None:
        raise StoreUnavailableError(place.name, "the lease of this base backup was stored and cannot be read again")
    rivals = []
    for other in (one for one in found if one.token != token):
        if is_over(other) or not other.is_current(ours.modified_at, now):
            _remove_ended(place, other, ours.modified_at, now)
        elif signs.silent_seconds(other) >= _SILENT_SECONDS:
            _log.warning("%s: a lease has ended without a sign of life: %s", place.name, _described(other))
        elif concerns(other) and _goes_before(other, ours.modified_at):
            rivals.append(_Rival(other, _is_running(other, ours.modified_at)))
    return max(rivals, key=lambda one: one.is_running, default=None)


def _concerns(other: StoredLease, work: LeasedWork, backup_id: str | None) -> bool:
    if other.lease is None:
        # It keeps all objects, but no base backup from being taken: a damaged object would do so for a day.
        _log.warning("%s: a lease cannot be read; perhaps a newer program takes a base backup now", other.store)
        return False
    if work is LeasedWork.REFILL:
        return other.lease.backup_id == backup_id
    return other.lease.work is LeasedWork.BASE_BACKUP


def _goes_before(other: StoredLease, ours_at: datetime) -> bool:
    """Say whether another lease was there first. One that is dated far ahead was stored while a clock was wrong."""
    later = other.modified_at - ours_at
    return other.number > 1 or later <= _SAME_MOMENT or later > LEASE_LASTS


def _is_running(other: StoredLease, ours_at: datetime) -> bool:
    named = other.lease is not None and other.lease.backup_id is not None
    return named or other.number > 1 or abs(other.modified_at - ours_at) > _SAME_MOMENT


def _remove_ended(place: ClusterStore, ended: StoredLease, store_now: datetime, now: datetime) -> None:
    if is_over(ended) or not ended.is_current(store_now - _KEPT_AFTER_END, now):
        try:
            for key in ended.keys:
                _is_removed(place, key)
        except StoreError as error:
            _log.info("a lease that has ended stays for now: %s", error.message)


def _described(rival: StoredLease) -> str:
    lease = rival.lease
    if lease is None:
        return f"one whose lease on {rival.store} cannot be read"
    name = f" '{lease.backup_id}'" if lease.backup_id else ""
    since = moment_utc(lease.since_at)
    return f"{lease.work.value}{name} by process {lease.process} on host '{lease.host}' since {since}"


def _refusal(rival: StoredLease, waited_seconds: float) -> BaseBackupRunningError:
    waited = f" after {waited_seconds:g} seconds" if waited_seconds else ""
    return BaseBackupRunningError(
        f"{rival.store}: another base backup of this cluster is running{waited}: {_described(rival)}",
        hint="Wait for it ('wal-pipeline backup --wait 3600'). Where its process was killed, its lease ends at "
        f"{moment_utc(rival.ends_at)} by the store's clock; 'wal-pipeline backup --wait {_TAKE_OVER_SECONDS}' takes "
        "over then, also where a clock was wrong.",
    )
