"""Puts the WAL of a server onto folder stores, whole and in pieces, and plans a restore from them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.records import BaseBackup, Codec
from wal_pipeline.archive.recovery.coverage import ArchiveContents, HeldBackup
from wal_pipeline.archive.recovery.restore_plan import RestorePlan, plan_restore
from wal_pipeline.archive.recovery.target import RecoveryTarget
from wal_pipeline.codec.encoder import Encoder
from wal_pipeline.commands.archive_get.wal_source import WalSource
from wal_pipeline.commands.copies.put import store_copy
from wal_pipeline.commands.inventory.listing import list_store
from wal_pipeline.commands.inventory.tails import TailReader, read_tails_of
from wal_pipeline.commands.inventory.whole_copies import WholeCopies
from wal_pipeline.commands.restore.contents import RestoreInventory, _Records
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.joint import read_joints
from wal_pipeline.wal.names import require_file_name, segment_name
from wal_pipeline.wal.page_header import LONG_HEADER_BYTES, parse_long_page_header
from wal_pipeline_tests.support.archive_worlds import backup
from wal_pipeline_tests.support.pieces import cut, put_pieces
from wal_pipeline_tests.support.restore_archive import WatchedStore, describe_file
from wal_pipeline_tests.support.segments import SYSTEM_IDENTIFIER
from wal_pipeline_tests.support.wal_writer import MIB, WalWriter

LAYOUT = Layout("", "main", SYSTEM_IDENTIFIER)
NAMES = [segment_name(1, number, MIB).name for number in range(4)]
BACKUP: BaseBackup = replace(backup("one", 1, 1.1, 1.5), system_identifier=SYSTEM_IDENTIFIER, wal_segment_size=MIB)
END = 300_000


def written(*lengths: int) -> dict[int, bytes]:
    """Return segments 1 to 3 of a server that writes records of these lengths again and again."""
    wal = WalWriter(system_identifier=SYSTEM_IDENTIFIER)
    while wal.position < 4 * MIB:
        for length in lengths:
            wal.record(length)
    return dict(wal.segments())


def put_whole(stores: Iterable[WatchedStore], number: int, *, encoder: Encoder | None = None) -> str:
    """Archive one of the segments on stores, and return its key."""
    data, name = written(100)[number], require_file_name(NAMES[number])
    header = parse_long_page_header(name.name, data[:LONG_HEADER_BYTES])
    file = describe_file(name.name, data, SYSTEM_IDENTIFIER)
    file = replace(file, joints=read_joints(data, header, name.timeline))
    for store in stores:
        encoded = (encoder or Encoder(Codec.ZSTD)).encode(data)
        key, _ = store_copy(ClusterStore(store, LAYOUT), file, encoded, read_back=False)
    return key


def two_stores(folder: Path) -> dict[str, WatchedStore]:
    """Return two stores with segments 1 and 2."""
    made = {name: WatchedStore(name, folder / name) for name in ("r2", "b2")}
    for number in (1, 2):
        put_whole(made.values(), number)
    return made


def ship(store: WatchedStore, data: bytes, *places: int, number: int = 3) -> list[str]:
    """Put pieces of a segment onto a store."""
    pieces = cut(NAMES[number], data, places, system_identifier=SYSTEM_IDENTIFIER, wal_segment_size=MIB)
    return put_pieces(ClusterStore(store, LAYOUT), pieces, data)


def inventory(stores: Mapping[str, WatchedStore], identities: Sequence[Any] = ()) -> RestoreInventory:
    """Return what a plan is made from, as ``gather`` does without a base backup's objects."""
    places = {name: ClusterStore(store, LAYOUT) for name, store in stores.items()}
    listings = {name: list_store(place) for name, place in places.items()}
    tails, notes = read_tails_of(listings, places)
    records = _Records(listings, tuple(stores.values()), MIB)
    contents = ArchiveContents.of(
        SYSTEM_IDENTIFIER,
        files=records.needed(None),
        copies={name: frozenset(listing.wal) for name, listing in listings.items()},
        backups=[HeldBackup(BACKUP, frozenset(stores))],
        tails=tails,
    )
    source = WalSource(LAYOUT, tuple(stores.values()), tuple(identities))
    copies = WholeCopies(listings, source)
    return RestoreInventory(
        contents, {}, tuple(stores.values()), tuple(notes), records, source, TailReader(source), copies
    )


def plan_of(found: RestoreInventory, target: RecoveryTarget | None = None) -> RestorePlan:
    """Plan a restore, to the end by default."""
    wanted = target or RecoveryTarget()
    return found.checked_plan(lambda contents: plan_restore(contents, wanted))
