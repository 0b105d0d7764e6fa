"""One store's uploader: when it is tried again, and what it does with uploads when the store fails."""

import threading
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import SimpleQueue

import pytest

from wal_pipeline.archive.records import Codec, WalFile
from wal_pipeline.catalog.store_states import StoreState
from wal_pipeline.codec.encoder import Encoded, Encoder
from wal_pipeline.commands.archive_push.uploader import Gate, StoredCopy, StoreUploader, is_resting
from wal_pipeline.errors import StoreError
from wal_pipeline_tests.support.archive_scene import WatchedStore, fail, folder_store, layout
from wal_pipeline_tests.support.restore_archive import describe_file
from wal_pipeline_tests.support.segments import SYSTEM_IDENTIFIER, name_of, segment_bytes

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.fixture
def store(quick_folder: Path) -> WatchedStore:
    return WatchedStore(folder_store("r2", quick_folder / "r2"))


def lane_of(store: WatchedStore, state: StoreState | None = None, *, width: int = 2) -> StoreUploader:
    return StoreUploader(store, state or StoreState("r2"), width=width, read_back=True, max_backoff_seconds=300.0)


def encoded(number: int) -> tuple[WalFile, Encoded]:
    data = segment_bytes(number)
    return describe_file(name_of(number), data, SYSTEM_IDENTIFIER), Encoder(Codec.ZSTD).encode(data)


def test_the_wait_doubles_up_to_its_bound(store: WatchedStore) -> None:
    """5 seconds, then twice as long each time, at most the bound; one success ends it."""
    uploader, now, waits = lane_of(store), NOON, []
    for _ in range(9):
        uploader.failed(now, "r2: down")
        assert uploader.state.retry_at is not None
        waits.append((uploader.state.retry_at - now).total_seconds())
        now = uploader.state.retry_at
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert uploader.succeeded(now) is True
    assert uploader.state == StoreState("r2", last_failure_at=uploader.state.last_failure_at, last_success_at=now)
    assert uploader.succeeded(now) is False


def test_uploads_that_fail_together_count_once(store: WatchedStore) -> None:
    """Eight uploads of one outage are one failure, and the first one's message stays."""
    uploader = lane_of(store)
    for number in range(8):
        uploader.failed(NOON + timedelta(seconds=number / 10), f"r2: failure {number}")
    assert uploader.state.consecutive_failures == 1
    assert uploader.state.last_error == "r2: failure 0"


def test_after_a_failure_one_upload_is_tried(store: WatchedStore) -> None:
    """A uploader that failed has room for one file; a sound one for three: one prepared, one sent, one read back."""
    uploader = lane_of(store)
    assert [uploader.has_room() for uploader.in_flight in range(8)] == [True] * 6 + [False] * 2
    uploader.failed(NOON, "r2: down")
    assert [uploader.has_room() for uploader.in_flight in range(3)] == [True, False, False]


@pytest.mark.parametrize(
    ("after", "resting"),
    [(0, True), (4.9, True), (5, False), (86_400, False), (-1, False), (-86_400, False)],
)
def test_when_a_store_rests(after: float, resting: bool) -> None:
    """Until its next try; a clock that was set back before the failure does not hold it."""
    state = StoreState("r2", 1, "r2: down", NOON, None, NOON + timedelta(seconds=5))
    assert is_resting(state, NOON + timedelta(seconds=after)) is resting
    assert is_resting(StoreState("r2"), NOON) is False


def test_uploads_that_did_not_begin_are_cancelled(store: WatchedStore) -> None:
    """When the store fails, those that wait for their turn do not run into the same timeout one after another."""
    uploader, begun, go = lane_of(store, width=1), threading.Event(), threading.Event()

    def wait(call: str, _key: str) -> None:
        if call == "put":
            begun.set()
            go.wait(30)

    store.before = wait
    ended: list[Future[StoredCopy]] = []
    for number in (1, 2, 3, 4):  # one is sent, one has a thread and waits for its turn, two wait for a thread
        uploader.submit(layout(), *encoded(number), ended.append)
    begun.wait(30)
    uploader.failed(NOON, "r2: down")
    go.set()
    uploader.close()
    assert [future.cancelled() for future in ended].count(True) == 2
    stored = [future.exception() is None for future in ended if not future.cancelled()]
    assert sorted(stored) == [False, True]
    assert len(store.created) == 1


def test_a_file_is_sent_while_another_is_read_back(store: WatchedStore) -> None:
    """A read-back takes no upload's place; and no more are sent at once than the uploader is wide."""
    uploader, reading, sending, most = lane_of(store, width=1), threading.Event(), [0], [0]

    def before(call: str, key: str) -> None:
        if call == "open" and key.endswith(f"{name_of(1)}.zst"):
            reading.set()
            assert second_sent.wait(30)
        if call == "put":
            sending[0] += 1
            most[0] = max(most[0], sending[0])

    def after(call: str, _key: str) -> None:
        if call == "put":
            sending[0] -= 1
            if reading.is_set():
                second_sent.set()

    second_sent = threading.Event()
    store.before, store.after = before, after
    ended: SimpleQueue[Future[StoredCopy]] = SimpleQueue()
    uploader.submit(layout(), *encoded(1), ended.put)
    assert reading.wait(30)
    for number in (2, 3):
        uploader.submit(layout(), *encoded(number), ended.put)
    assert {ended.get(timeout=30).result().object_key for _ in range(3)} == set(store.created)
    assert most == [1]


def upload(uploader: StoreUploader, *numbers: int) -> list[Future[StoredCopy]]:
    """Store segments and wait for all of them."""
    ended: SimpleQueue[Future[StoredCopy]] = SimpleQueue()
    for number in numbers:
        uploader.submit(layout(), *encoded(number), ended.put)
    return [ended.get(timeout=30) for _ in numbers]


def test_a_folder_is_listed_once(store: WatchedStore) -> None:
    """What a store holds is learnt by one listing a folder, not by a request for each file."""
    ended = upload(lane_of(store), 1, 2, 3)
    assert [call for call, _ in store.calls].count("list") == 1
    assert {future.result().object_key for future in ended} == set(store.created)


def test_a_listing_that_failed_is_made_again(store: WatchedStore) -> None:
    """A store that cannot be listed takes no file: what it holds is not known. Later it is listed again."""
    uploader = lane_of(store)
    store.before = fail("r2")
    (failed,) = upload(uploader, 1)
    with pytest.raises(StoreError, match="r2: cannot list: it is down"):
        failed.result()
    assert store.created == []
    store.before = lambda _call, _key: None
    (stored,) = upload(uploader, 1)
    assert stored.result().object_key == store.created[0]


def test_after_our_own_time_limit_fewer_uploads_are_sent_at_once(store: WatchedStore) -> None:
    """Half as many for each outage of that kind, at least one; a row of successes lets one more in."""
    uploader, now, widths = lane_of(store, width=8), NOON, []
    for _ in range(5):
        uploader.failed(now, "r2: too slow", too_slow=True)
        uploader.failed(now, "r2: too slow", too_slow=True)  # of the same outage
        widths.append(uploader._uploads.width)
        assert uploader.state.retry_at is not None
        now = uploader.state.retry_at
    assert widths == [4, 2, 1, 1, 1]
    for _ in range(16):
        uploader.succeeded(now)
    assert uploader._uploads.width == 2
    uploader.failed(now, "r2: down")
    assert uploader._uploads.width == 2


def test_a_gate_lets_no_more_inside_than_its_width() -> None:
    """Also while it is narrowed, and it never gets stuck."""
    gate, inside, most = Gate(4), [], []
    lock = threading.Lock()

    def work(number: int) -> None:
        for turn in range(20):
            with gate:
                with lock:
                    inside.append(number)
                    most.append(len(inside))
                if turn == 10 and number == 0:
                    gate.narrow()
                with lock:
                    inside.remove(number)
                gate.widen()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert max(most) <= 4
