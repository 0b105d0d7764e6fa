"""Names are found by numbers, and numbers by names, as the lists of several days have them."""

from datetime import timedelta

from wal_pipeline.archive.format.relations import ListedDatabase, RelationKind
from wal_pipeline.archive.recovery.names.relation_names import NamedRelation, RelationNames
from wal_pipeline_tests.support.relation_lists import FIRST_AT, SHOP, relation, relation_list

TWO_DAYS_LATER = FIRST_AT + timedelta(days=2, hours=1)


def label(found: NamedRelation | None) -> str | None:
    """Return what a person is shown."""
    return None if found is None else found.label


def test_a_file_node_has_the_name_that_it_had_at_the_moment() -> None:
    """The newest list up to the moment counts, and where it knows nothing an older one, or else the next one."""
    names = RelationNames(
        [
            relation_list([], day=4),
            relation_list([relation("orders", 16400)], day=1),
            relation_list([relation("orders_old", 16400), relation("orders", 16500)], day=3),
        ]
    )
    assert label(names.of(SHOP.oid, 16400, at=TWO_DAYS_LATER)) == "public.orders"
    assert label(names.of(SHOP.oid, 16400, at=FIRST_AT + timedelta(days=3))) == "public.orders_old"
    assert label(names.of(SHOP.oid, 16400)) == "public.orders_old"
    assert label(names.of(SHOP.oid, 16500, at=FIRST_AT)) == "public.orders"
    assert names.of(SHOP.oid, 99999) is None
    assert names.of(5, 16400) is None


def test_indexes_and_toast_name_their_table() -> None:
    """Changes of an index and a TOAST table are counted to the table, also after it was renamed."""
    parts = [
        relation("orders_pkey", 16410, kind=RelationKind.INDEX, table_oid=16400),
        relation("pg_toast_16400", 16411, schema="pg_toast", kind=RelationKind.TOAST, table_oid=16400),
    ]
    names = RelationNames(
        [
            relation_list([relation("orders", 16400), *parts]),
            relation_list([relation("Orders", 16400), *parts], day=1),
        ]
    )
    before, after = (names.of(SHOP.oid, 16411, at=FIRST_AT + timedelta(days=day)) for day in (0, 1))
    assert before is not None and after is not None
    assert (before.table, after.table) == ("public.orders", 'public."Orders"')
    assert after.label == "pg_toast.pg_toast_16400"
    index = names.of(SHOP.oid, 16410)
    assert index is not None and index.table == 'public."Orders"'


def test_shared_relations_belong_to_no_database() -> None:
    """WAL has them under database 0."""
    shared = relation("pg_authid", 1260, 1262, schema="pg_catalog", database_oid=0)
    found = RelationNames([relation_list([shared])]).of(0, 1262)
    assert found is not None
    assert (found.database, found.label, found.oid) == ("", "pg_catalog.pg_authid", 1260)


def test_a_name_has_all_file_nodes_that_it_ever_had() -> None:
    """TRUNCATE and VACUUM FULL give a table a new file; a table that was made again has another OID."""
    names = RelationNames(
        [
            relation_list([relation("orders", 16400)]),
            relation_list([relation("orders", 16400, 16450)], day=1),
            relation_list([relation("orders", 16500)], day=2),
        ]
    )
    assert [(one.oid, one.file_node) for one in names.matching("orders")] == [
        (16400, 16400),
        (16400, 16450),
        (16500, 16500),
    ]


def test_names_are_read_as_postgresql_reads_them() -> None:
    """Quotes, capital letters, dots, schemas; a name without schema is first that of public."""
    listed = [
        relation("orders", 1),
        relation("orders", 2, schema="archive"),
        relation("Orders", 3),
        relation("odd.name", 4),
        relation('a"b', 5),
    ]
    names = RelationNames([relation_list(listed)])

    def found(text: str, database: str | None = None) -> list[int]:
        return [one.oid for one in names.matching(text, database=database)]

    assert found("orders") == [1, 2]
    assert found("public.orders") == [1]
    assert found("PUBLIC.ORDERS") == [1]
    assert found("public.Orders") == found('public."Orders"') == found("Orders") == [3]
    assert found('"ORDERS"') == []
    assert found("odd.name") == found('"odd.name"') == [4]
    assert found('public."a""b"') == [5]
    assert found("orders", "shop") == [1, 2]
    assert found("orders", "elsewhere") == found("") == found("a.b.c") == []


def test_a_database_that_was_made_again_has_two_oids() -> None:
    """Its WAL from before is under the old one."""
    again = ListedDatabase(20000, "shop", is_template=False, allows_connections=True, tablespace_oid=1663)
    names = RelationNames(
        [
            relation_list([relation("orders", 16400)]),
            relation_list([relation("orders", 30000, database_oid=20000)], day=1, databases=[again]),
        ]
    )
    assert (names.database_oid("shop"), names.database_oids("shop")) == (20000, (16384, 20000))
    assert names.database(16384) == "shop"
    assert [one.database_oid for one in names.matching("orders", database="shop")] == [16384, 20000]
    assert names.database_oid("nothing") is None and names.database(7) is None


def test_the_nearest_names_are_told() -> None:
    """Close ones, and the same name in another database; never the system's catalogs."""
    other = ListedDatabase(20000, "test", is_template=False, allows_connections=True, tablespace_oid=1663)
    listed = [
        relation("orders", 1),
        relation("order_lines", 2),
        relation("customers", 3),
        relation("pg_class", 1259, schema="pg_catalog"),
        relation("invoices", 4, database_oid=20000),
    ]
    names = RelationNames([relation_list(listed, databases=[SHOP, other])])
    assert names.nearest("public.ordrs", database="shop") == ("public.orders",)
    assert names.nearest("Custommers") == ("public.customers (in database 'shop')",)
    assert names.nearest("invoices", database="shop") == ("public.invoices (in database 'test')",)
    assert names.nearest("pg_clas", database="shop") == ()
    assert names.databases == ("shop", "test")


def test_without_lists_nothing_is_known() -> None:
    """An archive of an earlier version has none."""
    names = RelationNames([])
    assert names.is_empty
    assert (names.of(5, 1), names.matching("orders"), names.nearest("orders")) == (None, (), ())
