"""A plan reads the commit times that decide it, not those of the whole archive."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from wal_pipeline.archive.format.object_metadata import to_metadata
from wal_pipeline.archive.records import Codec, CommitTimes, WalFile
from wal_pipeline.codec.encoder import describe
from wal_pipeline.commands.inventory.listing import list_store
from wal_pipeline.commands.restore.contents import _Records, find_system_identifier
from wal_pipeline.errors import RestoreError, SettingsError
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.names import segment_name
from wal_pipeline_tests.support.restore_archive import (
    LAYOUT,
    SEGMENT_SIZE,
    SYSTEM_IDENTIFIER,
    WatchedStore,
    describe_file,
    name_of,
    segment_bytes,
)

BEGIN = datetime(2026, 11, 22, tzinfo=UTC)
SEGMENTS = 300


def commit_time(number: int) -> datetime | None:
    """Return the last commit time of a segment: one a minute, every third segment has none, nor have the last five."""
    quiet = number % 3 == 0 or number > SEGMENTS - 5
    return None if quiet else BEGIN + timedelta(minutes=number)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> WatchedStore:
    """A store with the metadata of three hundred segments."""
    made = WatchedStore("r2", tmp_path_factory.mktemp("inventory") / "r2")
    shape = describe_file(segment_name(1, 1, SEGMENT_SIZE).name, segment_bytes(segment_name(1, 1, SEGMENT_SIZE).name))
    encoding = describe(b"x", Codec.ZSTD, encrypted=False).encoding
    for number in range(1, SEGMENTS + 1):
        file = _file(shape, number)
        key = LAYOUT.wal_key(name_of(file.name), Codec.ZSTD, encrypted=False)
        made.add_bare(key, b"x", to_metadata(file, encoding))
    return made


def _file(shape: WalFile, number: int) -> WalFile:
    name = segment_name(1, number, SEGMENT_SIZE)
    at = commit_time(number)
    return replace(
        shape,
        name=name.name,
        start_lsn=name.start_lsn(SEGMENT_SIZE),
        end_lsn=name.end_lsn(SEGMENT_SIZE),
        commit_times=CommitTimes.KNOWN,
        first_commit_at=at,
        last_commit_at=at,
    )


@pytest.mark.parametrize("minute", [1, 2, 3, 100, 149, 150, 151, 290, 295])
def test_the_first_segment_past_a_moment_is_found_with_few_heads(store: WatchedStore, minute: int) -> None:
    """The segment at which recovery would stop, the last commit before it and the last of all are read."""
    store.calls.clear()
    listing = list_store(ClusterStore(store, LAYOUT))
    at = BEGIN + timedelta(minutes=minute, seconds=30)
    files = {file.name: file for file in _Records({"r2": listing}, (store,), SEGMENT_SIZE).needed(at)}
    times = {number: commit_time(number) for number in range(1, SEGMENTS + 1)}
    past = min((number for number, time in times.items() if time is not None and time > at), default=None)
    before = max((number for number, time in times.items() if time is not None and time <= at), default=None)
    last = max(number for number, time in times.items() if time is not None)
    for number in {past, before, last} - {None}:
        assert number is not None
        assert segment_name(1, number, SEGMENT_SIZE).name in files
    assert store.calls.count("head") <= 60


def test_the_system_identifier_is_the_only_one_or_the_given_one(store: WatchedStore, tmp_path: Path) -> None:
    """A name that nothing is known of is refused, and so is a number that the stores do not know."""
    assert find_system_identifier((store,), "", "main", None) == SYSTEM_IDENTIFIER
    assert find_system_identifier((store,), "", "main", SYSTEM_IDENTIFIER) == SYSTEM_IDENTIFIER
    with pytest.raises(SettingsError) as nothing:
        find_system_identifier((store,), "", "misspelt", None)
    assert nothing.value.message == "no store (r2) has anything below 'misspelt/'"
    store.add_bare("main/42/wal/00000001/x", b"x")
    with pytest.raises(RestoreError) as several:
        find_system_identifier((store,), "", "main", None)
    assert several.value.message == (
        f"the stores know the cluster 'main' with several system identifiers: 42, {SYSTEM_IDENTIFIER}"
    )
    assert find_system_identifier((store,), "", "main", 42) == 42
    with pytest.raises(RestoreError):
        find_system_identifier((store,), "", "main", 43)
