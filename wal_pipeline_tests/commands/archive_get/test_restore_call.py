"""One call of the restore command: which outcome is delivery, which is absence, and which is neither."""

from collections.abc import Callable
from pathlib import Path

import pytest

from wal_pipeline.commands.archive_get.prefetch_folder import PrefetchFolder
from wal_pipeline.commands.archive_get.restore_call import RestoreCall
from wal_pipeline.commands.archive_get.tail_wal import RecoveryWal, SegmentOffset, TailLimits
from wal_pipeline.commands.archive_get.wal_source import WalSource, WalUnreachableError
from wal_pipeline.errors import RestoreError
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline_tests.support.pieces import cut, put_pieces
from wal_pipeline_tests.support.restore_archive import (
    LAYOUT,
    NAME,
    SEGMENT_SIZE,
    SYSTEM_IDENTIFIER,
    WatchedStore,
    name_of,
    segment_bytes,
)

OTHER = "000000010000000000000009"


@pytest.fixture
def store(tmp_path: Path) -> WatchedStore:
    """A store with one segment."""
    made = WatchedStore("r2", tmp_path / "store")
    made.add(NAME)
    return made


@pytest.fixture
def said() -> list[str]:
    """The lines for the server's log."""
    return []


@pytest.fixture
def make_call(store: WatchedStore, said: list[str], tmp_path: Path) -> Callable[..., RestoreCall]:
    """Return what makes a call that asks the store and fetches nothing ahead."""

    def make(*, folder: PrefetchFolder | None = None, standby: bool = False) -> RestoreCall:
        return RestoreCall(
            source=lambda: RecoveryWal(WalSource(LAYOUT, (store,))),
            folder=folder,
            fingerprint="",
            retry_seconds=0.0,
            standby_signal=tmp_path / "standby.signal" if standby else None,
            say=said.append,
        )

    return make


def test_a_file_is_delivered_or_proven_absent(make_call: Callable[..., RestoreCall], tmp_path: Path) -> None:
    """The store answered in both cases."""
    assert make_call().deliver(name_of(NAME), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == segment_bytes(NAME)
    assert not make_call().deliver(name_of(OTHER), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_the_end_before_a_damaged_piece_is_said(store: WatchedStore, said: list[str], tmp_path: Path) -> None:
    """Once, with the object's name: the plan ended before it, and the server's log tells what lies beyond."""
    keys = put_pieces(
        ClusterStore(store, LAYOUT),
        cut(OTHER, segment_bytes(OTHER), (0, 100), system_identifier=SYSTEM_IDENTIFIER, wal_segment_size=SEGMENT_SIZE),
        segment_bytes(OTHER),
    )
    store.path_of(keys[0]).write_bytes(b"damaged")
    limits = TailLimits(frozenset({1}), SegmentOffset(name_of(NAME), SEGMENT_SIZE))
    wal = RecoveryWal(WalSource(LAYOUT, (store,)), limits)
    call = RestoreCall(lambda: wal, None, fingerprint="", retry_seconds=0.0, standby_signal=None, say=said.append)
    assert not call.deliver(name_of(OTHER), tmp_path / "none")
    assert not call.deliver(name_of(OTHER), tmp_path / "none")
    (note,) = said
    assert note.startswith(
        f"'{OTHER}' is beyond what the restore was planned with, and is not used: r2: object '{keys[0]}'"
    )


def test_an_outage_is_no_absence(make_call: Callable[..., RestoreCall], store: WatchedStore, tmp_path: Path) -> None:
    """Also with --standby, where the server is none: its recovery would end."""
    store.down = True
    for standby in (False, True):
        with pytest.raises(WalUnreachableError):
            make_call(standby=standby).deliver(name_of(NAME), tmp_path / "out")


def test_a_standby_asks_again(
    make_call: Callable[..., RestoreCall], store: WatchedStore, said: list[str], tmp_path: Path
) -> None:
    """There an outage is as good as absence, but a damaged copy is not: it does not pass."""
    (tmp_path / "standby.signal").touch()
    store.down = True
    assert not make_call(standby=True).deliver(name_of(NAME), tmp_path / "out")
    assert said[-1].endswith("This is a standby: PostgreSQL asks again.")
    store.down = False
    [key] = [found.key for found in store.list(LAYOUT.root)]
    store.path_of(key).write_bytes(b"damaged")
    with pytest.raises(WalUnreachableError):
        make_call(standby=True).deliver(name_of(NAME), tmp_path / "out")


def test_a_place_that_cannot_be_written_is_named(make_call: Callable[..., RestoreCall], tmp_path: Path) -> None:
    """The error is ours, with the path."""
    with pytest.raises(RestoreError) as caught:
        make_call().deliver(name_of(NAME), tmp_path / "none" / "out")
    assert caught.value.message == f"'{tmp_path / 'none' / 'out'}' cannot be written: No such file or directory"


def test_nothing_is_taken_from_a_folder_that_others_write(
    make_call: Callable[..., RestoreCall], said: list[str], tmp_path: Path
) -> None:
    """The store is asked, and the log says why nothing is fetched ahead."""
    folder = PrefetchFolder(tmp_path / "ahead")
    folder.make()
    folder.path.chmod(0o777)
    (folder.path / NAME).write_bytes(b"forged")
    assert make_call(folder=folder).deliver(name_of(NAME), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == segment_bytes(NAME)
    assert said[0].startswith(f"nothing is fetched ahead: the prefetch folder '{folder.path}' is not the recovery's")


def test_a_prefetched_file_needs_no_store(
    make_call: Callable[..., RestoreCall], store: WatchedStore, tmp_path: Path
) -> None:
    """It is moved before a store is opened; a prefetcher runs, so none is started."""
    folder = PrefetchFolder(tmp_path / "ahead")
    folder.make()
    folder.put(b"wal", NAME)
    store.calls.clear()
    with folder.lock():
        assert make_call(folder=folder).deliver(name_of(NAME), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"wal"
    assert store.calls == []
