"""Reads the records that end transactions, and the few others that are read one by one."""

from dataclasses import dataclass
from enum import Enum
from struct import Struct
from typing import Final

from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.records.decode import RECORD_BYTES
from wal_pipeline.wal.records.page_stream import DamagedRecordsError

# rmgrlist.h: the numbers of the resource managers that are looked at.
RM_XLOG, RM_XACT, RM_SMGR, RM_DBASE, RM_RELMAP, RM_STANDBY, RM_HEAP2, RM_HEAP = 0, 1, 2, 4, 7, 8, 9, 10
OPERATION_BITS: Final = 0x70
# xact.h: the operations, and the bits of xl_xact_xinfo, in the order in which what they announce follows.
XACT_COMMIT, XACT_ABORT, XACT_COMMIT_PREPARED, XACT_ABORT_PREPARED = 0x00, 0x20, 0x30, 0x40
_HAS_INFO: Final = 0x80
_HAS_DATABASE, _HAS_CHILDREN, _HAS_RELATIONS, _HAS_MESSAGES, _HAS_TWOPHASE, _HAS_STATS = 1, 2, 4, 8, 16, 256
_RELATION_STATS: Final = 2  # pgstat_kind.h: PGSTAT_KIND_RELATION
_ORIGIN, _TOP_XID, _LONG_DATA, _SHORT_DATA = 253, 252, 254, 255
_WORD: Final = Struct("<I")
_TIME: Final = Struct("<q")
_LOCATOR: Final = Struct("<III")
_RUNNING: Final = Struct("<ii?xxxII")

RelationKey = tuple[int, int]
"""A relation's files: the oid of its database (0: shared) and its file node."""


class EndKind(Enum):
    """How a transaction ended."""

    COMMIT = "commit"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class TransactionEnd:
    """A commit or abort with all that its record says.

    ``committed_us`` is the time in microseconds since 2000-01-01 UTC. ``children`` are the subtransactions that ended
    with it. ``removed`` are the files that go with it, and ``tablespaces`` those that they lie in. ``dropped_oids`` are
    the relations, by database and oid, that are dropped and not only written anew: their statistics go too.
    """

    kind: EndKind
    lsn: int
    xid: int
    committed_us: int
    children: tuple[int, ...] = ()
    removed: tuple[RelationKey, ...] = ()
    dropped_oids: frozenset[RelationKey] = frozenset()
    prepared: bool = False
    tablespaces: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class MadeFiles:
    """New files of a relation. ``xid`` is 0 where the transaction had none yet."""

    lsn: int
    xid: int
    key: RelationKey
    tablespace: int


@dataclass(frozen=True, slots=True)
class RunningTransactions:
    """The transactions that ran at ``lsn``: none is older than ``oldest_xid``, ``next_xid`` was not begun yet."""

    lsn: int
    next_xid: int
    oldest_xid: int


def read_end(record: bytes, lsn: int, server_major: int) -> TransactionEnd | None:
    """Read a record of the transaction manager; None where it ends no transaction (xactdesc.c: ParseCommitRecord).

    Raises: DamagedRecordsError where it is shorter than it says.
    """
    (xid,), info = _WORD.unpack_from(record, 4), record[16]
    operation = info & OPERATION_BITS
    if operation not in (XACT_COMMIT, XACT_ABORT, XACT_COMMIT_PREPARED, XACT_ABORT_PREPARED):
        return None
    fields = _Fields(record, main_data_of(record, lsn), lsn)
    (committed_us,) = _TIME.unpack(fields.take(8))
    bits = fields.word() if info & _HAS_INFO else 0
    if bits & _HAS_DATABASE:
        fields.take(8)
    children = fields.words(fields.word()) if bits & _HAS_CHILDREN else ()
    locators = fields.locators(fields.word()) if bits & _HAS_RELATIONS else ()
    dropped = fields.stats(fields.word(), server_major) if bits & _HAS_STATS else frozenset[RelationKey]()
    if bits & _HAS_MESSAGES:
        fields.take(16 * fields.word())
    prepared = operation in (XACT_COMMIT_PREPARED, XACT_ABORT_PREPARED)
    return TransactionEnd(
        kind=EndKind.COMMIT if operation in (XACT_COMMIT, XACT_COMMIT_PREPARED) else EndKind.ABORT,
        lsn=lsn,
        xid=fields.word() if prepared and bits & _HAS_TWOPHASE else xid,
        committed_us=committed_us,
        children=children,
        removed=tuple((database, node) for _, database, node in locators),
        tablespaces=frozenset(tablespace for tablespace, _, _ in locators),
        dropped_oids=dropped,
        prepared=prepared,
    )


def read_running(record: bytes, lsn: int) -> RunningTransactions:
    """Read which transactions run (standbydefs.h: xl_running_xacts)."""
    fields = _Fields(record, main_data_of(record, lsn), lsn)
    _, _, _, next_xid, oldest_xid = _RUNNING.unpack(fields.take(_RUNNING.size))
    return RunningTransactions(lsn, next_xid, oldest_xid)


def read_made(record: bytes, lsn: int) -> MadeFiles:
    """Read which files a record makes (storage_xlog.h: xl_smgr_create)."""
    (xid,) = _WORD.unpack_from(record, 4)
    tablespace, database, node = _Fields(record, main_data_of(record, lsn), lsn).locators(1)[0]
    return MadeFiles(lsn, xid, (database, node), tablespace)


def read_dropped_database(record: bytes, lsn: int) -> int:
    """Read the oid of a database that is dropped (dbcommands_xlog.h: xl_dbase_drop_rec)."""
    return _Fields(record, main_data_of(record, lsn), lsn).word()


def main_data_of(record: bytes, lsn: int) -> int:
    """Return where the main data of a record without blocks begins."""
    at = RECORD_BYTES
    for mark, size in ((_ORIGIN, 3), (_TOP_XID, 5)):
        at += size if record[at : at + 1] == bytes((mark,)) else 0
    kind = record[at : at + 1]
    if kind not in (bytes((_SHORT_DATA,)), bytes((_LONG_DATA,))):
        raise DamagedRecordsError(f"the record at {Lsn(lsn)} has no data, expected some of its kind", Lsn(lsn))
    return at + (2 if kind[0] == _SHORT_DATA else 5)


@dataclass(slots=True)
class _Fields:
    """Takes one field after the other out of a record."""

    record: bytes
    at: int
    lsn: int

    def take(self, size: int) -> bytes:
        data = self.record[self.at : self.at + size]
        if len(data) < size:
            raise DamagedRecordsError(
                f"the record at {Lsn(self.lsn)} has {len(self.record)} bytes, expected {self.at + size} or more",
                Lsn(self.lsn),
            )
        self.at += size
        return data

    def word(self) -> int:
        (value,) = _WORD.unpack(self.take(4))
        return int(value)

    def words(self, count: int) -> tuple[int, ...]:
        return tuple(one for (one,) in _WORD.iter_unpack(self.take(4 * count)))

    def locators(self, count: int) -> tuple[tuple[int, int, int], ...]:
        """Read RelFileLocators: tablespace, database and file node."""
        return tuple((one[0], one[1], one[2]) for one in _LOCATOR.iter_unpack(self.take(12 * count)))

    def stats(self, count: int, server_major: int) -> frozenset[RelationKey]:
        """Read xl_xact_stats_items: kind, database and object, whose number has 64 bits since PostgreSQL 18."""
        item = Struct("<IIII" if server_major >= 18 else "<III")
        found = item.iter_unpack(self.take(item.size * count))
        return frozenset((one[1], one[2]) for one in found if one[0] == _RELATION_STATS)
