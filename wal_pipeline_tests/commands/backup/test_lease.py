"""While a process stores a base backup, nobody removes its objects, and nobody begins another one unawares."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.format.lease import LEASE_LASTS, Lease, LeasedWork
from wal_pipeline.commands.backup import lease as lease_module
from wal_pipeline.commands.backup.lease import held_lease
from wal_pipeline.commands.backup.leftovers import RemovedUnfinished, remove_unfinished
from wal_pipeline.commands.inventory.leases import find_leases, needed_backups, possible_leases
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
from wal_pipeline_tests.support.archive_scene import WatchedStore
from wal_pipeline_tests.support.base_backup_scene import folder_store, now

LAYOUT = Layout("", "main", 7575757575757575757)
RUNNING = "20261122T010000Z-000000010000000000000009"
PARENT = "20261121T010000Z-000000010000000000000002"
OTHER = Lease("0f" * 8, LeasedWork.BASE_BACKUP, None, (), "db2", 4711, "", "1.0", now(), now() + LEASE_LASTS)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the pauses, in the same proportions: each of them is waited out here."""
    for name in ("_BETWEEN_TRIES_SECONDS", "_POLL_SECONDS", "_CONTENTION_SECONDS"):
        monkeypatch.setattr(lease_module, name, getattr(lease_module, name) / 10)


@pytest.fixture
def places(tmp_path: Path) -> list[ClusterStore]:
    """One cluster on two folders."""
    return [ClusterStore(WatchedStore(folder_store(name, tmp_path)), LAYOUT) for name in ("r2", "b2")]


def put(place: ClusterStore, lease: Lease, number: int = 1) -> str:
    """Store another process's sign of life."""
    key = LAYOUT.lease_key(lease.token, number)
    place.store.put_if_absent(key, Body.of(lease.to_json()), {})
    return key


def age(place: ClusterStore, path: Path, key: str, hours: float) -> None:
    """Let the store say that an object is older."""
    file = path / place.name / "objects" / key
    moment = time.time() - hours * 3600
    os.utime(file, (moment, moment))


def test_a_second_base_backup_does_not_begin_while_one_runs(places: list[ClusterStore]) -> None:
    """It names host, process, since when, and the way out; the first one is not disturbed."""
    put(places[1], OTHER)
    (stored,) = find_leases(places[1])
    with pytest.raises(BaseBackupRunningError) as caught, held_lease(places, LeasedWork.BASE_BACKUP, clock=now):
        pass
    assert caught.value.message == (
        "b2: another base backup of this cluster is running: base backup by process 4711 on host 'db2' since "
        f"{OTHER.since_at:%Y-%m-%d %H:%M:%S}Z"
    )
    assert caught.value.hint == (
        "Wait for it ('wal-pipeline backup --wait 3600'). Where its process was killed, its lease ends at "
        f"{moment_utc(stored.modified_at + LEASE_LASTS)} by the store's clock; 'wal-pipeline backup --wait 660' takes "
        "over then, also where a clock was wrong."
    )
    assert [one.token for place in places for one in find_leases(place)] == [OTHER.token]


def test_one_may_be_waited_for(places: list[ClusterStore], monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait says what it waits for, and begins once the other one is done."""
    monkeypatch.setattr(lease_module, "_POLL_SECONDS", 0.05)
    key = put(places[0], OTHER)
    told: list[str] = []

    def on_wait(text: str) -> None:
        told.append(text)
        places[0].store.delete(key)

    with held_lease(places, LeasedWork.BASE_BACKUP, clock=now, wait_seconds=30, on_wait=on_wait) as lease:
        assert [place.name for place in lease.places] == ["r2", "b2"]
    assert told[0].startswith("another base backup of this cluster is running: base backup by process 4711")


def test_a_process_that_is_known_to_have_ended_holds_up_nobody(places: list[ClusterStore]) -> None:
    """It was killed on this machine a moment ago; its lease is removed."""
    space = own_identity().rsplit(" ", 2)[0]
    put(places[0], replace(OTHER, identity=f"{space} 4194305 1"))
    with held_lease(places, LeasedWork.BASE_BACKUP, clock=now) as ours:
        assert {one.token for place in places for one in find_leases(place)} == {ours.token}
    assert [find_leases(place) for place in places] == [[], []]


def test_a_lease_without_a_sign_of_life_ends_by_itself(places: list[ClusterStore], tmp_path: Path) -> None:
    """Eleven minutes after the last one, by the store's clock and by the host's."""
    old = replace(OTHER, expires_at=now() - timedelta(minutes=1))
    age(places[0], tmp_path, put(places[0], old), 11 / 60)
    with held_lease(places, LeasedWork.BASE_BACKUP, clock=now):
        pass


def test_a_renewed_lease_goes_before_a_younger_one(places: list[ClusterStore]) -> None:
    """Its object is younger than ours, for it was renewed while we looked: it still was there first."""
    place = places[0]
    store = place.store
    assert isinstance(store, WatchedStore)

    def renew(call: str, key: str) -> None:
        if call == "list" and key == LAYOUT.lease_root:
            time.sleep(2.1)  # beyond what counts as the same moment
            store.before = lambda _call, _key: None
            put(place, OTHER, number=17)

    store.before = renew
    with pytest.raises(BaseBackupRunningError), held_lease([place], LeasedWork.BASE_BACKUP, clock=now):
        pass


def test_some_that_begin_in_the_same_moment_never_run_together_nor_all_give_up(tmp_path: Path) -> None:
    """Three threads begin at once, as the schedules of three hosts do: at most one is inside at any time."""
    places = [ClusterStore(folder_store(name, tmp_path), LAYOUT) for name in ("r2", "b2")]
    inside, most, done = 0, 0, 0
    lock = threading.Lock()
    start = threading.Barrier(3)

    def begin() -> None:
        nonlocal inside, most, done
        start.wait()
        try:
            with held_lease(places, LeasedWork.BASE_BACKUP, clock=now):
                with lock:
                    inside += 1
                    most = max(most, inside)
                time.sleep(0.2)
                with lock:
                    inside -= 1
                    done += 1
        except BaseBackupRunningError:
            return

    threads = [threading.Thread(target=begin) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert done >= 1


def test_objects_of_a_running_base_backup_stay_whatever_their_age(places: list[ClusterStore], tmp_path: Path) -> None:
    """25 hours and more without a new object: PostgreSQL waited for its archiver, and the process lives."""
    place = places[0]
    key = LAYOUT.base_key(RUNNING, "base.000000.tar.zst")
    place.store.put_if_absent(key, Body.of(b"x"), {})
    place.store.begin_upload(LAYOUT.base_key(RUNNING, "base.000001.tar.zst"), {})
    age(place, tmp_path, key, 50)
    with held_lease(places, LeasedWork.BASE_BACKUP, clock=now, needs=(PARENT,)) as lease:
        lease.protect(RUNNING)
        assert needed_backups(possible_leases(place)) == {RUNNING, PARENT}
        removed = remove_unfinished(place, now=now(), older_than=timedelta(0))
        assert removed == RemovedUnfinished("r2", (), objects=0, uploads=0)
    removed = remove_unfinished(place, now=now() + timedelta(hours=1), older_than=timedelta(minutes=1))
    assert removed == RemovedUnfinished("r2", (RUNNING,), objects=1, uploads=1)


def test_a_lease_that_cannot_be_read_keeps_everything(places: list[ClusterStore]) -> None:
    """A newer program on another host may be storing any of it."""
    place = places[0]
    place.store.put_if_absent(LAYOUT.base_key(RUNNING, "base.000000.tar.zst"), Body.of(b"x"), {})
    place.store.put_if_absent(LAYOUT.lease_key("0f" * 8, 1), Body.of(b"{}"), {})
    removed = remove_unfinished(place, now=now() + timedelta(hours=2), older_than=timedelta(0))
    assert removed == RemovedUnfinished("r2", (), objects=0, uploads=0)


def test_a_refill_holds_up_no_base_backup_and_no_other_refill(places: list[ClusterStore]) -> None:
    """Only the same base backup on the same store is refilled by one process at a time."""
    with held_lease(places, LeasedWork.REFILL, clock=now, backup_id=RUNNING):
        with held_lease(places, LeasedWork.BASE_BACKUP, clock=now):
            pass
        with held_lease(places, LeasedWork.REFILL, clock=now, backup_id=PARENT):
            pass
        time.sleep(0.01)
        with (
            pytest.raises(BaseBackupRunningError),
            held_lease(places, LeasedWork.REFILL, clock=now, backup_id=RUNNING),
        ):
            pass


def test_a_store_that_takes_no_lease_is_left_out_and_named(places: list[ClusterStore]) -> None:
    """The other one goes on; with none left nothing is read from the server."""

    def fail(place: ClusterStore) -> None:
        store = place.store
        assert isinstance(store, WatchedStore)

        def down(call: str, key: str) -> None:
            raise StoreUnavailableError(store.name, f"{call} {key}: no answer")

        store.before = down

    fail(places[1])
    with held_lease(places, LeasedWork.BASE_BACKUP, clock=now) as lease:
        assert [place.name for place in lease.places] == ["r2"]
        assert list(lease.failures) == ["b2"]
    fail(places[0])
    message = "^no store took the base backup: r2: put"
    with (
        pytest.raises(BaseBackupError, match=message),
        held_lease(places, LeasedWork.BASE_BACKUP, clock=now),
    ):
        pass


@pytest.mark.parametrize("fault", ["list", "forget"])
def test_a_store_whose_leases_cannot_be_read_is_left_out(places: list[ClusterStore], fault: str) -> None:
    """Another process may be storing there; nor is one trusted that forgot the lease which it said to have stored."""
    store = places[1].store
    assert isinstance(store, WatchedStore)

    def trouble(call: str, key: str) -> None:
        if call != "list" or not key.startswith(LAYOUT.lease_root):
            return
        if fault == "list":
            raise StoreUnavailableError(store.name, f"{call} {key}: no answer")
        store.before = lambda _call, _key: None
        for item in list(store.list(LAYOUT.lease_root)):
            store.delete(item.key)
        store.before = trouble

    store.before = trouble
    with held_lease(places, LeasedWork.BASE_BACKUP, clock=now) as lease:
        assert [place.name for place in lease.places] == ["r2"]
        assert list(lease.failures) == ["b2"]


def test_renewing_leaves_one_object_and_the_end_none(
    places: list[ClusterStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each sign of life has a key of its own, and the one before it goes: B2 would keep every version of one key."""
    monkeypatch.setattr(lease_module, "_RENEW_SECONDS", 0.02)
    place = places[0]
    with held_lease([place], LeasedWork.BASE_BACKUP, clock=now):
        _until(lambda: max((one.number for one in find_leases(place)), default=0) > 5)
        assert len(list(place.store.list(LAYOUT.lease_root))) <= 2
    assert list(place.store.list(LAYOUT.lease_root)) == []
    store = place.store
    assert isinstance(store, WatchedStore)
    created = [key for key in store.created if "/lease/" in key]
    assert len(created) == len(set(created))


def test_a_lease_whose_renewal_fails_is_tried_again(
    places: list[ClusterStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that is down for a while does not end the thread."""
    monkeypatch.setattr(lease_module, "_RENEW_SECONDS", 0.02)
    monkeypatch.setattr(lease_module, "_RETRY_SECONDS", 0.02)
    place = places[0]
    store = place.store
    assert isinstance(store, WatchedStore)
    failures = 3

    def down(call: str, key: str) -> None:
        nonlocal failures
        if call == "put" and failures:
            failures -= 1
            raise StoreUnavailableError("r2", f"{key}: no answer")

    with held_lease([place], LeasedWork.BASE_BACKUP, clock=now):
        store.before = down
        _until(lambda: not failures)
        _until(lambda: max((one.number for one in find_leases(place)), default=0) > 4)
    assert list(place.store.list(LAYOUT.lease_root)) == []


def test_the_store_s_clock_decides_and_not_the_hosts(places: list[ClusterStore]) -> None:
    """A host whose clock is a day ahead sees the lease of a living process all the same."""
    put(places[0], OTHER)

    def ahead() -> datetime:
        return datetime.now(UTC) + timedelta(days=1)

    with pytest.raises(BaseBackupRunningError), held_lease(places, LeasedWork.BASE_BACKUP, clock=ahead):
        pass


def test_a_killed_process_of_another_host_is_taken_over_though_a_clock_was_wrong(
    places: list[ClusterStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last sign of life is dated a day ahead: one that waits sees by its own clock that no other one comes."""
    monkeypatch.setattr(lease_module, "_POLL_SECONDS", 0.05)
    monkeypatch.setattr(lease_module, "_SILENT_SECONDS", 0.5)
    ahead = replace(OTHER, expires_at=now() + timedelta(days=1))
    age(places[0], tmp_path, put(places[0], ahead), -24)
    with pytest.raises(BaseBackupRunningError), held_lease(places, LeasedWork.BASE_BACKUP, clock=now):
        pass
    with held_lease(places, LeasedWork.BASE_BACKUP, clock=now, wait_seconds=60) as ours:
        assert [place.name for place in ours.places] == ["r2", "b2"]


def test_one_that_waits_never_takes_over_from_a_living_process(
    places: list[ClusterStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each new sign of life begins the count anew, whatever the clocks say."""
    monkeypatch.setattr(lease_module, "_POLL_SECONDS", 0.05)
    monkeypatch.setattr(lease_module, "_SILENT_SECONDS", 3.0)
    numbers = iter(range(1, 1000))
    keys = [put(places[0], OTHER, number=next(numbers))]

    def renew(_text: str) -> None:
        keys.append(put(places[0], OTHER, number=next(numbers)))
        places[0].store.delete(keys.pop(0))

    held = held_lease(places, LeasedWork.BASE_BACKUP, clock=now, wait_seconds=8, on_wait=renew)
    with pytest.raises(BaseBackupRunningError, match="is running after 8 seconds"), held:
        pass


def test_a_host_whose_clock_is_ahead_removes_no_object_of_a_running_base_backup(
    places: list[ClusterStore],
) -> None:
    """Nor the chain on which it builds: no clock decides, but whether its lease lies there."""
    place = places[0]
    key = LAYOUT.base_key(RUNNING, "base.000000.tar.zst")
    place.store.put_if_absent(key, Body.of(b"x"), {})
    put(place, replace(OTHER, backup_id=RUNNING, needs=(PARENT,)))
    removed = remove_unfinished(place, now=now() + timedelta(days=3), older_than=timedelta(days=2))
    assert removed == RemovedUnfinished("r2", (), objects=0, uploads=0)
    assert needed_backups(possible_leases(place)) == {RUNNING, PARENT}


def test_a_store_that_was_down_for_longer_than_a_lease_does_not_lose_it(
    places: list[ClusterStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another base backup begins, which is the price, and leaves the lease and the objects of the first one there."""
    place = places[0]
    key = LAYOUT.base_key(RUNNING, "base.000000.tar.zst")
    monkeypatch.setattr(lease_module, "_RENEW_SECONDS", 3600.0)  # no sign of life comes through
    with held_lease([place], LeasedWork.BASE_BACKUP, clock=lambda: now() - timedelta(minutes=30)) as first:
        first.protect(RUNNING)
        place.store.put_if_absent(key, Body.of(b"x"), {})
        (lease,) = find_leases(place)
        age(place, tmp_path, lease.keys[-1], 0.5)
        with held_lease([place], LeasedWork.BASE_BACKUP, clock=now):
            remove_unfinished(place, now=now(), older_than=timedelta(0))
        assert place.store.head(key) is not None
        assert {one.token for one in find_leases(place)} == {first.token}


@pytest.mark.parametrize("refusal", [ObjectLockedError, StoreAccessError])
def test_a_lease_that_cannot_be_removed_holds_up_no_later_base_backup(
    places: list[ClusterStore], refusal: type[StoreError]
) -> None:
    """Objects are locked, or the keys may not delete: its holder says there that it is done, and it hides no other."""
    place = places[0]
    store = place.store
    assert isinstance(store, WatchedStore)

    def locked(call: str, key: str) -> None:
        if call == "delete":
            raise refusal(store.name, f"object '{key}' may not be deleted")

    store.before = locked
    with held_lease([place], LeasedWork.BASE_BACKUP, clock=now) as first:
        first.protect(RUNNING)
    (left,) = find_leases(place)
    assert left.lease is not None
    assert left.lease.ended
    with held_lease([place], LeasedWork.BASE_BACKUP, clock=now):
        pass
    assert possible_leases(place) == []
    store.before = lambda _call, _key: None
    remove_unfinished(place, now=now(), older_than=timedelta(days=2))  # as an expiry with other keys does
    assert find_leases(place) == []
    store.before = locked
    put(place, replace(OTHER, token="ff" * 8))
    with pytest.raises(BaseBackupRunningError), held_lease([place], LeasedWork.BASE_BACKUP, clock=now):
        pass


def _until(condition: Callable[[], bool], timeout_seconds: float = 20) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
