"""A copy of a base backup counts as restorable only with its WAL."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from wal_pipeline.archive.format.base_backup.manifest import WalRange
from wal_pipeline.archive.records import Codec
from wal_pipeline.commands.backup.restorable import await_wal, stored_names
from wal_pipeline.errors import BaseBackupError, StoreUnavailableError
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import WalFileName
from wal_pipeline_tests.support.manifests import make_manifest
from wal_pipeline_tests.support.restore_archive import LAYOUT, SEGMENT_SIZE, WatchedStore, segment_bytes

MANIFEST = make_manifest(wal_ranges=(WalRange(1, Lsn.parse("0/2000028"), Lsn.parse("0/7000120")),))
NAMES = [f"00000001000000000000000{n}" for n in range(2, 8)]


def test_it_waits_until_every_segment_is_there() -> None:
    """Segments come one by one, and only those that are missing are asked for again."""
    asked: list[int] = []

    def verified(names: Sequence[WalFileName]) -> set[str]:
        asked.append(len(names))
        return {names[0].name}

    await_wal(MANIFEST, "r2", verified, timeout_seconds=30, poll_seconds=0.001)
    assert asked == [6, 5, 4, 3, 2, 1]


def test_after_the_limit_the_missing_segments_are_named() -> None:
    """The message counts them and names the first."""
    with pytest.raises(BaseBackupError) as caught:
        await_wal(MANIFEST, "b2", lambda _: {NAMES[0], NAMES[5]}, timeout_seconds=0)
    assert caught.value.message == (
        f"b2: base backup '{MANIFEST.backup_id}' is not restorable after 0 seconds: expected verified copies of "
        f"6 segments, missing '{NAMES[1]}', '{NAMES[2]}', '{NAMES[3]}' and 1 more"
    )


def test_a_store_that_does_not_answer_is_asked_again() -> None:
    """An outage is not the absence of WAL."""
    failures = [1, 1]

    def verified(_: Sequence[WalFileName]) -> list[str]:
        if failures:
            failures.pop()
            raise StoreUnavailableError("r2", "not now")
        return NAMES

    await_wal(MANIFEST, "r2", verified, timeout_seconds=30, poll_seconds=0.001)


def test_the_spool_is_archived_before_each_look() -> None:
    """Where no other process archives, waiting brings the WAL itself."""
    present: list[str] = []
    await_wal(
        MANIFEST,
        "r2",
        lambda _: present,
        timeout_seconds=30,
        poll_seconds=0.001,
        archive=lambda: present.append(NAMES[len(present)]),
    )
    assert present == NAMES


def test_the_store_itself_is_asked_for_copies_that_are_whole(tmp_path: Path) -> None:
    """Any encoding of the very file counts; a damaged copy, one without its metadata and a partial segment do not."""
    store = WatchedStore("r2", tmp_path)
    whole, damaged, bare, partial = MANIFEST.required_segments[:4]
    store.add(whole.name, codec=Codec.GZIP)
    path = store.path_of(store.add(damaged.name))
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    store.add_bare(LAYOUT.wal_key(bare, Codec.GZIP, encrypted=True), b"x")
    store.add(partial.name + ".partial", segment_bytes(partial.name))
    assert stored_names(ClusterStore(store, LAYOUT), SEGMENT_SIZE)([whole, damaged, bare, partial]) == {whole.name}
