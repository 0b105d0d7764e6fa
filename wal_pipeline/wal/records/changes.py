"""Counts what each transaction did to each relation in one stretch of WAL, for all records at once."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from wal_pipeline.wal.records.decode import RECORD_BYTES, Marks, RecordTable, words_at
from wal_pipeline.wal.records.endings import (
    OPERATION_BITS,
    RM_DBASE,
    RM_HEAP,
    RM_HEAP2,
    RM_SMGR,
    RM_STANDBY,
    RM_XACT,
    XACT_ABORT,
    XACT_COMMIT,
    MadeFiles,
    RelationKey,
    RunningTransactions,
    TransactionEnd,
    read_dropped_database,
    read_end,
    read_made,
    read_running,
)
from wal_pipeline.wal.records.page_stream import Numbers

# heapam_xlog.h
_INSERT, _DELETE, _UPDATE, _HOT_UPDATE, _MULTI_INSERT = 0x00, 0x10, 0x20, 0x40, 0x50
_FLAGS_OF_DELETE: Final = 7  # xl_heap_delete.flags
_IS_SUPER: Final = 0x08  # XLH_DELETE_IS_SUPER: a speculative insertion is taken back
_NTUPLES: Final = 2  # xl_heap_multi_insert.ntuples
_HAS_INFO: Final = 0x80  # XLOG_XACT_HAS_INFO
_DBASE_DROP: Final = 0x20
_SMGR_CREATE: Final = 0x10
_RUNNING_XACTS: Final = 0x10
_DATA_AT: Final = 26  # of a record without blocks and with little data: after its header and the data's
_PLAIN_COMMITS: Final = (34, 38, 46)  # bytes of a commit of its time alone, with xl_xact_xinfo, with xl_xact_dbinfo
_SHORT_DATA: Final = 255
_COMPLETION_BITS: Final = 0xE0000000  # xact.h: XACT_COMPLETION_...: they announce no data
_DENSE: Final = 4_000_000  # cells of a table of transactions and relations that is filled without sorting


@dataclass(frozen=True, slots=True, eq=False)
class RecordChanges:
    """Counts by transaction and relation, and how transactions ended, in one stretch of WAL.

    A transaction here is an xid, which may be a subtransaction's; ``first_lsns`` are those of its first record in the
    stretch. A cell is a pair of a transaction and a relation that occurs: ``xid_of_cell``, which ascends, and
    ``relation_of_cell`` are its places in ``xids`` and ``relations``. The counts are rows; ``wal_bytes`` are the
    lengths of the records. The plain ends, which say no more than xid and time, are in arrays in the order of the WAL;
    ``ends`` are the others. ``dropped_databases`` are by xid and oid.
    """

    first_lsn: int
    xids: Numbers
    first_lsns: Numbers
    relations: tuple[RelationKey, ...]
    xid_of_cell: Numbers
    relation_of_cell: Numbers
    inserted: Numbers
    updated: Numbers
    deleted: Numbers
    wal_bytes: Numbers
    commit_xids: Numbers
    commit_lsns: Numbers
    commit_us: Numbers
    abort_xids: Numbers
    ends: tuple[TransactionEnd, ...]
    running: tuple[RunningTransactions, ...]
    made: tuple[MadeFiles, ...]
    dropped_databases: tuple[tuple[int, int], ...]
    records: int


def count_changes(table: RecordTable, server_major: int) -> RecordChanges:
    """Count the changes of a stretch of WAL. Raises: DamagedRecordsError."""
    owned = np.flatnonzero(table.xids != 0)
    keys = (table.databases[owned].astype(np.uint64) << np.uint64(32)) | table.file_nodes[owned]
    relations, relation_of = _numbered(keys)
    xids, xid_of, first_rows = _transactions(table.xids[owned])
    cells, weigh = _cells(xid_of * len(relations) + relation_of, len(xids) * len(relations))
    inserted, updated, deleted = _rows(table, owned)
    is_xact = table.managers == RM_XACT
    operations = table.infos & OPERATION_BITS
    plain = _plain_commits(table, is_xact & (operations == XACT_COMMIT) & (table.xids != 0))
    abort = is_xact & (table.infos == XACT_ABORT) & (table.xids != 0)
    commits = np.flatnonzero(plain)
    return RecordChanges(
        first_lsn=int(table.lsns[0]) if len(table) else 0,
        xids=xids,
        first_lsns=table.lsns[owned[first_rows]],
        relations=tuple((int(one >> np.uint64(32)), int(one & np.uint64(0xFFFFFFFF))) for one in relations),
        xid_of_cell=cells // max(1, len(relations)),
        relation_of_cell=cells % max(1, len(relations)),
        inserted=weigh(inserted),
        updated=weigh(updated),
        deleted=weigh(deleted),
        wal_bytes=weigh(table.lengths[owned]),
        commit_xids=table.xids[commits],
        commit_lsns=table.lsns[commits],
        commit_us=_times(table, commits),
        abort_xids=table.xids[abort],
        ends=_ends(table, np.flatnonzero(is_xact & ~plain & ~abort), server_major),
        running=tuple(
            read_running(table.record(row), int(table.lsns[row]))
            for row in np.flatnonzero((table.managers == RM_STANDBY) & (operations == _RUNNING_XACTS)).tolist()
        ),
        made=tuple(
            read_made(table.record(row), int(table.lsns[row]))
            for row in np.flatnonzero((table.managers == RM_SMGR) & (operations == _SMGR_CREATE)).tolist()
        ),
        dropped_databases=tuple(
            (int(table.xids[row]), read_dropped_database(table.record(row), int(table.lsns[row])))
            for row in np.flatnonzero(
                (table.managers == RM_DBASE) & (operations == _DBASE_DROP) & (table.xids != 0)
            ).tolist()
        ),
        records=len(table),
    )


def _numbered(keys: "np.ndarray[tuple[int], np.dtype[np.uint64]]") -> tuple[list[np.uint64], Numbers]:
    """Return the distinct keys, ascending, and the place of each one: there are few, so this is faster than a sort."""
    distinct = np.unique(keys)
    return list(distinct), np.searchsorted(distinct, keys).astype(np.int64)


def _transactions(xids: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Return the distinct xids, ascending, the place of each row's xid, and each xid's first row."""
    if not len(xids):
        return xids, xids, xids
    low, high = int(xids.min()), int(xids.max())
    if high - low > _DENSE:  # around the wraparound, or with a very old transaction
        distinct, first, places = np.unique(xids, return_index=True, return_inverse=True)
        return distinct, places.astype(np.int64), first.astype(np.int64)
    first_rows = np.full(high - low + 1, -1, np.int64)
    first_rows[xids[::-1] - low] = np.arange(len(xids) - 1, -1, -1)
    distinct = np.flatnonzero(first_rows >= 0)
    place = np.cumsum(first_rows >= 0) - 1
    return distinct + low, place[xids - low], first_rows[distinct]


def _cells(pairs: Numbers, size: int) -> tuple[Numbers, "_Weigh"]:
    """Return the distinct pairs, ascending, and how to sum weights of the rows by them."""
    if size > _DENSE:
        distinct, places = np.unique(pairs, return_inverse=True)
        return distinct, _Weigh(places, np.arange(len(distinct)), len(distinct))
    used = np.flatnonzero(np.bincount(pairs, minlength=size))
    return used, _Weigh(pairs, used, size)


@dataclass(frozen=True, slots=True, eq=False)
class _Weigh:
    places: Numbers
    used: Numbers
    size: int

    def __call__(self, weights: Numbers | Marks) -> Numbers:
        """Sum weights; below 2**53 a float is exact."""
        some = np.flatnonzero(weights)
        sums = np.bincount(self.places[some], weights=weights[some], minlength=self.size)
        return sums[self.used].astype(np.int64)


def _rows(table: RecordTable, owned: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Return how many rows each of some records inserts, updates and deletes."""
    managers, operations = table.managers[owned], table.infos[owned] & OPERATION_BITS
    heap = managers == RM_HEAP
    inserted = (heap & (operations == _INSERT)).astype(np.int64)
    updated = (heap & ((operations == _UPDATE) | (operations == _HOT_UPDATE))).astype(np.int64)
    deleted = (heap & (operations == _DELETE)).astype(np.int64)
    several = np.flatnonzero((managers == RM_HEAP2) & (operations == _MULTI_INSERT))
    data = table.main_data(owned[several])
    inserted[several] = table.body[data + _NTUPLES].astype(np.int64) | (
        table.body[data + _NTUPLES + 1].astype(np.int64) << 8
    )
    deletes = np.flatnonzero(deleted)
    data = table.main_data(owned[deletes])
    taken_back = deletes[table.body[data + _FLAGS_OF_DELETE] & _IS_SUPER != 0]
    deleted[taken_back] = 0
    inserted[taken_back] = -1
    return inserted, updated, deleted


def _plain_commits(table: RecordTable, commits: Marks) -> Marks:
    """Say which of the commits hold no more than a time: no children, no relations and no messages."""
    rows = np.flatnonzero(commits & np.isin(table.lengths, _PLAIN_COMMITS))
    offsets = table.offsets[rows]
    bits = words_at(table.body, offsets + _DATA_AT + 8) & ~np.uint32(_COMPLETION_BITS)
    says_little = ((table.infos[rows] & _HAS_INFO) == 0) | (bits <= 1)
    plain = np.zeros(len(table), np.bool_)
    plain[rows[says_little & (table.body[offsets + RECORD_BYTES] == _SHORT_DATA)]] = True
    return plain


def _times(table: RecordTable, rows: Numbers) -> Numbers:
    """Return the times of plain commits, which are in microseconds since 2000-01-01."""
    at = table.offsets[rows] + _DATA_AT
    return np.stack([table.body[at + byte] for byte in range(8)], axis=1).copy().view("<i8").reshape(-1)


def _ends(table: RecordTable, rows: Numbers, server_major: int) -> tuple[TransactionEnd, ...]:
    ends = (read_end(table.record(row), int(table.lsns[row]), server_major) for row in rows.tolist())
    return tuple(one for one in ends if one is not None)
