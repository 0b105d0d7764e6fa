"""Names, fates and the files that a search is for, by lists of relations and without them."""

import pytest

from wal_pipeline.archive.format.relations import RelationKind
from wal_pipeline.archive.recovery.names.relation_names import RelationNames
from wal_pipeline.commands.find.found import RelationChange, RelationFate
from wal_pipeline.commands.find.naming import ChangeNaming, choose_relations
from wal_pipeline.commands.find.options import FindOptionError
from wal_pipeline.wal.records.assemble import CommittedTransaction, RelationTally
from wal_pipeline.wal.records.endings import RelationKey
from wal_pipeline_tests.support.relation_lists import SHOP, relation, relation_list

TABLE, INDEX, TOAST, VIEW = ((SHOP.oid, oid) for oid in (20000, 20003, 20001, 20010))
PG_CLASS: RelationKey = (SHOP.oid, 1259)
NAMED = ChangeNaming(
    RelationNames(
        [
            relation_list(
                [
                    relation("orders", 20000),
                    relation("orders_pkey", 20003, kind=RelationKind.INDEX, table_oid=20000),
                    relation("pg_toast_20000", 20001, schema="pg_toast", kind=RelationKind.TOAST, table_oid=20000),
                    relation("totals", 20010, kind=RelationKind.MATERIALIZED_VIEW),
                    relation("pg_class", 1259, schema="pg_catalog"),
                ]
            )
        ]
    )
)
BARE = ChangeNaming(RelationNames(()))


def committed(
    tallies: dict[RelationKey, RelationTally] | None = None,
    *,
    removed: tuple[RelationKey, ...] = (),
    dropped: frozenset[RelationKey] = frozenset(),
    made: frozenset[RelationKey] = frozenset(),
    changes_tablespace: bool = False,
) -> CommittedTransaction:
    return CommittedTransaction(
        900, 500, 0, tallies or {}, False, removed, dropped, made, changes_tablespace=changes_tablespace
    )


def changes(naming: ChangeNaming, one: CommittedTransaction) -> dict[str, RelationChange]:
    return {change.label: change for change in naming.transaction(one, 1).changes}


def test_an_index_and_a_toast_table_count_to_their_table() -> None:
    """Their bytes do, and the rows of a TOAST table are no rows."""
    tallies = {
        TABLE: RelationTally(2, 0, 0, 100),
        INDEX: RelationTally(0, 0, 0, 50),
        TOAST: RelationTally(7, 0, 0, 900),
    }
    (found,) = changes(NAMED, committed(tallies)).values()
    assert (found.label, found.database, found.inserted, found.wal_bytes) == ("public.orders", "shop", 2, 1050)
    assert (found.database_oid, found.file_node) == TABLE


def test_a_system_catalog_is_no_change_of_a_users() -> None:
    """Neither by its name nor by its number."""
    tallies = {PG_CLASS: RelationTally(3, 3, 3, 100), (0, 0): RelationTally(0, 0, 0, 30)}
    assert changes(NAMED, committed(tallies)) == changes(BARE, committed(tallies)) == {}


def test_a_dropped_table_takes_its_index_and_toast_table_with_it() -> None:
    """One line for all; without names a line for each."""
    everything = committed(removed=(TABLE, TOAST, INDEX), dropped=frozenset([TABLE, TOAST, INDEX]))
    assert {label: one.fate for label, one in changes(NAMED, everything).items()} == {
        "public.orders": RelationFate.DROPPED
    }
    assert len(changes(BARE, everything)) == 3


def test_truncate_is_told_from_what_writes_a_relation_anew() -> None:
    """By a transient row in pg_class, by the tablespace, and by WAL in all of the new files."""
    new = (SHOP.oid, 30000)
    emptied = committed(removed=(TABLE,), made=frozenset([new]))
    assert changes(NAMED, emptied)["public.orders"].fate is RelationFate.TRUNCATED
    vacuumed = committed({PG_CLASS: RelationTally(1, 2, 1, 500)}, removed=(TABLE,), made=frozenset([new]))
    assert changes(NAMED, vacuumed)["public.orders"].fate is RelationFate.REWRITTEN
    moved = committed(removed=(TABLE,), made=frozenset([new]), changes_tablespace=True)
    assert changes(NAMED, moved)["public.orders"].fate is RelationFate.REWRITTEN
    reindexed = committed({new: RelationTally(0, 0, 0, 200)}, removed=(INDEX,), made=frozenset([new]))
    (found,) = changes(NAMED, reindexed).values()
    assert (found.label, found.fate, found.is_index) == ("public.orders_pkey", RelationFate.REWRITTEN, True)


def test_without_a_name_a_fate_may_be_unclear() -> None:
    """Old files that have another number than their relation, beside relations that are dropped."""
    old, other = (SHOP.oid, 25000), (SHOP.oid, 26000)
    mixed = committed(removed=(old,), dropped=frozenset([other]), made=frozenset([(SHOP.oid, 30000)]))
    assert changes(BARE, mixed)["16384/25000"].fate is RelationFate.UNCLEAR
    same = committed(removed=(old,), dropped=frozenset([old]))
    assert changes(BARE, same)["16384/25000"].fate is RelationFate.DROPPED


def test_what_a_transaction_made_and_dropped_itself_is_nothing() -> None:
    """A table that nobody else has ever seen."""
    own = (SHOP.oid, 30000)
    one = committed({own: RelationTally(5, 0, 0, 99)}, removed=(own,), dropped=frozenset([own]), made=frozenset([own]))
    assert changes(NAMED, one) == changes(BARE, one) == {}


def test_the_files_that_a_search_is_for() -> None:
    """By name, by numbers, within a database; a name that nobody knows is refused with the nearest."""
    assert choose_relations(NAMED, "orders", None).keys == {TABLE}
    assert choose_relations(BARE, "5/16384", None).keys == {(5, 16384)}
    assert choose_relations(NAMED, None, "shop").databases == {SHOP.oid}
    assert choose_relations(NAMED, None, None).is_all
    with pytest.raises(FindOptionError) as relation_error:
        choose_relations(NAMED, "oders", "shop")
    assert relation_error.value.hint == "Nearest: public.orders."
    with pytest.raises(FindOptionError) as database_error:
        choose_relations(NAMED, None, "shoop")
    assert database_error.value.hint == "The lists have shop."
    with pytest.raises(FindOptionError) as bare_error:
        choose_relations(BARE, "orders", None)
    assert bare_error.value.hint is not None
    assert "give its numbers" in bare_error.value.hint
