"""Tests the shipper with real servers: what was flushed is on every store, whatever happens to one of them."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyrage
import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall
from wal_pipeline.archive.format.piece import EMPTY_SHA256
from wal_pipeline.archive.records import Codec, CommitTimes
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.codec.decoder import open_stored
from wal_pipeline.commands.pause import pause, resume
from wal_pipeline.commands.ship import pace, upkeep
from wal_pipeline.commands.ship.events import (
    PieceShipped,
    PiecesMerged,
    PiecesRemoved,
    ShippingFailed,
    ShippingRecovered,
)
from wal_pipeline.commands.ship.records import ShippedTail, read_shipping, read_tails
from wal_pipeline.errors import CatalogError, CodecError, ShipperBusyError, StoreUnavailableError
from wal_pipeline.stores.base import Body
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import require_file_name
from wal_pipeline_tests.support.archive_scene import ArchiveScene, fail, nothing
from wal_pipeline_tests.support.open_wal_scene import make_standby, wait_replayed
from wal_pipeline_tests.support.ship_scene import RunningShipper, ShipScene, ended

pytestmark = pytest.mark.integration
MIB = 1 << 20
MakeCluster = Callable[..., PostgresCluster]


@pytest.fixture(scope="module")
def shared(postgres_version: PostgresInstall) -> Iterator[PostgresCluster]:
    """A running server with segments of 1 MB that keeps them all."""
    cluster = PostgresCluster(postgres_version, settings={"wal_keep_size": "1GB"}).initdb(wal_segment_size_mb=1).start()
    yield cluster
    cluster.remove()


@pytest.fixture
def scene(tmp_path: Path, shared: PostgresCluster) -> ShipScene:
    """A scene at the start of a segment, whose segments before are archived."""
    made = ShipScene(tmp_path / "scene", shared)
    made.write()
    name = shared.value("SELECT pg_walfile_name(pg_switch_wal())")
    archive(made, name)
    for store in made.stores.values():
        store.calls.clear()
    return made


def joined(scene: ShipScene, store: str, segment: str, identities: list[object] | None = None) -> bytes:
    """Return the bytes of a segment's chain of pieces, as recovery joins them."""
    place, data = scene.stores[store].inner, b""
    chain = scene.chain(store, require_file_name(segment))
    for listed in place.list(""):
        if segment in listed.key and any(f"{one.from_offset:08X}-{one.to_offset:08X}" in listed.key for one in chain):
            encrypted = listed.key.endswith(".age")
            codec = Codec.ZSTD if ".zst" in listed.key else Codec.GZIP
            with place.open(listed.key) as stream:
                data += open_stored(
                    stream.read(), codec, encrypted=encrypted, identities=identities or [], max_size_bytes=MIB
                )
    return data


def archive(scene: ShipScene, *names: str) -> None:
    """Archive whole segments of the server to the same stores, with the same catalog."""
    identifier = int(scene.cluster.value("SELECT system_identifier FROM pg_control_system()")) % 2**64
    archiving = ArchiveScene(scene.folder, dict(scene.stores), server_identifier=identifier)
    for name in names:
        shutil.copy(scene.cluster.pgdata / "pg_wal" / name, archiving.spool_folder / name)
    archiving.run()
    assert archiving.spooled() == []


def newest(scene: ShipScene, store: str = "r2") -> str:
    """Return the newest segment of which a store has pieces."""
    return max(scene.pieces(store))


def test_all_that_was_flushed_is_on_every_store(scene: ShipScene) -> None:
    """The pieces join to what the server's file begins with, and end at its flushed LSN."""
    for _ in range(3):
        scene.write(50)
        assert ended(scene.ship()).tails[0].behind_seconds == 0.0
    flushed = scene.flushed
    for store in scene.stores:
        assert scene.tail_end(store) == flushed
        data = joined(scene, store, newest(scene))
        assert (scene.cluster.pgdata / "pg_wal" / newest(scene)).read_bytes().startswith(data)
        assert len(data) == flushed % MIB


def test_pieces_are_encrypted(scene: ShipScene) -> None:
    """With recipients no piece can be read without the identity; a new shipper goes on without one."""
    identity = pyrage.x25519.Identity.generate()
    scene.recipients, scene.codec = (str(identity.to_public()),), Codec.GZIP
    for _ in range(2):
        scene.write()
        scene.ship()
    (found,) = scene.pieces("r2", identities=[identity]).values()
    assert [one.encoding.encrypted for one in found] == [True, True]
    with pytest.raises(CodecError):
        scene.pieces("r2")


def test_a_quiet_server_costs_no_request(scene: ShipScene) -> None:
    """While nothing is written, the looks go on, and no store is asked for anything."""
    scene.write()
    with scene.shipping() as running:
        assert requests_while_quiet(scene, running) == []
        assert running.shipper.state().flushed_lsn == scene.flushed


def requests_while_quiet(scene: ShipScene, running: RunningShipper) -> list[tuple[str, str]]:
    """Return the requests to both stores over ten looks at a server that wrote nothing meanwhile."""
    while True:  # the server writes a record of its own now and then, after others
        flushed = scene.flushed
        running.wait_until(lambda: {tail.shipped_lsn for tail in states_of(running)} == {scene.flushed})
        for store in scene.stores.values():
            store.calls.clear()
        for _ in range(10):
            running.wait_for_look()
        if scene.flushed == flushed:
            return [call for store in scene.stores.values() for call in store.calls]


def test_a_quiet_server_behind_a_switch_costs_no_request(scene: ShipScene) -> None:
    """The open segment is then one that has no byte, and the one before is archived."""
    scene.write()
    with scene.shipping() as running:
        running.wait_until(lambda: scene.tail_end("b2") == scene.flushed)
        name = newest(scene)
        scene.cluster.psql("SELECT pg_switch_wal() \\gset")
        running.wait_until(lambda: scene.tail_end("b2") == scene.flushed)
        archive(scene, name)
        running.wait_until(lambda: name not in scene.pieces("r2") and name not in scene.pieces("b2"))
        running.wait_until(lambda: len([one for one in running.of(PiecesRemoved) if one.segment == name]) == 2)
        assert requests_while_quiet(scene, running) == []


def test_a_new_shipper_goes_on_where_the_last_one_ended(scene: ShipScene) -> None:
    """It lists the tail once, reads the last piece back, and stores no byte twice."""
    scene.write()
    scene.ship()
    before = scene.tail_end("r2")
    for store in scene.stores.values():
        store.calls.clear()
    scene.write()
    scene.ship()
    chain = scene.chain("r2", require_file_name(newest(scene)))
    assert [piece.end_lsn for piece in chain] == [before, scene.flushed]
    calls = scene.stores["r2"].calls
    assert [key for call, key in calls if call == "list" and key.endswith("tail/")] != []
    assert len([key for call, key in calls if call == "list" and key.endswith("tail/")]) == 1
    assert len([key for call, key in calls if call == "put"]) == 1


def test_a_dead_store_delays_nobody(scene: ShipScene) -> None:
    """The other store has each piece; the dead one gets them all in one, once it is back."""
    scene.stores["b2"].before = fail("b2")
    with scene.shipping() as running:
        for _ in range(3):
            scene.write()
            running.wait_until(lambda: scene.tail_end("r2") == scene.flushed)
        (failure,) = running.of(ShippingFailed)
        assert (failure.store, failure.message) == ("b2", "b2: cannot list: it is down")
        tails = {tail.store: tail for tail in states_of(running)}
        assert (tails["b2"].error, tails["r2"].error) == ("b2: cannot list: it is down", None)
        assert tails["b2"].failing_since is not None
        scene.stores["b2"].before = nothing
        running.wait_until(lambda: scene.tail_end("b2") == scene.flushed)
        running.wait_until(lambda: running.of(ShippingRecovered))
    assert len(scene.chain("b2", require_file_name(newest(scene)))) < len(
        scene.chain("r2", require_file_name(newest(scene)))
    )


def states_of(running: RunningShipper) -> list[ShippedTail]:
    """Return what a running shipper says of each store."""
    return [state for one in running.shipper.tails if (state := one.state()) is not None]


def test_a_slow_store_takes_larger_pieces(scene: ShipScene) -> None:
    """While it takes one piece, the other store gets several; then it gets the rest in one."""
    slow = threading.Event()

    def wait_for_line(call: str, _key: str) -> None:
        if call == "put":
            slow.wait(60)

    scene.stores["b2"].before = wait_for_line
    with scene.shipping() as running:
        for _ in range(4):
            scene.write()
            running.wait_until(lambda: scene.tail_end("r2") == scene.flushed)
        assert scene.tail_end("b2") is None
        slow.set()
        running.wait_until(lambda: scene.tail_end("b2") == scene.flushed)
    assert len(scene.chain("b2", require_file_name(newest(scene)))) == 2
    assert len(scene.chain("r2", require_file_name(newest(scene)))) >= 4


def test_pieces_are_bounded(scene: ShipScene) -> None:
    """However much was written at once, a piece holds no more than is allowed, and so does the memory."""
    scene.most_piece_bytes = 100_000
    scene.write(350)
    scene.ship()
    chain = scene.chain("r2", require_file_name(newest(scene)))
    assert len(chain) == 4
    assert max(piece.size_bytes for piece in chain) == 100_000
    assert scene.tail_end("r2") == scene.flushed


def test_small_pieces_are_merged(scene: ShipScene) -> None:
    """Sixteen become one, which is verified before the first of them is removed: each moment has the whole tail."""
    ends: list[Lsn | None] = []
    proven: list[bool] = []

    def look(call: str, key: str) -> None:
        if call == "delete":
            ends.append(scene.tail_end("r2"))
            opened = [name for done, name in scene.stores["r2"].calls if done == "open"]
            proven.append(any(name.rsplit("/", 1)[1].startswith(("00000000-", first)) for name in opened[-2:]))

    first = "0000"
    scene.stores["r2"].before = look
    with scene.shipping() as running:
        for _ in range(17):
            scene.write()
            flushed = scene.flushed
            running.wait_until(lambda flushed=flushed: (scene.tail_end("r2") or 0) >= flushed)  # type: ignore[misc]
        merged = running.wait_until(lambda: [one for one in running.of(PiecesMerged) if one.store == "r2"])[0]
        running.wait_until(lambda: scene.tail_end("b2") == scene.flushed)
    assert merged.replaced == 16
    assert len(ends) >= 16
    assert all(end is not None and end >= merged.piece.end_lsn for end in ends)
    assert all(proven)
    chain = scene.chain("r2", require_file_name(newest(scene)))
    assert chain[0].before_sha256 == EMPTY_SHA256
    assert chain[-1].end_lsn == scene.flushed
    assert len(scene.pieces("r2")[newest(scene)]) < 17


def test_pieces_go_where_the_whole_segment_is(scene: ShipScene) -> None:
    """The catalog says that a store has it verified; the pieces of the open segment stay."""
    scene.write()
    with scene.shipping() as running:
        running.wait_until(lambda: scene.tail_end("r2") == scene.flushed)
        name = newest(scene)
        scene.cluster.psql("SELECT pg_switch_wal() \\gset")
        scene.write()
        running.wait_until(lambda: scene.tail_end("r2") == scene.flushed)
        assert name in scene.pieces("r2")
        archive(scene, name)
        running.wait_until(lambda: name not in scene.pieces("r2") and name not in scene.pieces("b2"))
        removed = running.wait_until(lambda: running.of(PiecesRemoved))[0]
    assert removed.segment == name
    assert scene.tail_end("r2") == scene.flushed


def test_the_stores_listing_counts_where_the_catalog_knows_nothing(
    scene: ShipScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A catalog that was lost does not keep pieces for ever."""
    monkeypatch.setattr(upkeep, "_ASK_STORE_SECONDS", 0.0)
    scene.write()
    scene.ship()
    name = newest(scene)
    scene.cluster.psql("SELECT pg_switch_wal() \\gset")
    archive(scene, name)
    no_catalog = scene.shipper(catalog=_broken_catalog)
    scene.write()
    with scene.shipping(no_catalog) as running:
        running.wait_until(lambda: name not in scene.pieces("r2"))
        running.wait_until(lambda: scene.tail_end("r2") == scene.flushed)


def _broken_catalog() -> Catalog:
    raise CatalogError("the catalog is down")


def test_archiving_that_is_behind_holds_shipping(scene: ShipScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two finished segments and the open one have pieces; the next waits until one of them is archived."""
    monkeypatch.setattr(pace, "_MOST_SEGMENT_BYTES", 2 * MIB)
    with scene.shipping() as running:
        names = []
        for _ in range(3):
            scene.write()
            running.wait_until(lambda: scene.tail_end("r2") == scene.flushed)
            names.append(newest(scene))
            scene.cluster.psql("SELECT pg_switch_wal() \\gset")
            running.wait_until(lambda: scene.tail_end("r2") == scene.flushed)
        scene.write()
        for _ in range(5):
            running.wait_for_look()
        assert set(names) <= set(scene.pieces("r2"))
        assert scene.tail_end("r2") != scene.flushed
        assert all((state.behind_seconds or 0) > 0 for state in states_of(running))
        archive(scene, names[0])
        running.wait_until(lambda: scene.tail_end("r2") == scene.flushed)
        assert names[0] not in scene.pieces("r2")


def test_what_is_archived_holds_nothing_though_its_pieces_are_still_there(
    scene: ShipScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Removing pieces is slow, or waits for the catalog: only what is not archived counts as a backlog."""
    monkeypatch.setattr(pace, "_MOST_SEGMENT_BYTES", 2 * MIB)
    monkeypatch.setattr(upkeep.TailUpkeep, "_look_after", lambda _self, _place: None)
    with scene.shipping() as running:
        for _ in range(5):
            scene.write()
            running.wait_until(lambda: scene.tail_end("r2") == scene.tail_end("b2") == scene.flushed)
            finished = newest(scene)
            scene.cluster.psql("SELECT pg_switch_wal() \\gset")
            archive(scene, finished)
        assert len(scene.pieces("r2")) >= 5


def test_another_history_is_never_continued(scene: ShipScene) -> None:
    """A store that holds other bytes of the segment gets no piece of it, and says so; the other store goes on."""
    scene.write()
    scene.ship()
    name = newest(scene)
    make_foreign(scene, "b2", name)
    scene.write()
    with scene.shipping() as running:
        running.wait_until(lambda: scene.tail_end("r2") == scene.flushed)
        failure = running.wait_until(lambda: running.of(ShippingFailed))[0]
        assert failure.store == "b2"
        assert "two histories" in failure.message
        tails = {tail.store: tail for tail in states_of(running)}
        assert tails["b2"].conflict == failure.message
        assert tails["r2"].conflict is None
        scene.cluster.psql("SELECT pg_switch_wal() \\gset")
        scene.write()
        archive(scene, name)
        running.wait_until(lambda: scene.tail_end("b2") == scene.flushed)
        assert [tail.conflict for tail in states_of(running)] == [None, None]


def make_foreign(scene: ShipScene, store: str, segment: str) -> None:
    """Let a store's piece of a segment be one of a server that went another way."""
    inner = scene.stores[store].inner
    (key,) = [listed.key for listed in inner.list("") if segment in listed.key]
    found = inner.head(key)
    assert found is not None
    with inner.open(key) as stream:
        data = stream.read()
    words = dict(found.metadata)
    words["piece-content"] = words["piece-content"].partition("through-sha256=")[0] + f"through-sha256={'ab' * 32}"
    inner.delete(key)
    inner.put_if_absent(key, Body.of(data), words)


def test_a_server_that_was_set_back_is_noticed(
    postgres_version: PostgresInstall, make_cluster: MakeCluster, tmp_path: Path
) -> None:
    """A snapshot of the disk that is started again writes another history on the same timeline."""
    cluster = make_cluster(postgres_version, wal_segment_size_mb=1).start()
    scene = ShipScene(tmp_path / "scene", cluster)
    scene.write()
    cluster.stop()
    shutil.copytree(cluster.pgdata, tmp_path / "snapshot")
    cluster.start()
    scene.write(5)
    scene.ship()
    cluster.stop()
    shutil.copytree(tmp_path / "snapshot", cluster.pgdata, dirs_exist_ok=True)
    cluster.start()
    scene.write(40)
    events = scene.ship()
    failures = [event for event in events if isinstance(event, ShippingFailed)]
    assert {failure.store for failure in failures} == {"r2", "b2"}
    assert all("two histories" in failure.message for failure in failures)
    assert not [event for event in events if isinstance(event, PieceShipped)]


def test_a_catalog_that_is_down_stops_nothing(scene: ShipScene) -> None:
    """The stores are the truth."""
    scene.write()
    events = scene.ship(scene.shipper(catalog=_broken_catalog))
    assert scene.tail_end("r2") == scene.tail_end("b2") == scene.flushed
    assert not [event for event in events if isinstance(event, ShippingFailed)]


def test_a_pause_is_heeded(scene: ShipScene) -> None:
    """Nothing is shipped while archiving is paused, and what was written meanwhile is after it."""
    pause(scene.catalog, scene.shipper().state().seen_at, length=timedelta(hours=1), reason="", by="a test")
    scene.write()
    with scene.shipping() as running:
        running.wait_until(lambda: read_shipping(scene.catalog.values) is not None)
        assert scene.pieces("r2") == {}
        assert running.shipper.looks.last is None
        resume(scene.catalog, scene.shipper().state().seen_at)
        running.wait_until(lambda: scene.tail_end("r2") == scene.flushed)


def test_one_shipper_at_a_time(scene: ShipScene) -> None:
    """The second one is told why, and the first goes on."""
    with scene.shipping() as running:
        running.wait_until(lambda: running.shipper.looks.last)
        with pytest.raises(ShipperBusyError) as caught:
            scene.ship()
        lock = scene.folder / "state/ship.lock"
        assert caught.value.message == (
            f"the WAL of cluster 'main' is being shipped by another process, which holds '{lock}'"
        )
    scene.ship()


def test_another_cluster_is_not_shipped(scene: ShipScene) -> None:
    """The setting names the only one; the error says which was found, and is told once."""
    scene.fixed_identifier = 7
    with scene.shipping() as running:
        running.wait_until(lambda: running.of(ShippingFailed))
        running.wait_until(lambda: (state := read_shipping(scene.catalog.values)) and state.error)
    state = read_shipping(scene.catalog.values)
    identifier = int(scene.cluster.value("SELECT system_identifier FROM pg_control_system()")) % 2**64
    (failure,) = running.of(ShippingFailed)
    assert failure.message == (
        f"the server has system identifier {identifier}, expected 7 of WAL_PIPELINE_SYSTEM_IDENTIFIER"
    )
    assert state is not None
    assert (failure.store, state.error) == (None, failure.message)
    assert scene.pieces("r2") == {}


def test_a_server_that_stops_and_starts(
    postgres_version: PostgresInstall, make_cluster: MakeCluster, tmp_path: Path
) -> None:
    """Its stop is an error while it lasts; a crash and a restart lose nothing and leave no hole."""
    cluster = make_cluster(postgres_version, wal_segment_size_mb=1).start()
    scene = ShipScene(tmp_path / "scene", cluster)
    scene.write()
    with scene.shipping() as running:
        running.wait_until(lambda: scene.tail_end("r2") == scene.flushed)
        cluster.kill()
        running.wait_until(lambda: running.shipper.state().error)
        cluster.start()
        scene.write()
        running.wait_until(lambda: scene.tail_end("r2") == scene.flushed)
        running.wait_until(lambda: running.shipper.state().error is None)
        cluster.restart()
        scene.write()
        running.wait_until(lambda: scene.tail_end("b2") == scene.flushed)
    assert [event.store for event in running.of(ShippingRecovered)] != []


def test_wal_of_the_lowest_level_is_not_shipped(
    postgres_version: PostgresInstall, make_cluster: MakeCluster, tmp_path: Path
) -> None:
    """Nothing could be restored from it."""
    settings = {"wal_level": "minimal", "max_wal_senders": "0"}
    cluster = make_cluster(postgres_version, wal_segment_size_mb=1, settings=settings).start()
    scene = ShipScene(tmp_path / "scene", cluster)
    last = ended(scene.ship())
    assert last.shipping.error is not None
    assert last.shipping.error.startswith("wal_level is 'minimal'")
    assert last.shipping.failing_since is not None


def test_a_data_directory_that_is_not_there(scene: ShipScene, tmp_path: Path) -> None:
    """The error names it; no store is asked for anything."""
    scene.cluster.pgdata, kept = tmp_path / "elsewhere", scene.cluster.pgdata
    try:
        last = ended(scene.ship())
    finally:
        scene.cluster.pgdata = kept
    assert last.shipping.error == f"the data directory '{tmp_path}/elsewhere' is not on this host"
    assert [store.calls for store in scene.stores.values()] == [[], []]


def test_a_promotion_in_mid_segment(
    postgres_version: PostgresInstall, make_cluster: MakeCluster, tmp_path: Path
) -> None:
    """The new timeline's segment is shipped from its start; the left timeline's pieces stay as they are."""
    primary = make_cluster(postgres_version, wal_segment_size_mb=1).start()
    standby = make_standby(postgres_version, primary).start()
    try:
        scene = ShipScene(tmp_path / "scene", standby)
        primary.psql("SELECT pg_logical_emit_message(true, 't', repeat('x', 20000)) \\gset")
        flushed = Lsn.parse(primary.value("SELECT pg_current_wal_flush_lsn()"))
        wait_replayed(standby, flushed)
        with scene.shipping() as running:
            running.wait_until(lambda: (scene.tail_end("r2") or 0) >= flushed)
            left = newest(scene)
            primary.stop()
            standby.psql("SELECT pg_promote() \\gset")
            standby.wait_promoted()
            scene.write()
            running.wait_until(lambda: newest(scene) > left and scene.tail_end("r2") == scene.flushed)
            running.wait_until(lambda: scene.tail_end("b2") == scene.flushed)
        assert newest(scene).startswith("00000002")
        assert left in scene.pieces("r2")
    finally:
        standby.remove()


def test_what_a_left_timeline_owes_is_shipped_too(
    postgres18: PostgresInstall, make_cluster: MakeCluster, tmp_path: Path
) -> None:
    """Finished segments that were not archived before a promotion: without them nothing after it can be reached."""
    primary = make_cluster(postgres18, wal_segment_size_mb=1).start()
    standby = make_standby(postgres18, primary, settings={"wal_keep_size": "1GB"}).start()
    try:
        scene = ShipScene(tmp_path / "scene", standby)
        owed = []
        for _ in range(3):
            primary.psql("SELECT pg_logical_emit_message(true, 't', repeat('x', 20000)) \\gset")
            owed.append(primary.value("SELECT pg_walfile_name(pg_switch_wal())"))
        wait_replayed(standby, Lsn.parse(primary.value("SELECT pg_current_wal_flush_lsn()")))
        primary.stop()
        standby.psql("SELECT pg_promote() \\gset")
        standby.wait_promoted()
        scene.write()
        scene.ship()
        for store in scene.stores:
            found = {name: scene.chain(store, require_file_name(name)) for name in [*owed, newest(scene)]}
            assert newest(scene).startswith("00000002")
            assert [chain[-1].to_offset for name, chain in found.items() if name in owed] == [MIB] * 3
            assert scene.tail_end(store) == scene.flushed
            names = sorted(name[8:] for name in scene.pieces(store))
            assert names == sorted({*names}), "a segment was shipped of both timelines"
            assert int(names[-1][8:], 16) - int(names[0][8:], 16) == len(names) - 1, "there is a hole"
    finally:
        standby.remove()


def test_a_store_without_room(scene: ShipScene) -> None:
    """Its error stands in its tail; nothing is lost, and the other store has it all."""

    def no_room(call: str, _key: str) -> None:
        if call == "put":
            raise StoreUnavailableError("b2", "cannot put: no room is left")

    scene.stores["b2"].before = no_room
    scene.write()
    tails = {tail.store: tail for tail in ended(scene.ship()).tails}
    assert (tails["b2"].error, tails["r2"].shipped_lsn) == ("b2: cannot put: no room is left", scene.flushed)
    scene.stores["b2"].before = nothing
    scene.ship()
    assert scene.tail_end("b2") == scene.flushed


def test_it_is_recorded(scene: ShipScene) -> None:
    """The catalog has each store's tail and the shipper's state as they were at the end."""
    scene.write()
    last = ended(scene.ship())
    found = read_tails(scene.catalog.values, scene.stores)
    assert {name: tail.pieces for name, tail in found.items()} == {tail.store: tail.pieces for tail in last.tails}
    assert {tail.shipped_lsn for tail in found.values()} == {scene.flushed}
    shipping = read_shipping(scene.catalog.values)
    assert shipping is not None
    assert (shipping.flushed_lsn, shipping.error, shipping.source) == (scene.flushed, None, "host")


def test_how_late_a_piece_was(scene: ShipScene) -> None:
    """From the look before its bytes to its verification; of WAL from before the shipper nothing is known."""
    scene.write()
    begun = time.monotonic()
    with scene.shipping() as running:
        running.wait_until(lambda: scene.tail_end("r2") == scene.flushed)
        scene.write()
        running.wait_until(lambda: scene.tail_end("r2") == scene.flushed)
    lasted = time.monotonic() - begun
    first, *later = [event.behind_seconds for event in running.of(PieceShipped) if event.store == "r2"]
    assert first is None
    assert later
    assert all(seconds is not None and 0 < seconds < lasted for seconds in later)


def test_pieces_behind_a_gap_complete_nothing(
    postgres_version: PostgresInstall, make_cluster: MakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With more segments to archive than are shipped, no moment is promised until the last of them is archived."""
    monkeypatch.setattr(pace, "_MOST_SEGMENT_BYTES", MIB)
    cluster = make_cluster(postgres_version, wal_segment_size_mb=1, settings={"wal_keep_size": "1GB"}).start()
    scene = ShipScene(tmp_path / "scene", cluster)
    names = []
    for _ in range(5):
        scene.write()
        names.append(cluster.value("SELECT pg_walfile_name(pg_switch_wal())"))
    scene.write()
    with scene.shipping() as running:
        running.wait_until(lambda: scene.tail_end("r2") == scene.flushed)
        running.wait_until(lambda: {tail.shipped_lsn for tail in states_of(running)} == {scene.flushed})
        assert min(scene.pieces("r2")) == names[3]
        assert [(tail.complete_at, tail.behind_seconds) for tail in states_of(running)] == [(None, None)] * 2
        archive(scene, names[2])
        running.wait_until(lambda: all(tail.complete_at for tail in states_of(running)))
        assert [tail.behind_seconds for tail in states_of(running)] == [0.0, 0.0]


def test_a_clock_that_jumps_makes_nothing_late(scene: ShipScene) -> None:
    """It is set back and forth while pieces are shipped: how late they are is measured by another one."""
    begun, jumps = time.monotonic(), iter(range(10_000))

    def clock() -> datetime:
        return datetime.now(UTC) + timedelta(hours=(-1) ** next(jumps))

    with scene.shipping(scene.shipper(clock=clock)) as running:
        for _ in range(3):
            scene.write()
            running.wait_until(lambda: scene.tail_end("r2") == scene.flushed)
    lasted = time.monotonic() - begun
    late = [event.behind_seconds for event in running.of(PieceShipped) if event.behind_seconds is not None]
    assert late
    assert all(0 < seconds < lasted for seconds in late)


def test_a_pieces_commits_are_in_its_metadata(scene: ShipScene) -> None:
    """The last commit of the tail is the last one that the server made."""
    scene.write()
    scene.ship()
    scene.write()
    tail = ended(scene.ship()).tails[0]
    last = scene.chain("r2", require_file_name(newest(scene)))[-1]
    assert last.commit_times is CommitTimes.KNOWN
    assert last.last_commit_at is not None
    assert tail.last_commit_at == last.last_commit_at
    assert last.first_commit_at == last.last_commit_at
