"""Searches in the archive of a real server, compared with what its transactions really did."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.commands.find.found import FindResult, FoundTransaction
from wal_pipeline.commands.find.options import FindOptionError, FindOptions
from wal_pipeline.commands.find.search import FindEvents
from wal_pipeline.commands.find.window import FindWindowError
from wal_pipeline.stores.local.store import LocalFolderStore
from wal_pipeline.wal.names import require_file_name
from wal_pipeline_tests.support.find_archive import archive, archive_pieces, folder_store, search
from wal_pipeline_tests.support.find_scene import FindScene, played

pytestmark = pytest.mark.integration
SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Searched:
    """An archived scene."""

    scene: FindScene
    folder: Path
    layout: Layout

    @property
    def store(self) -> LocalFolderStore:
        return LocalFolderStore("r2", self.folder)

    def run(self, *, named: bool = True, **options: object) -> FindResult:
        lists = self.scene.lists if named else ()
        return search([self.store], self.layout, FindOptions(**options), lists).run()  # type: ignore[arg-type]

    def all(self, *, named: bool = True, **options: object) -> dict[int, FoundTransaction]:
        return {one.xid: one for one in self.run(named=named, **options).transactions}

    def xids(self) -> list[int]:
        """The played transactions in the order of their commits."""
        return sorted(self.scene.truth, key=lambda xid: self.scene.times[xid])


@pytest.fixture(scope="module", params=[pytest.param(15, marks=pytest.mark.postgres15), 18])
def searched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """The scene of each version in a store."""
    scene = played(request.param)
    if scene is None:
        pytest.skip(f"PostgreSQL {request.param} is not installed")
    folder = tmp_path_factory.mktemp("store")
    store = folder_store("r2", folder)
    layout = Layout("", "main", int(scene.cluster.system_identifier))
    archive(store, layout, sorted(scene.folder.iterdir()))
    return Searched(scene, folder, layout)


@pytest.fixture
def copied(searched: Searched, tmp_path: Path) -> Searched:
    """The same archive in a folder of its own, to be damaged."""
    shutil.copytree(searched.folder, tmp_path / "r2")
    return Searched(searched.scene, tmp_path / "r2", searched.layout)


def _rows(found: FoundTransaction) -> dict[str, tuple[int, int, int]]:
    changes = (one for one in found.changes if one.rows)
    return {one.label.removeprefix("public."): (one.inserted, one.updated, one.deleted) for one in changes}


def _fates(found: FoundTransaction) -> dict[str, str]:
    return {one.label.removeprefix("public."): one.fate.value for one in found.changes if one.fate is not None}


def test_each_transaction_did_what_it_really_did(searched: Searched) -> None:
    """Rows by table, fates, dropped databases, two phases and the time of each are the truth; none is missing."""
    scene, found = searched.scene, searched.all()
    for xid, did in scene.truth.items():
        one = found[xid]
        assert (xid, _rows(one), _fates(one)) == (xid, dict(did.rows), dict(did.fates))
        assert (xid, one.dropped_databases, one.prepared) == (xid, did.databases, did.prepared)
        assert (xid, one.committed_at, one.unseen_begin) == (xid, scene.times[xid], False)
        assert one.timeline == (2 if xid == scene.on_timeline_two else 1)


def test_what_was_rolled_back_is_not_listed(searched: Searched) -> None:
    """Neither a rolled back transaction nor a prepared one that was, nor a savepoint."""
    found = searched.all()
    assert not searched.scene.aborted & set(found)
    assert all(found[xid].xid == xid for xid in found)


def test_they_come_in_the_order_of_their_commits(searched: Searched) -> None:
    """A prepared transaction stands where it was committed, not where it began."""
    result = searched.run()
    lsns = [int(one.lsn) for one in result.transactions]
    assert lsns == sorted(lsns)
    ours = [one.xid for one in result.transactions if one.xid in searched.scene.truth]
    assert ours == searched.xids()
    assert result.matching == len(result.transactions) == result.commits


def test_a_stream_gives_the_same(searched: Searched) -> None:
    """What is yielded one by one is what a whole search returns."""
    find = search([searched.store], searched.layout, FindOptions(), searched.scene.lists)
    streamed = tuple(find.transactions())
    whole = searched.run()
    assert streamed == whole.transactions
    assert find.result().matching == whole.matching
    assert find.result().suspect == whole.suspect


def test_without_a_list_the_numbers_stand_there(searched: Searched) -> None:
    """The counts are the same, by file node, and nothing is called by a name that nobody knows."""
    named, bare = searched.all(), searched.all(named=False)
    assert named.keys() == bare.keys()
    for xid, did in searched.scene.truth.items():
        assert all(one.database is None and "/" in one.label for one in bare[xid].changes)
        if set(did.rows) <= {"orders", "bulk"}:
            assert sorted(_rows(bare[xid]).values()) == sorted(did.rows.values())
    assert {xid for xid in bare if bare[xid].dropped_databases} == {
        xid for xid in named if named[xid].dropped_databases
    }


def test_a_toast_table_and_indexes_count_to_their_table(searched: Searched) -> None:
    """Long values are no rows, but their WAL is their table's: nearly all of the transaction's."""
    xid = next(xid for xid, did in searched.scene.truth.items() if did.rows == {"letters": (5, 0, 0)})
    found = searched.all()[xid]
    (change,) = found.changes
    assert change.wal_bytes > 400_000
    assert found.wal_bytes - change.wal_bytes < 1000


def test_only_the_transactions_of_the_window(searched: Searched) -> None:
    """From one commit's time to another's: those, those between, and no other."""
    xids = searched.xids()
    first, last = searched.scene.times[xids[5]], searched.scene.times[xids[20]]
    found = searched.all(from_time=first.isoformat(), to_time=last.isoformat())
    assert [xid for xid in found if xid in searched.scene.truth] == xids[5:21]


def test_a_transaction_that_began_before_the_window_is_whole(searched: Searched) -> None:
    """What it did before --from counts too, over several segments back, and it is not called "at least"."""
    scene = searched.scene
    at = scene.times[scene.began_early]
    found = searched.all(from_time=at.isoformat(), to_time=at.isoformat())[scene.began_early]
    assert _rows(found) == {"orders": (2, 0, 0)}
    assert not found.unseen_begin


def test_only_what_is_asked_for(searched: Searched) -> None:
    """--dropping, --min-deletes, --min-rows, --relation, --database and their combination."""
    truth = searched.scene.truth
    ours = set(searched.all(dropping=True)) & set(truth)
    assert ours == {xid for xid, did in truth.items() if did.fates or did.databases}
    deletes = set(searched.all(min_deletes=40)) & set(truth)
    assert deletes == {xid for xid, did in truth.items() if sum(row[2] for row in did.rows.values()) >= 40}
    rows = set(searched.all(min_rows=300)) & set(truth)
    assert rows == {xid for xid, did in truth.items() if sum(sum(row) for row in did.rows.values()) >= 300}
    for text in ("bulk", "public.bulk"):
        of_bulk = set(searched.all(relation=text, min_rows=1)) & set(truth)
        assert of_bulk == {xid for xid, did in truth.items() if "bulk" in did.rows}
    shop = set(searched.all(database="shop", dropping=True))
    assert shop == {xid for xid, did in truth.items() if did.databases}


def test_the_most_suspicious_and_the_biggest(searched: Searched) -> None:
    """DROP DATABASE before all; with a limit, those that did most harm in commit order; or the biggest first."""
    scene = searched.scene
    result = searched.run(limit=3)
    assert result.suspect is not None
    assert scene.truth[result.suspect.xid].databases == ("shop",)
    assert len(result.transactions) == 3
    assert result.suspect in result.transactions
    lsns = [int(one.lsn) for one in result.transactions]
    assert lsns == sorted(lsns)
    biggest = searched.run(biggest_first=True, limit=4).transactions
    everything = sorted((one.wal_bytes for one in searched.run().transactions), reverse=True)
    assert [one.wal_bytes for one in biggest] == everything[:4]


def test_a_missing_segment_is_named_and_the_search_goes_on(copied: Searched) -> None:
    """A gap inside the window: what comes after it is listed, and what cannot be known is said."""
    missing = copied.scene.segments()[6].name
    for key in [item.key for item in copied.store.list("") if missing in item.key]:
        copied.store.delete(key)
    result = copied.run()
    assert result.holes == (f"1 segment missing: '{missing}'",)
    after = [one for one in result.transactions if one.xid in copied.scene.truth and one.lsn > _start(missing)]
    assert after
    assert {one.xid: _rows(one) for one in after if not one.unseen_begin} == {
        one.xid: dict(copied.scene.truth[one.xid].rows) for one in after if not one.unseen_begin
    }
    assert any(one.unseen_begin for one in result.transactions)


def test_a_damaged_segment_is_named_and_the_search_goes_on(copied: Searched) -> None:
    """A copy that is not what its checksum says is not read, and its commits are not called absent."""
    name = copied.scene.segments()[8].name
    (key,) = [item.key for item in copied.store.list("") if name in item.key]
    path = copied.folder / "objects" / key
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    result = copied.run()
    assert len(result.holes) == 1
    assert name in result.holes[0]
    assert any(one.lsn > _start(name) + (2 << 20) for one in result.transactions)


def test_pieces_of_the_open_segment_are_searched_too(searched: Searched, tmp_path: Path) -> None:
    """The last segment is there in pieces alone, up to the middle of a record: its commits are found."""
    scene = searched.scene
    *others, last = [path for path in scene.segments() if path.name.startswith("00000001")]
    store = folder_store("r2", tmp_path / "tail")
    archive(store, searched.layout, others)
    end = archive_pieces(store, searched.layout, last)
    result = search([store], searched.layout, FindOptions(), scene.lists).run()
    assert result.pieces == 2
    assert not result.holes
    whole = [one for one in searched.run(timeline="1").transactions if one.lsn < _start(last.name) + end - 100]
    assert [one.xid for one in whole] == [one.xid for one in result.transactions][: len(whole)]
    assert any(one.lsn > _start(last.name) for one in result.transactions)


def test_unknown_commit_times_leave_nothing_out(searched: Searched, tmp_path: Path) -> None:
    """Where the archiver had no pg_waldump, the search begins early, says so, and finds the same."""
    scene, xids = searched.scene, searched.xids()
    store = folder_store("r2", tmp_path / "untimed")
    archive(store, searched.layout, sorted(scene.folder.iterdir()), with_times=False)
    times = [scene.times[xids[place]].isoformat() for place in (5, 20)]
    options = FindOptions(from_time=times[0], to_time=times[1])
    found = search([store], searched.layout, options, scene.lists).run()
    assert [one.xid for one in found.transactions if one.xid in scene.truth] == xids[5:21]
    assert any("commit times" in note and "perhaps early" in note for note in found.notes)


def test_a_window_without_wal_names_the_nearest_commits(searched: Searched) -> None:
    """Before the archive and after it."""
    times = [searched.scene.times[xid] for xid in searched.xids()]
    early, late = times[0] - timedelta(days=2), times[-1] + timedelta(days=2)
    with pytest.raises(FindWindowError) as before:
        searched.run(from_time=early.isoformat(), to_time=(early + SECOND).isoformat())
    assert before.value.hint is not None
    assert "The nearest commits that are archived are of 20" in before.value.hint
    with pytest.raises(FindWindowError) as after:
        searched.run(from_time=late.isoformat(), to_time=(late + SECOND).isoformat())
    assert "the last commit that is archived is of 20" in after.value.message


def test_a_window_inside_a_gap_names_the_commits_around_it(copied: Searched) -> None:
    """The segment with the only commit of the window is gone, and those beside it."""
    scene = copied.scene
    long_one = scene.times[scene.began_early]
    names = [path.name for path in scene.segments() if path.name.startswith("00000001")]
    place = next(index for index, name in enumerate(names) if _start(name) > scene.began_early_lsn)
    gone = names[place - 2 : place + 1]
    for key in [item.key for item in copied.store.list("") if any(name in item.key for name in gone)]:
        copied.store.delete(key)
    with pytest.raises(FindWindowError) as caught:
        copied.run(from_time=long_one.isoformat(), to_time=long_one.isoformat())
    assert caught.value.hint is not None
    assert "(before) and" in caught.value.hint


def test_a_relation_that_never_was_names_the_nearest(searched: Searched) -> None:
    """A typing error is told with the name that was meant; so is a database's."""
    with pytest.raises(FindOptionError) as relation:
        searched.run(relation="order")
    assert relation.value.hint == "Nearest: public.orders (in database 'postgres')."
    with pytest.raises(FindOptionError) as database:
        searched.run(database="shopp")
    assert database.value.hint is not None
    assert "shop" in database.value.hint


def test_the_progress_counts_what_is_read(searched: Searched) -> None:
    """As many bytes come as were planned, where the whole archive is searched."""

    class Heard(FindEvents):
        def __init__(self) -> None:
            self.bytes = [0, 0]

        def planned(self, window_bytes: int) -> None:
            self.bytes[0] = window_bytes

        def came(self, size_bytes: int) -> None:
            self.bytes[1] += size_bytes

    heard = Heard()
    result = search([searched.store], searched.layout, FindOptions()).run(heard)
    assert heard.bytes == [result.read_bytes, result.read_bytes]


def test_nothing_is_written(searched: Searched) -> None:
    """A search leaves the store as it was."""
    before = _files(searched.folder.rglob("*"))
    searched.run()
    assert _files(searched.folder.rglob("*")) == before


def _files(paths: Iterable[Path]) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in paths}


def _start(name: str) -> int:
    return int(require_file_name(name).start_lsn(1 << 20))
