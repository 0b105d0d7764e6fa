"""The catalog made again from the stores alone: what is there is known, what is not ours is left alone."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from testbed.s3_pair import S3Buckets, S3Pair
from wal_pipeline.archive.format.base_backup.manifest import BackupObject
from wal_pipeline.archive.format.base_backup.manifest_json import to_json
from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.format.object_metadata import to_metadata
from wal_pipeline.archive.records import Codec, Copy, CopyStatus, Encoding
from wal_pipeline.catalog.catalog import Catalog, open_catalog
from wal_pipeline.commands.rebuild_catalog import RebuildResult, rebuild
from wal_pipeline.settings import load_settings
from wal_pipeline.stores.base import Store
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.stores.local.store import LocalFolderStore
from wal_pipeline.wiring.pipeline import Pipeline
from wal_pipeline_tests.support.catalog_records import NOON, copy_of, history, segment
from wal_pipeline_tests.support.clock import TestClock
from wal_pipeline_tests.support.manifests import make_manifest
from wal_pipeline_tests.support.pieces import cut, put_pieces
from wal_pipeline_tests.support.rebuilt_archive import archive, key_of, put

SYSTEM = 7575757575757575757
LAYOUT = Layout("backups", "main", SYSTEM)
BROKEN = make_manifest().objects[0]
FILES = [segment(number, system_identifier=SYSTEM) for number in (1, 2, 3)]


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture
def catalog(tmp_path: Path, clock: TestClock) -> Iterator[Catalog]:
    opened = open_catalog(f"sqlite:///{tmp_path}/catalog.sqlite", "main", clock=clock)
    yield opened
    opened.close()


@pytest.fixture
def stores(tmp_path: Path) -> list[Store]:
    return [folder_store(tmp_path, "r2"), folder_store(tmp_path, "b2")]


def folder_store(tmp_path: Path, name: str) -> LocalFolderStore:
    folder = tmp_path / name
    folder.mkdir()
    store = LocalFolderStore(name, folder)
    store.prepare()
    return store


def run(stores: list[Store], catalog: Catalog) -> RebuildResult:
    return rebuild(stores, catalog, "backups", "main", workers=4)


def archive_base_backup(store: Store, *, without: str = "", sizes: dict[str, int] | None = None) -> str:
    manifest = make_manifest()
    for item in manifest.objects:
        if item.name != without:
            size = (sizes or {}).get(item.name, item.size_bytes)
            put(store, LAYOUT.base_key(manifest.backup_id, item.name), b"x" * size)
    put(store, LAYOUT.manifest_key(manifest.backup_id), to_json(manifest))
    return manifest.backup_id


def test_empty_catalog_is_made_from_the_stores(stores: list[Store], catalog: Catalog) -> None:
    """Files, copies, base backups and system identifiers are all there, of several clusters made under one name."""
    older = segment(1, system_identifier=8, sha256="e" * 64)
    encodings = {store.name: {file.name: archive(store, file) for file in FILES} for store in stores}
    archive(stores[0], older)
    archive(stores[1], replace(history(), system_identifier=SYSTEM))
    backup_id = archive_base_backup(stores[0])

    result = run(stores, catalog)

    assert result.is_complete
    assert set(result.system_identifiers) == {8, SYSTEM}
    assert [(store.store, store.copies, store.base_backups) for store in result.stores] == [("r2", 4, 1), ("b2", 4, 0)]
    assert all(not (store.damaged or store.faults or store.foreign or store.forgotten) for store in result.stores)
    assert catalog.files.files_of([older.name]) == {(8, older.name): older, (SYSTEM, older.name): FILES[0]}
    assert catalog.files.copies_of([FILES[0].name])[SYSTEM, FILES[0].name]["b2"] == Copy(
        name=FILES[0].name,
        system_identifier=SYSTEM,
        store="b2",
        status=CopyStatus.VERIFIED,
        object_key=key_of(FILES[0]),
        encoding=encodings["b2"][FILES[0].name],
    )
    assert catalog.base_backups.all() == [make_manifest().record()]
    [held] = catalog.base_backups.copies()
    assert (held.backup_id, held.store, held.status, held.objects) == (backup_id, "r2", CopyStatus.VERIFIED, 4)
    assert held.restorable_at == NOON


def test_rebuild_again_changes_nothing(stores: list[Store], catalog: Catalog, clock: TestClock) -> None:
    """What an older record knows of the very same bytes stays known: when it was verified, and how long it took."""
    encoding = archive(stores[0], FILES[0])
    known = replace(copy_of(FILES[0]), object_key=key_of(FILES[0]), encoding=encoding)
    catalog.files.record_verified(FILES[0], [known])
    catalog.files.mark_released(SYSTEM, [FILES[0].name], NOON)
    for _ in range(2):
        clock.pass_time(hours=1)
        run(stores, catalog)
        assert list(catalog.files.copies()) == [known]
        assert list(catalog.frames.files()["released_at"]) == [NOON]


def test_known_damage_stays_known(stores: list[Store], catalog: Catalog, clock: TestClock) -> None:
    """A rebuild reads no content, so it does not call whole what a deep verification found damaged."""
    encoding = archive(stores[0], FILES[0])
    damaged = replace(
        copy_of(FILES[0], status=CopyStatus.DAMAGED),
        object_key=key_of(FILES[0]),
        encoding=encoding,
        last_error="r2: damaged",
    )
    catalog.files.record_found([FILES[0]], [damaged])
    clock.pass_time(hours=1)
    run(stores, catalog)
    assert list(catalog.files.copies()) == [damaged]


def test_what_is_not_there_any_more_is_forgotten_and_named(
    stores: list[Store], catalog: Catalog, clock: TestClock
) -> None:
    """Records of the store that was read go; those of what was archived meanwhile stay."""
    archive(stores[0], FILES[0])
    catalog.files.record_verified(FILES[1], [replace(copy_of(FILES[1]))])
    clock.pass_time(hours=1)
    catalog.files.record_verified(FILES[2], [copy_of(FILES[2])])
    result = run(stores[:1], catalog)
    assert result.stores[0].forgotten == (FILES[1].name,)
    assert list(catalog.files.files()) == [FILES[0], FILES[2]]


def test_clock_set_back_meanwhile_forgets_nothing_that_is_there(
    stores: list[Store], catalog: Catalog, clock: TestClock
) -> None:
    """What was seen in the store stays, whatever the moments of the records say."""
    archive(stores[0], FILES[0])
    rebuild(stores[:1], catalog, "backups", "main", on_object=lambda _store: clock.pass_time(hours=-1) and None)
    assert list(catalog.files.files()) == [FILES[0]]


def test_store_that_is_down_keeps_its_records(stores: list[Store], catalog: Catalog, tmp_path: Path) -> None:
    """The other store is read whole, and the result names the one that was not."""
    archive(stores[0], FILES[0])
    known = copy_of(FILES[1], "b2")
    catalog.files.record_verified(FILES[1], [known])
    (tmp_path / "b2").rename(tmp_path / "unmounted")
    result = run(stores, catalog)
    assert not result.is_complete
    assert [store.error is None for store in result.stores] == [True, False]
    assert (result.stores[1].error or "").startswith("b2: ")
    assert known in list(catalog.files.copies())
    assert catalog.files.names_on("r2") == {(SYSTEM, FILES[0].name)}


def test_object_of_another_size_is_damaged(stores: list[Store], catalog: Catalog) -> None:
    """A stored object that is not as long as it was sent is no copy to count on."""
    archive(stores[0], FILES[0], b"12345", stored_size=7)
    result = run(stores, catalog)
    [copy] = catalog.files.copies()
    message = f"r2: object '{key_of(FILES[0])}' has 5 bytes, expected 7"
    assert (copy.status, copy.last_error, result.stores[0].damaged) == (CopyStatus.DAMAGED, message, (message,))


def test_stores_that_disagree_are_told(stores: list[Store], catalog: Catalog) -> None:
    """Two contents under one name: the first store's is kept, the other copy is marked, neither is touched."""
    archive(stores[0], FILES[0])
    archive(stores[1], replace(FILES[0], sha256="f" * 64))
    result = run(stores, catalog)
    message = (
        f"b2: object '{key_of(FILES[0])}' holds content {'f' * 64}, "
        f"another store's copy of '{FILES[0].name}' holds {'a' * 64}"
    )
    assert result.stores[1].damaged == (message,)
    assert [(copy.store, copy.status) for copy in catalog.files.copies()] == [
        ("b2", CopyStatus.DAMAGED),
        ("r2", CopyStatus.VERIFIED),
    ]
    assert list(catalog.files.files()) == [FILES[0]]


def test_foreign_objects_are_named_and_left_alone(stores: list[Store], catalog: Catalog) -> None:
    """What we never write is no copy, and stays where it is."""
    keys = [
        "backups/main/notes.txt",
        f"{LAYOUT.root}base/latest/manifest.json",
        f"{LAYOUT.wal_root}00000001/0000000100000000/000000010000000000000001.zst.tmp",
    ]
    for key in keys:
        put(stores[0], key)
    put(stores[0], "backups/main-other/notes.txt")
    result = run(stores, catalog)
    assert result.stores[0].foreign == tuple(sorted(keys))
    assert catalog.files.count() == 0
    assert [item.key for item in stores[0].list("")] == sorted([*keys, "backups/main-other/notes.txt"])


def test_object_without_its_metadata_is_a_fault(stores: list[Store], catalog: Catalog) -> None:
    """A copy made by another tool that dropped the metadata is named; the rest is read."""
    put(stores[0], key_of(FILES[0]))
    archive(stores[0], FILES[1])
    result = run(stores, catalog)
    assert result.stores[0].faults == (
        f"r2: object '{key_of(FILES[0])}' has metadata that cannot be read: KeyError 'wal-format'",
    )
    assert list(catalog.files.files()) == [FILES[1]]


def test_object_under_another_name_is_a_fault(stores: list[Store], catalog: Catalog) -> None:
    """An object that was moved is not taken for the file whose name it now has."""
    data = b"moved"
    digest = hashlib.sha256(data).hexdigest()
    put(stores[0], key_of(FILES[0]), data, to_metadata(FILES[1], Encoding(Codec.ZSTD, False, 5, digest, "d" * 32)))
    result = run(stores, catalog)
    assert result.stores[0].faults == (
        f"r2: object '{key_of(FILES[0])}' says that it is file '{FILES[1].name}' of system identifier {SYSTEM}, zstd",
    )
    assert catalog.files.count() == 0


@pytest.mark.parametrize(
    ("spoil", "status", "words"),
    [
        (lambda item: {"without": item.name}, CopyStatus.MISSING, "is not there"),
        (
            lambda item: {"sizes": {item.name: item.size_bytes + 1}},
            CopyStatus.DAMAGED,
            f"has {BROKEN.size_bytes + 1} bytes, expected {BROKEN.size_bytes}",
        ),
    ],
)
def test_base_backup_that_is_not_whole(
    stores: list[Store],
    catalog: Catalog,
    spoil: Callable[[BackupObject], dict[str, object]],
    status: CopyStatus,
    words: str,
) -> None:
    """A base backup that lacks an object, or has one of another size, is known and not restorable."""
    backup_id = archive_base_backup(stores[0], **spoil(BROKEN))  # type: ignore[arg-type]
    archive(stores[0], FILES[1])
    result = run(stores, catalog)
    [held] = catalog.base_backups.copies()
    assert result.stores[0].damaged == (held.last_error,)
    assert held.last_error == f"r2: base backup '{backup_id}': object '{BROKEN.name}' {words}"
    assert (held.status, held.restorable_at) == (status, None)


def test_base_backup_without_its_wal_is_not_restorable(stores: list[Store], catalog: Catalog) -> None:
    """Its objects alone do not restore it."""
    archive_base_backup(stores[0])
    run(stores, catalog)
    [held] = catalog.base_backups.copies()
    assert (held.status, held.restorable_at) == (CopyStatus.VERIFIED, None)


def test_base_backup_without_a_manifest_does_not_exist(stores: list[Store], catalog: Catalog) -> None:
    """What a cut off backup left is named, not recorded."""
    manifest = make_manifest()
    put(stores[0], LAYOUT.base_key(manifest.backup_id, manifest.objects[0].name))
    result = run(stores, catalog)
    assert result.stores[0].unfinished == (f"{LAYOUT.base_root}{manifest.backup_id}",)
    assert catalog.base_backups.all() == []


def test_rebuild_that_was_cut_off_goes_on(stores: list[Store], catalog: Catalog, clock: TestClock) -> None:
    """A rebuild that ends in the middle forgets nothing, and the next one completes it."""
    for store in stores:
        archive(store, FILES[0])
    stale = copy_of(FILES[2], "b2")
    catalog.files.record_verified(FILES[2], [stale])
    clock.pass_time(hours=1)

    def cut_off(store: str) -> None:
        if store == "b2":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rebuild(stores, catalog, "backups", "main", on_object=cut_off)
    assert [(copy.name, copy.store) for copy in catalog.files.copies()] == [
        (FILES[0].name, "r2"),
        (FILES[2].name, "b2"),
    ]
    clock.pass_time(hours=1)
    run(stores, catalog)
    assert [(copy.name, copy.store) for copy in catalog.files.copies()] == [
        (FILES[0].name, "b2"),
        (FILES[0].name, "r2"),
    ]


@pytest.mark.integration
def test_rebuild_over_s3(catalog: Catalog, s3_pair: S3Pair, s3_buckets: S3Buckets, tmp_path: Path) -> None:
    """From two real S3 servers, through the network and the metadata headers, every record comes back equal."""
    environment = s3_pair.store_environment(s3_buckets) | {"WAL_PIPELINE_CA_BUNDLE": str(s3_pair.r2.ca_bundle)}
    opened = Pipeline(load_settings(environment, None)).stores
    stores = list(opened.values())
    for store in stores:
        for number in range(1, 41):
            archive(store, segment(number, system_identifier=SYSTEM))
    archive_base_backup(stores[1])
    result = run(stores, catalog)
    assert [(store.store, store.copies, store.base_backups, store.error) for store in result.stores] == [
        ("r2", 40, 0, None),
        ("b2", 40, 1, None),
    ]
    assert list(catalog.files.files()) == [segment(number, system_identifier=SYSTEM) for number in range(1, 41)]
    assert [copy.restorable_at for copy in catalog.base_backups.copies()] == [NOON]
    assert timedelta(0) == catalog.base_backups.all()[0].started_at.utcoffset()


def test_pieces_of_open_segments_are_ours_and_nothing_that_is_rebuilt(stores: list[Store], catalog: Catalog) -> None:
    """They are neither foreign nor recorded as files; a store with nothing else tells the system identifier."""
    size, name = 1 << 20, "000000010000000000000007"
    data = bytes(range(256)) * 64
    pieces = cut(name, data, [0, 8192, len(data)], system_identifier=SYSTEM, wal_segment_size=size)
    put_pieces(ClusterStore(stores[0], LAYOUT), pieces, data)
    result = run(stores, catalog)
    assert result.is_complete
    assert result.system_identifiers == (SYSTEM,)
    assert (result.stores[0].foreign, result.stores[0].faults, result.stores[0].copies) == ((), (), 0)
    assert catalog.files.files() == []
