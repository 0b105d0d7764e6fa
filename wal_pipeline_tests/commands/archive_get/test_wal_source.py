"""One file from whichever store has a good copy: what counts as good, and what as absent."""

import gzip
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from wal_pipeline.archive.format.object_metadata import to_metadata
from wal_pipeline.archive.records import Codec, WalFile
from wal_pipeline.codec.encoder import Encoder, describe
from wal_pipeline.commands.archive_get.wal_source import StoreHealth, WalSource, WalUnreachableError, fetch_patiently
from wal_pipeline.commands.copies.put import store_copy
from wal_pipeline.commands.copies.stored_bytes import StoredBytes
from wal_pipeline.errors import SettingsError, StoreUnavailableError
from wal_pipeline.host.limits import Memory
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline_tests.support.restore_archive import LAYOUT, WatchedStore, describe_file, name_of, segment_bytes

NAME = "000000010000000000000003"
OTHER = "000000010000000000000004"
HISTORY = b"1\t0/3000158\tno recovery target specified\n"


@pytest.fixture
def r2(tmp_path: Path) -> WatchedStore:
    """The first store."""
    return WatchedStore("r2", tmp_path / "r2")


@pytest.fixture
def b2(tmp_path: Path) -> WatchedStore:
    """The second store."""
    return WatchedStore("b2", tmp_path / "b2")


@pytest.fixture
def source(r2: WatchedStore, b2: WatchedStore) -> WalSource:
    """Both stores, r2 first."""
    return WalSource(LAYOUT, (r2, b2))


@pytest.mark.parametrize("codec", list(Codec))
def test_every_codec_is_opened(source: WalSource, r2: WatchedStore, codec: Codec) -> None:
    """The first store's copy is taken, whatever its codec, and the second is not asked."""
    key = r2.add(NAME, codec=codec)
    fetched = source.fetch(name_of(NAME))
    assert fetched is not None
    assert (fetched.data, fetched.store, fetched.object_key, fetched.notes) == (segment_bytes(NAME), "r2", key, ())


def test_the_next_segment_is_fetched_without_a_listing(source: WalSource, r2: WatchedStore, b2: WatchedStore) -> None:
    """Where one segment was found, the next one most likely is: the listing is asked only where it is not."""
    r2.add(NAME)
    r2.add(OTHER)
    assert source.fetch(name_of(NAME)) is not None
    r2.calls.clear()
    fetched = source.fetch(name_of(OTHER))
    assert fetched is not None
    assert (fetched.data, r2.calls, b2.calls) == (segment_bytes(OTHER), ["head"], [])


def test_a_segment_of_another_codec_is_found_by_the_listing(source: WalSource, r2: WatchedStore) -> None:
    """The codec may change between two segments."""
    r2.add(NAME, codec=Codec.ZSTD)
    key = r2.add(OTHER, codec=Codec.GZIP)
    for name in (NAME, OTHER):
        fetched = source.fetch(name_of(name))
    assert fetched is not None
    assert (fetched.object_key, fetched.data) == (key, segment_bytes(OTHER))


def test_absence_is_proven_by_the_listing_after_a_likely_key(
    source: WalSource, r2: WatchedStore, b2: WatchedStore
) -> None:
    """Past the end of the archive every store is listed; a likely key is looked for once, not at each question."""
    r2.add(NAME)
    source.fetch(name_of(NAME))
    r2.calls.clear()
    assert [source.fetch(name_of(OTHER)) for _ in range(2)] == [None, None]
    assert (r2.calls, b2.calls) == (["head", "list", "list", "list", "list"], ["list", "list"])


def test_a_damaged_copy_at_a_likely_key_is_named(source: WalSource, r2: WatchedStore, b2: WatchedStore) -> None:
    """It is passed over as any other, with the same note."""
    r2.add(NAME)
    source.fetch(name_of(NAME))
    key = r2.add(OTHER)
    b2.add(OTHER)
    _flip(r2.path_of(key))
    fetched = source.fetch(name_of(OTHER))
    assert fetched is not None
    assert (fetched.store, fetched.data) == ("b2", segment_bytes(OTHER))
    assert fetched.notes[0].startswith(f"r2: object '{key}' ")


def test_silence_at_a_likely_key_proves_nothing(source: WalSource, r2: WatchedStore, b2: WatchedStore) -> None:
    """A store that does not answer there is not asked a second time, and its file is not absent."""
    r2.add(NAME)
    source.fetch(name_of(NAME))
    r2.calls.clear()
    r2.down = True
    with pytest.raises(WalUnreachableError) as caught:
        source.fetch(name_of(OTHER))
    assert (caught.value.may_pass, r2.calls) == (True, ["head"])


def test_names_that_share_the_prefix_are_told_apart(source: WalSource, r2: WatchedStore) -> None:
    """A partial segment and a backup history file begin with the segment's name and are not it."""
    r2.add(f"{NAME}.partial", segment_bytes(NAME))
    r2.add(f"{NAME}.00000028.backup", b"START WAL LOCATION: 0/3000028\n")
    assert source.fetch(name_of(NAME)) is None
    partial = source.fetch(name_of(f"{NAME}.partial"))
    assert partial is not None
    assert partial.data == segment_bytes(NAME)


def test_absence_is_proven_by_every_store(source: WalSource, r2: WatchedStore, b2: WatchedStore) -> None:
    """A file that both stores answered not to have is absent; a history file costs one LIST on each and one more."""
    b2.add(OTHER)
    b2.calls.clear()
    assert source.fetch(name_of("00000002.history")) is None
    assert (r2.calls, b2.calls) == (["list", "list"], ["list", "list"])


@pytest.mark.parametrize("dead", ["r2", "b2"])
def test_silence_proves_nothing(source: WalSource, r2: WatchedStore, b2: WatchedStore, dead: str) -> None:
    """With one store down a file that the other does not have is not absent."""
    r2.add(OTHER)
    {"r2": r2, "b2": b2}[dead].down = True
    with pytest.raises(WalUnreachableError) as caught:
        source.fetch(name_of(NAME))
    assert caught.value.message == f"'{NAME}' could not be had from any store:\n{dead}: no answer"
    assert caught.value.may_pass


def test_nothing_of_the_cluster_is_a_wrong_setting(source: WalSource) -> None:
    """Stores that are empty below the cluster's name prove nothing: a misspelt name must not end a recovery."""
    with pytest.raises(SettingsError) as caught:
        source.fetch(name_of(NAME))
    assert caught.value.message == (
        f"no store (r2, b2) has anything below 'main/7612345678901234567/', so '{NAME}' cannot be called absent"
    )


def test_the_second_store_steps_in_and_is_asked_first_from_then_on(
    source: WalSource, r2: WatchedStore, b2: WatchedStore
) -> None:
    """A dead store's error is told once with the file; for a minute the living store is asked first."""
    b2.add(NAME)
    r2.down = True
    fetched = source.fetch(name_of(NAME))
    assert fetched is not None
    assert (fetched.store, fetched.notes) == ("b2", ("r2: no answer",))
    r2.calls.clear()
    again = source.fetch(name_of(NAME))
    assert again is not None
    assert (again.notes, r2.calls) == ((), [])


def test_a_store_is_asked_in_its_turn_again_after_a_minute(r2: WatchedStore, b2: WatchedStore) -> None:
    """A failure is remembered for sixty seconds."""
    clock = [0.0]
    health = StoreHealth(lambda: clock[0])
    health.failed(r2)
    assert [store.name for store in health.order((r2, b2))] == ["b2", "r2"]
    clock[0] = 60.0
    assert [store.name for store in health.order((r2, b2))] == ["r2", "b2"]


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x55
    path.write_bytes(bytes(data))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


@pytest.mark.parametrize("damage", [_flip, _cut])
def test_a_damaged_copy_is_passed_over_and_named(
    source: WalSource, r2: WatchedStore, b2: WatchedStore, damage: object
) -> None:
    """Flipped bytes and a cut end are found; the other store's copy is delivered with a note."""
    key = r2.add(NAME)
    b2.add(NAME)
    damage(r2.path_of(key))  # type: ignore[operator]
    fetched = source.fetch(name_of(NAME))
    assert fetched is not None
    assert (fetched.store, fetched.data) == ("b2", segment_bytes(NAME))
    assert fetched.notes[0].startswith(f"r2: object '{key}' ")


def test_damage_on_both_stores_is_neither_delivered_nor_absent(
    source: WalSource, r2: WatchedStore, b2: WatchedStore
) -> None:
    """Both objects are named, and trying again would not help."""
    said = []
    for store in (r2, b2):
        path = store.path_of(key := store.add(NAME))
        good = StoredBytes.of(path.read_bytes()).sha256
        _flip(path)
        found = StoredBytes.of(path.read_bytes()).sha256
        said.append(f"{store.name}: object '{key}' has SHA-256 {found}, expected {good}")
    with pytest.raises(WalUnreachableError) as caught:
        source.fetch(name_of(NAME))
    assert [fault.message for fault in caught.value.faults] == said
    assert not caught.value.may_pass


def test_a_copy_that_is_absent_here_and_damaged_there_is_not_absent(
    source: WalSource, r2: WatchedStore, b2: WatchedStore
) -> None:
    """The file exists: recovery must not go on without it."""
    r2.add(OTHER)
    _flip(b2.path_of(b2.add(NAME)))
    with pytest.raises(WalUnreachableError):
        source.fetch(name_of(NAME))


def test_another_files_content_is_refused(source: WalSource, r2: WatchedStore) -> None:
    """A whole, well-formed object of another segment under this key is found by its metadata."""
    data = segment_bytes(OTHER)
    key = LAYOUT.wal_key(name_of(NAME), Codec.ZSTD, encrypted=False)
    r2.add_bare(key, Encoder(Codec.ZSTD).encode(data).body.data, r2.metadata_of(r2.add(OTHER)))  # type: ignore[arg-type]
    with pytest.raises(WalUnreachableError) as caught:
        source.fetch(name_of(NAME))
    assert caught.value.faults[0].message == (
        f"r2: object '{key}' cannot be used: its metadata is of '{OTHER}' of system identifier 7612345678901234567, "
        f"expected '{NAME}' of 7612345678901234567"
    )


def test_without_metadata_the_form_decides(source: WalSource, r2: WatchedStore) -> None:
    """A copy made by another tool is delivered if its first page is right, and the missing checksum is told."""
    key = LAYOUT.wal_key(name_of(NAME), Codec.GZIP, encrypted=False)
    r2.add_bare(key, gzip.compress(segment_bytes(NAME)))
    fetched = source.fetch(name_of(NAME))
    assert fetched is not None
    assert fetched.data == segment_bytes(NAME)
    assert fetched.notes == (f"r2: object '{key}' has no metadata: there is no checksum to compare, only its form",)


@pytest.mark.parametrize(
    "content", [segment_bytes(OTHER), segment_bytes(NAME, 42), segment_bytes(NAME)[:-8192], b"", b"x" * 2000]
)
def test_without_metadata_a_wrong_form_is_refused(source: WalSource, r2: WatchedStore, content: bytes) -> None:
    """Another segment, another cluster, half a segment and noise are not delivered."""
    r2.add_bare(LAYOUT.wal_key(name_of(NAME), Codec.GZIP, encrypted=False), gzip.compress(content))
    with pytest.raises(WalUnreachableError):
        source.fetch(name_of(NAME))


def test_a_decompression_bomb_is_bounded_by_the_recorded_size(source: WalSource, r2: WatchedStore) -> None:
    """An object that opens to more than its metadata says is refused before it fills the memory."""
    stored = zstandard.compress(segment_bytes(NAME) + bytes(64 << 20))
    file = describe_file(NAME, segment_bytes(NAME))
    bomb = describe(stored, Codec.ZSTD, encrypted=False)
    key = LAYOUT.wal_key(name_of(NAME), Codec.ZSTD, encrypted=False)
    r2.add_bare(key, stored, to_metadata(file, bomb.encoding))
    with pytest.raises(WalUnreachableError) as caught:
        source.fetch(name_of(NAME))
    assert caught.value.faults[0].message == (
        f"r2: object '{key}' cannot be used: zstd data opens to more than {1 << 20} bytes"
    )


def test_history_files_are_texts(source: WalSource, r2: WatchedStore) -> None:
    """A timeline history file is delivered byte for byte."""
    r2.add("00000002.history", HISTORY)
    fetched = source.fetch(name_of("00000002.history"))
    assert fetched is not None
    assert fetched.data == HISTORY


def test_patience_ends_at_its_limit() -> None:
    """An unavailable store is asked again, with longer pauses, until the limit; then its error goes up."""
    clock = [0.0]
    asked: list[float] = []
    said: list[str] = []

    def fetch() -> None:
        asked.append(clock[0])
        raise WalUnreachableError(NAME, [StoreUnavailableError("r2", "no answer")])

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    with pytest.raises(WalUnreachableError):
        fetch_patiently(fetch, 8.0, say=said.append, now=lambda: clock[0], sleep=sleep)
    assert asked == [0.0, 0.5, 1.5, 3.5, 7.5]
    assert said[0] == f"'{NAME}' could not be had from any store:\nr2: no answer\ntrying again in 0.5 s"
    assert len(said) == 4


def test_no_patience_with_damage(source: WalSource, r2: WatchedStore) -> None:
    """What will not pass is told at once."""
    _flip(r2.path_of(r2.add(NAME)))
    with pytest.raises(WalUnreachableError):
        fetch_patiently(lambda: source.fetch(name_of(NAME)), 60, say=pytest.fail, sleep=pytest.fail)


def unread(name: str, content: bytes) -> WalFile:
    """Describe encrypted WAL as the archiver does: by its name and its digest."""
    return replace(
        describe_file(name, segment_bytes(name)), server_major=None, sha256=hashlib.sha256(content).hexdigest()
    )


def test_encrypted_wal_is_not_refused_by_a_restore(source: WalSource, r2: WatchedStore, b2: WatchedStore) -> None:
    """Its digest proves what it is; a damaged copy is still passed over for a good one."""
    content = hashlib.shake_256(b"7").digest(1 << 20)
    for store in (r2, b2):
        store_copy(
            ClusterStore(store, LAYOUT), unread(NAME, content), Encoder(Codec.ZSTD).encode(content), read_back=True
        )
    fetched = source.fetch(name_of(NAME))
    assert fetched is not None
    assert fetched.data == content
    [path] = [path for path in r2.folder.rglob(f"{NAME}*") if path.is_file() and path.stat().st_size > 1000]
    damaged = bytearray(path.read_bytes())
    damaged[-20] ^= 1
    path.chmod(0o600)
    path.write_bytes(damaged)
    fetched = WalSource(LAYOUT, (r2, b2)).fetch(name_of(NAME))
    assert fetched is not None
    assert (fetched.data, fetched.store) == (content, "b2")


def test_a_segment_that_was_read_must_still_be_one(source: WalSource, r2: WatchedStore) -> None:
    """Only what was archived unread is taken by its digest alone."""
    content = hashlib.shake_256(b"8").digest(1 << 20)
    claimed = replace(unread(NAME, content), server_major=18)
    store_copy(ClusterStore(r2, LAYOUT), claimed, Encoder(Codec.ZSTD).encode(content), read_back=False)
    with pytest.raises(WalUnreachableError, match="does not begin with a WAL page"):
        source.fetch(name_of(NAME))


def test_a_segment_that_does_not_fit_does_not_get_the_restore_killed(
    source: WalSource, r2: WatchedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it needs and what there is, for the server's log; it is tried again, and is never called absent."""
    key = r2.add(NAME, codec=Codec.NONE)
    module = "wal_pipeline.commands.archive_get.wal_source"
    monkeypatch.setattr(f"{module}._LARGE_BYTES", 1 << 20)
    monkeypatch.setattr(f"{module}.look_at_memory", lambda: Memory(1 << 20, 1 << 20))
    with pytest.raises(WalUnreachableError) as raised:
        source.fetch(name_of(NAME))
    assert raised.value.may_pass
    assert f"r2: object '{key}' needs 2 MiB of memory to be opened, 1 MiB are free" in raised.value.message
    monkeypatch.setattr(f"{module}.look_at_memory", lambda: Memory(1 << 30, 1 << 30))
    assert WalSource(LAYOUT, (r2,)).fetch(name_of(NAME)) is not None
