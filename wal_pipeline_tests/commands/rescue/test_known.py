"""Tests what the lists of relations say of wanted tables, and that they never say more than they know."""

from dataclasses import replace

import pytest

from wal_pipeline.archive.format.relations import ListedDatabase
from wal_pipeline.commands.rescue.known import KnownTables
from wal_pipeline.commands.rescue.wanted import WantedTable
from wal_pipeline.errors import RestoreError
from wal_pipeline_tests.support.relation_lists import SHOP, relation, relation_list

OTHER = replace(SHOP, oid=16999, name="other")
BOTH: tuple[ListedDatabase, ...] = (SHOP, OTHER)
ORDERS = WantedTable.parse("orders")


def known() -> KnownTables:
    """Three days: ``orders`` comes on the second and is gone on the third, with its database."""
    there = [relation("orders", 20001, database_oid=OTHER.oid), relation("wares", 20002)]
    return KnownTables(
        (
            relation_list([relation("wares", 20002)], day=0, databases=BOTH),
            relation_list([*there, relation("items", 20003, database_oid=OTHER.oid)], day=1, databases=BOTH),
            relation_list([relation("wares", 20002)], day=2),
        )
    )


def test_the_database_is_found_by_its_tables() -> None:
    """The one that had all of them; a named one without looking at them, and none that no list knows."""
    both = [ORDERS, WantedTable.parse("items")]
    assert known().databases(both, None) == ("other",)
    assert known().databases([WantedTable.parse("new")], "other") == ("other",)
    assert known().databases(both, "unlisted") == ()
    assert known().databases([ORDERS, WantedTable.parse("wares")], None) == ()


def test_a_table_that_no_list_knows_is_refused_with_the_nearest() -> None:
    """Unless its database is named: it may have lived between two lists. Then it is only said."""
    with pytest.raises(RestoreError) as error:
        known().databases([WantedTable.parse("ordres")], None)
    assert str(error.value) == (
        "no list of relations knows a table 'ordres'\n"
        "HINT: The nearest names: public.orders. A list is kept with each base backup and once a day: name the "
        "database of a table that lived for less, with --database."
    )
    assert known().notes([WantedTable.parse("ordres"), WantedTable.parse("items")], "other") == (
        "no list of relations knows 'ordres' in database 'other'",
    )


def test_nothing_is_said_without_lists() -> None:
    """An archive of an older program has none: all databases come, and any table may be there."""
    none = KnownTables(())
    assert none.databases([ORDERS], None) == ()
    assert none.notes([ORDERS], "shop") == ()
    assert none.lifetime(ORDERS, None) is None


def test_a_lifetime_is_told_by_the_lists() -> None:
    """From which list to which, and the ones around."""
    assert known().lifetime(ORDERS, None) == (
        "By the lists of relations it was there from 2026-11-02 03:00:00Z to 2026-11-02 03:00:00Z; at "
        "2026-11-01 03:00:00Z not yet; at 2026-11-03 03:00:00Z no more."
    )
    assert known().lifetime(WantedTable.parse("wares"), "shop") == (
        "By the lists of relations it was there from 2026-11-01 03:00:00Z to 2026-11-03 03:00:00Z."
    )
    assert known().lifetime(ORDERS, "shop") is None


def test_the_number_of_a_file_names_its_database() -> None:
    """No list knows the table, which is why it is named by a number; nothing is said of its lifetime."""
    files = WantedTable.parse(f"{OTHER.oid}/4711")
    assert known().databases([files], None) == ("other",)
    assert known().lifetime(files, None) is None
