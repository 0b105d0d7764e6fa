"""Transactions put together from stretches of WAL: across them, after gaps, after a crash, around the wraparound."""

import numpy as np

from wal_pipeline.wal.records.assemble import CommitBlock, CommittedTransaction, TransactionAssembler
from wal_pipeline.wal.records.endings import EndKind, MadeFiles, RelationKey, RunningTransactions, TransactionEnd
from wal_pipeline_tests.support.wal_stretch import stretch

TABLE: RelationKey = (5, 16384)
OTHER: RelationKey = (5, 16390)


def all_of(block: CommitBlock) -> list[CommittedTransaction]:
    return list(block.in_order(np.arange(len(block.rows)), block.others))


def inserted(one: CommittedTransaction) -> int:
    return sum(tally.inserted for tally in one.tallies.values())


def test_a_transaction_across_three_stretches_is_one() -> None:
    """What it did in each is added up, and it comes where it commits."""
    assembler = TransactionAssembler()
    assert all_of(assembler.add(stretch(100, [(7, TABLE, 1)]))) == []
    assert all_of(assembler.add(stretch(200, [(7, TABLE, 2), (8, TABLE, 5)], commits=[(8, 250)])))[0].xid == 8
    (found,) = all_of(assembler.add(stretch(300, [(7, OTHER, 4)], commits=[(7, 350)])))
    assert (found.xid, found.lsn, found.tallies[TABLE].inserted, found.tallies[OTHER].inserted) == (7, 350, 3, 4)
    assert found.wal_bytes == 400  # three parts and the commit


def test_children_count_and_what_was_rolled_back_does_not() -> None:
    """Subtransactions that the commit names count, one that was aborted on its own does not."""
    assembler = TransactionAssembler()
    assembler.add(stretch(100, [(7, TABLE, 1), (8, TABLE, 10), (9, TABLE, 100)], aborts=[8]))
    end = TransactionEnd(EndKind.COMMIT, 250, 7, 250, children=(9, 10))
    (found,) = all_of(assembler.add(stretch(200, [(10, TABLE, 1000)], ends=[end])))
    assert inserted(found) == 1101


def test_an_aborted_parent_takes_its_children_with_it() -> None:
    """Nothing of it is left for a later transaction."""
    assembler = TransactionAssembler()
    assembler.add(stretch(100, [(7, TABLE, 1), (8, TABLE, 10)]))
    end = TransactionEnd(EndKind.ABORT, 250, 7, 250, children=(8,))
    assert all_of(assembler.add(stretch(200, ends=[end]))) == []
    (found,) = all_of(assembler.add(stretch(300, [(8, TABLE, 5)], commits=[(8, 350)])))
    assert inserted(found) == 5


def test_plain_commits_and_others_come_in_the_order_of_their_lsns() -> None:
    """Those that are looked at one by one are put between those that are not."""
    assembler = TransactionAssembler()
    assembler.add(stretch(100, [(9, TABLE, 1)]))
    end = TransactionEnd(EndKind.COMMIT, 220, 8, 220, prepared=True)
    rows = [(7, TABLE, 1), (10, TABLE, 1)]
    block = assembler.add(stretch(200, rows, commits=[(7, 210), (9, 230), (10, 240)], ends=[end]))
    assert [one.xid for one in all_of(block)] == [7, 8, 9, 10]
    assert len(block) == 4


def test_only_a_beginning_that_was_read_is_called_seen() -> None:
    """The first record of running transactions says from which xid on; around the wraparound too."""
    for next_xid, old, new in ((50, 49, 50), (3, 2**32 - 1, 3), (2**32 - 2, 2**32 - 3, 4)):
        assembler = TransactionAssembler()
        running = [RunningTransactions(150, next_xid, old)]
        block = assembler.add(
            stretch(100, [(old, TABLE, 1), (new, TABLE, 1)], commits=[(old, 160), (new, 170)], running=running)
        )
        assert {one.xid: one.unseen_begin for one in all_of(block)} == {old: True, new: False}


def test_after_a_gap_nothing_is_sure_until_the_server_says_what_runs() -> None:
    """A transaction that was open before the gap, or began in it, may have done more."""
    assembler = TransactionAssembler()
    running = [RunningTransactions(110, 7, 7)]
    assembler.add(stretch(100, [(7, TABLE, 1)], running=running))
    assembler.skip()
    block = assembler.add(stretch(500, [(9, TABLE, 1)], commits=[(7, 510), (9, 520)]))
    assert [(one.xid, one.unseen_begin) for one in all_of(block)] == [(7, True), (9, True)]
    after = [RunningTransactions(610, 20, 20)]
    block = assembler.add(stretch(600, [(20, TABLE, 1)], commits=[(20, 620)], running=after))
    assert [(one.xid, one.unseen_begin) for one in all_of(block)] == [(20, False)]


def test_a_crashed_transaction_is_forgotten() -> None:
    """Its xid is older than all that run; a reused one counts nothing of it."""
    assembler = TransactionAssembler()
    assembler.add(stretch(100, [(7, TABLE, 1)]))
    assembler.add(stretch(200, running=[RunningTransactions(210, 30, 30)]))
    (found,) = all_of(assembler.add(stretch(300, [(7, TABLE, 5)], commits=[(7, 350)])))
    assert inserted(found) == 5


def test_files_that_a_transaction_made_itself() -> None:
    """By their xid; made without one, where nobody committed before the transaction's first record."""
    commit = TransactionEnd(EndKind.COMMIT, 250, 7, 250, removed=(TABLE, OTHER), tablespaces=frozenset([1663]))
    made = [MadeFiles(90, 0, TABLE, 1663), MadeFiles(95, 7, OTHER, 1700)]
    block = TransactionAssembler().add(stretch(100, [(7, TABLE, 1)], ends=[commit], made=made))
    (found,) = all_of(block)
    assert found.made == {TABLE, OTHER}
    assert found.changes_tablespace
    assembler = TransactionAssembler()
    assembler.add(stretch(80, [(6, TABLE, 1)], commits=[(6, 99)], made=made[:1]))
    (found,) = all_of(assembler.add(stretch(100, [(7, TABLE, 1)], ends=[commit])))
    assert found.made == frozenset()
