"""The last completed transaction, as recovery counts it, in what pg_waldump prints."""

from datetime import UTC, datetime

from wal_pipeline.postgres.last_transaction import LastTransaction, last_of
from wal_pipeline.wal.lsn import Lsn

_LINE = "rmgr: Transaction len (rec/tot):     34/    34, tx:        {xid}, lsn: {lsn}, prev 0/1000028, desc: {desc}\n"


def printed(*records: tuple[str, str]) -> bytes:
    """Lines of pg_waldump: where each record begins, and what it is."""
    return "".join(_LINE.format(xid=700 + i, lsn=lsn, desc=desc) for i, (lsn, desc) in enumerate(records)).encode()


def at(second: int) -> datetime:
    """A moment."""
    return datetime(2026, 11, 22, 18, 0, second, tzinfo=UTC)


TEXT = printed(
    ("0/01000100", "COMMIT 2026-11-22 18:00:01.000000 UTC"),
    ("0/01000200", "COMMIT_PREPARED 703: 2026-11-22 18:00:02.000000 UTC; subxacts: 704"),
    ("0/01000300", "ABORT 2026-11-22 18:00:03.000000 UTC; rels: base/5/16384"),
    ("0/01000400", "ASSIGNMENT xtop 705: subxacts: 706"),
    ("0/01000500", "ABORT_PREPARED 707: 2026-11-22 18:00:05.000000 UTC"),
)


def test_a_rollback_completes_a_transaction_too() -> None:
    """The last completed one may be a rollback; the last commit is returned beside it."""
    assert last_of(TEXT, Lsn(0), Lsn.parse("0/2000000")) == LastTransaction(at(5), at(2))


def test_only_records_that_begin_in_the_stretch_count() -> None:
    """The end is exclusive, as a recovery target of that kind is; the beginning is the redo point."""
    assert last_of(TEXT, Lsn(0), Lsn.parse("0/1000300")) == LastTransaction(at(2), at(2))
    assert last_of(TEXT, Lsn.parse("0/1000201"), Lsn.parse("0/1000500")) == LastTransaction(at(3), None)


def test_no_transaction_at_all() -> None:
    """An idle server's WAL completes nothing."""
    assert last_of(printed(("0/01000400", "ASSIGNMENT xtop 705: subxacts: 706")), Lsn(0), Lsn(1 << 40)) == (
        LastTransaction(None, None)
    )
