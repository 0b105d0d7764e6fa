"""Every record of real WAL, compared with the same version's own pg_waldump; and damage that must be noticed."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from wal_pipeline.wal.names import require_file_name, segment_name
from wal_pipeline.wal.page_header import LONG_HEADER_BYTES, MAJOR_OF_MAGIC, parse_long_page_header
from wal_pipeline.wal.records.changes import RecordChanges, count_changes
from wal_pipeline.wal.records.decode import DecodedSegment, RecordTable, UnfinishedRecord, decode_segment, join_record
from wal_pipeline.wal.records.page_stream import DamagedRecordsError, UndecodableWalError
from wal_pipeline_tests.support.find_scene import FindScene, played
from wal_pipeline_tests.support.wal_writer import BLOCK, MIB, WalWriter
from wal_pipeline_tests.support.waldump_lines import DumpedRecord, dump

MANAGERS = {"XLOG": 0, "Transaction": 1, "Storage": 2, "Database": 4, "Standby": 8, "Heap2": 9, "Heap": 10, "Btree": 11}


@dataclass(frozen=True, slots=True)
class Compared:
    """The decoder's tables of a whole timeline, and pg_waldump's lines of the same segments."""

    tables: list[RecordTable]
    changes: list[RecordChanges]
    lines: list[DumpedRecord]


@pytest.fixture(scope="module", params=[pytest.param(15, marks=pytest.mark.postgres15), 18])
def scene(request: pytest.FixtureRequest) -> FindScene:
    """A real server's WAL with everything in it."""
    found = played(request.param)
    if found is None:
        pytest.skip(f"PostgreSQL {request.param} is not installed")
    return found


@pytest.fixture(scope="module")
def compared(scene: FindScene) -> Compared:
    """Both readings of timeline 1."""
    paths = [path for path in scene.segments() if path.name.startswith("00000001")]
    records = [decode_segment(require_file_name(path.name), path.read_bytes()) for path in paths]
    major = parse_long_page_header("first", paths[0].read_bytes()[:LONG_HEADER_BYTES]).server_major
    assert major == scene.cluster.install.version
    tables = list(_joined(records))
    lines = list(dump(scene.cluster.install, scene.folder, paths[0].name, paths[-1].name))
    return Compared(tables, [count_changes(table, major) for table in tables], lines)


def _joined(segments: list[DecodedSegment]) -> Iterator[RecordTable]:
    pending: UnfinishedRecord | None = None
    for one in segments:
        if pending is not None:
            joined = join_record(pending, one.head)
            pending = joined if isinstance(joined, UnfinishedRecord) else None
            if isinstance(joined, RecordTable):
                yield joined
        yield one.table
        pending = one.unfinished or pending


@pytest.mark.integration
def test_each_record_is_pg_waldumps(compared: Compared) -> None:
    """LSN, previous record, length, xid and the first block's relation of each record are the same."""
    ours = [
        (lsn, previous, length, xid, (database, node))
        for table in compared.tables
        for lsn, previous, length, xid, database, node in zip(
            table.lsns.tolist(),
            table.previous.tolist(),
            table.lengths.tolist(),
            table.xids.tolist(),
            table.databases.tolist(),
            table.file_nodes.tolist(),
            strict=True,
        )
    ]
    theirs = [(one.lsn, one.previous, one.length, one.xid, one.relation) for one in compared.lines]
    assert len(ours) > 10_000
    assert ours == theirs


@pytest.mark.integration
def test_each_resource_manager_is_pg_waldumps(compared: Compared) -> None:
    """The numbers of the resource managers are those of the names that pg_waldump prints."""
    ours = [manager for table in compared.tables for manager in table.managers.tolist()]
    theirs = [MANAGERS.get(one.manager) for one in compared.lines]
    assert [(a, b) for a, b in zip(ours, theirs, strict=True) if b is not None and a != b] == []


@pytest.mark.integration
def test_the_rows_of_each_transaction_and_relation_are_pg_waldumps(compared: Compared) -> None:
    """Counted one by one from pg_waldump's words, the sums are the same."""
    theirs: dict[tuple[int, tuple[int, int]], list[int]] = {}
    places = {"INSERT": 0, "MULTI_INSERT": 0, "UPDATE": 1, "HOT_UPDATE": 1, "DELETE": 2}
    for line in compared.lines:
        if not line.xid:
            continue
        counts = theirs.setdefault((line.xid, line.relation), [0, 0, 0, 0])
        counts[3] += line.length
        if line.manager in ("Heap", "Heap2") and line.operation in places:
            counts[places[line.operation]] += line.tuples if line.operation == "MULTI_INSERT" else 1
    ours: dict[tuple[int, tuple[int, int]], list[int]] = {}
    for one in compared.changes:
        for cell in range(len(one.xid_of_cell)):
            key = int(one.xids[one.xid_of_cell[cell]]), one.relations[one.relation_of_cell[cell]]
            counts = ours.setdefault(key, [0, 0, 0, 0])
            for place, column in enumerate((one.inserted, one.updated, one.deleted, one.wal_bytes)):
                counts[place] += int(column[cell])
    assert ours == theirs


@pytest.mark.integration
def test_a_cut_segment_gives_the_records_before_the_cut(scene: FindScene) -> None:
    """Of a segment that is known up to an offset, the whole records before it come, wherever the cut is."""
    path = scene.segments()[2]
    name, data = require_file_name(path.name), path.read_bytes()
    whole = decode_segment(name, data)
    for end in (40, 8192, 8200, 100_000, 100_001, 524_288, 1_000_003):
        cut = decode_segment(name, data[:end].ljust(len(data), b"\0"), end)
        lsns = whole.table.lsns.tolist()
        assert cut.table.lsns.tolist() == lsns[: len(cut.table)]
        assert not cut.is_whole
        limit = whole.name.start_lsn(MIB) + end
        missing = lsns[len(cut.table)] if len(cut.table) < len(lsns) else limit
        assert cut.unfinished is None or int(cut.unfinished.lsn) == missing
        after = lsns[len(cut.table) + 1] if len(cut.table) + 1 < len(lsns) else limit
        assert after >= limit - 8  # no whole record is left out


def _segment(writer: WalWriter) -> tuple[int, bytes]:
    return next(iter(writer.segments()))


def _written() -> tuple[int, bytes]:
    writer = WalWriter(first=3)
    for index in range(900):
        writer.record(24 + index * 7 % 3000)
    writer.switch()
    return _segment(writer)


def test_a_record_that_does_not_follow_the_one_before_it_is_refused() -> None:
    """One changed xl_prev is found, and the place is named."""
    number, data = _written()
    name = segment_name(1, number, MIB)
    records = decode_segment(name, data).table
    row = 41
    at = int(records.lsns[row]) - number * MIB + 8
    broken = data[:at] + (int(records.previous[row]) + 8).to_bytes(8, "little") + data[at + 8 :]
    with pytest.raises(DamagedRecordsError) as caught:
        decode_segment(name, broken)
    assert caught.value.lsn == int(records.lsns[row])
    assert "follows one at" in caught.value.message


def test_a_length_that_the_pages_contradict_is_refused() -> None:
    """A record that is longer than the next page's header says is found."""
    number, data = _written()
    name = segment_name(1, number, MIB)
    rest = int.from_bytes(data[BLOCK + 16 : BLOCK + 20], "little")
    assert rest > 0
    broken = data[: BLOCK + 16] + (rest + 8).to_bytes(4, "little") + data[BLOCK + 20 :]
    with pytest.raises(DamagedRecordsError) as caught:
        decode_segment(name, broken)
    assert f"goes on with {rest + 8} bytes of a record, expected {rest}" in caught.value.message


@pytest.mark.parametrize(
    ("magic", "said"),
    [
        (next(magic for magic, major in MAJOR_OF_MAGIC.items() if major == 14), "is of PostgreSQL 14"),
        (0xD1FF, "is of a version with magic D1FF"),
    ],
)
def test_another_version_is_refused_by_name(magic: int, said: str) -> None:
    """A version whose records are not known is named; nothing of it is guessed."""
    number, data = _written()
    with pytest.raises(UndecodableWalError) as caught:
        decode_segment(segment_name(1, number, MIB), magic.to_bytes(2, "little") + data[2:])
    assert said in caught.value.message
    assert "expected PostgreSQL 15 to 18" in caught.value.message


def test_zeros_before_a_segments_end_are_noticed() -> None:
    """A segment whose last pages were never written, without a switch, is not whole."""
    number, data = _written()
    half = 64 * BLOCK
    records = decode_segment(segment_name(1, number, MIB), data[:half] + bytes(MIB - half))
    assert not records.is_whole
    assert decode_segment(segment_name(1, number, MIB), data).is_whole


def test_a_record_that_the_server_gave_up_is_left_out() -> None:
    """A page that says so begins anew after a crash: what began before it is no record, and the order goes on."""
    writer = WalWriter(first=3)
    while writer.position - 3 * MIB < 30 * BLOCK:
        writer.record(5000)
    writer.switch()
    number, data = _segment(writer)
    name = segment_name(1, number, MIB)
    lsns = [lsn - number * MIB for lsn in decode_segment(name, data).table.lsns.tolist()]
    page = next(at for at in range(BLOCK, 30 * BLOCK, BLOCK) if int.from_bytes(data[at + 16 : at + 20], "little"))
    last = max(at for at in lsns if at < page)
    before = max(at for at in lsns if at < last)
    flagged = data[: page + 2] + (0x0008).to_bytes(2, "little") + data[page + 4 : page + 16] + bytes(8)
    record = (
        (32).to_bytes(4, "little")
        + bytes(4)
        + (number * MIB + before).to_bytes(8, "little")
        + b"\xd0\0\0\0"
        + bytes(12)
    )
    broken = (flagged + record).ljust(MIB, b"\0")
    table = decode_segment(name, broken).table
    assert [lsn - number * MIB for lsn in table.lsns.tolist()] == [*[at for at in lsns if at < last], page + 24]
