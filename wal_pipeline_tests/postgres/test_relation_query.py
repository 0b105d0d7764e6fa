"""A real server of each version lists its relations under the file nodes that its WAL names."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, give_to_postgres, owned_folder
from wal_pipeline.archive.format.relations import ListedRelation, RelationKind, RelationList
from wal_pipeline.archive.recovery.names.relation_names import RelationNames
from wal_pipeline.postgres.relation_query import RelationServer

pytestmark = pytest.mark.integration
ODD = "a=b 'c\" d\\"
_SCHEMA = """
CREATE TABLE orders (id serial PRIMARY KEY, note text);
CREATE TABLE "Orders ü" (id int);
CREATE TABLE parts (id int) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE INDEX parts_id ON parts (id);
CREATE MATERIALIZED VIEW seen AS SELECT 1 AS one;
CREATE UNLOGGED TABLE quick (id int);
CREATE VIEW shown AS SELECT 1 AS one;
CREATE TABLE emptied (id int);
TRUNCATE emptied;
"""


@pytest.fixture(scope="module")
def cluster(postgres_version: PostgresInstall) -> Iterator[PostgresCluster]:
    """A running cluster with databases of several encodings, odd names, and some that nobody may enter."""
    running = PostgresCluster(postgres_version).initdb(wal_segment_size_mb=1).start()
    running.psql(_SCHEMA)
    for name, encoding in (("latin", "LATIN1"), ("ascii", "SQL_ASCII")):
        running.psql(f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0")
    running.psql("SET client_encoding = 'UTF8'; CREATE TABLE \"café\" (id int)", database="latin")
    running.psql('CREATE TABLE "café" (id int)', database="ascii")
    quoted = ODD.replace('"', '""')
    running.psql(f'CREATE DATABASE "{quoted}"')
    running.psql("CREATE DATABASE closed ALLOW_CONNECTIONS false")
    running.psql("CREATE DATABASE full_up CONNECTION LIMIT 0")
    running.psql("ALTER DATABASE postgres SET datestyle = 'German, DMY'")
    running.psql("ALTER DATABASE postgres SET search_path = ''")
    yield running
    running.remove()


@pytest.fixture(scope="module")
def listed(cluster: PostgresCluster) -> RelationList:
    """The list that the server's superuser gets."""
    return RelationServer(cluster.conninfo).relation_list()


def of_database(listed: RelationList, database: str) -> dict[str, ListedRelation]:
    """Return a database's relations by their names."""
    [oid] = [one.oid for one in listed.databases if one.name == database]
    return {one.name: one for one in listed.relations if one.database_oid == oid}


def test_the_moment_is_the_servers(cluster: PostgresCluster, listed: RelationList) -> None:
    """Commit times are by the same clock."""
    assert str(listed.system_identifier) == cluster.system_identifier
    assert (listed.server_major, listed.timeline) == (cluster.install.version, 1)
    assert listed.lsn > 0 and listed.taken_at.microsecond == 0
    assert abs(datetime.now(UTC) - listed.taken_at) < timedelta(minutes=5)
    assert RelationList.from_json(listed.to_json()) == listed


def test_file_nodes_are_those_of_the_files(cluster: PostgresCluster, listed: RelationList) -> None:
    """Of every relation that has a file, mapped and shared ones too; ``pg_relation_filepath`` is the server's word."""
    rows = cluster.psql(
        "SELECT oid, substring(pg_catalog.pg_relation_filepath(oid) from '[0-9]+$') FROM pg_catalog.pg_class "
        "WHERE relkind IN ('r', 'i', 't', 'S', 'm') AND relpersistence <> 't'"
    )
    expected = {int(oid): int(node) for oid, node in (row.split("|") for row in rows.splitlines())}
    [postgres] = [one.oid for one in listed.databases if one.name == "postgres"]
    mine = [one for one in listed.relations if one.database_oid in (0, postgres)]
    assert {one.oid: one.file_node for one in mine if one.file_node} == expected
    assert {one.name for one in mine if one.database_oid == 0} >= {"pg_authid", "pg_database", "pg_authid_oid_index"}
    assert sum(one.name == "pg_authid" for one in listed.relations) == 1
    by_name = of_database(listed, "postgres")
    assert by_name["emptied"].file_node != by_name["emptied"].oid
    assert by_name["pg_class"].file_node > 0


def test_kinds_and_the_tables_behind_them(listed: RelationList) -> None:
    """Indexes, TOAST tables and their indexes know their table; views and foreign tables have no files."""
    found = of_database(listed, "postgres")
    orders = found["orders"]
    toast, toast_index = (found[f"pg_toast_{orders.oid}{ending}"] for ending in ("", "_index"))
    kinds = {
        name: (found[name].kind, found[name].table_oid) for name in ("orders", "orders_pkey", "orders_id_seq", "seen")
    }
    assert kinds == {
        "orders": (RelationKind.TABLE, None),
        "orders_pkey": (RelationKind.INDEX, orders.oid),
        "orders_id_seq": (RelationKind.SEQUENCE, None),
        "seen": (RelationKind.MATERIALIZED_VIEW, None),
    }
    assert (toast.kind, toast.table_oid, toast.schema) == (RelationKind.TOAST, orders.oid, "pg_toast")
    assert (toast_index.kind, toast_index.table_oid) == (RelationKind.INDEX, orders.oid)
    parts = found["parts"]
    assert (parts.kind, parts.file_node) == (RelationKind.PARTITIONED_TABLE, 0)
    assert (found["parts_id"].kind, found["parts_id"].table_oid) == (RelationKind.PARTITIONED_INDEX, parts.oid)
    assert found["parts_1_id_idx"].table_oid == found["parts_1"].oid
    assert "quick" in found and "shown" not in found


def test_names_are_those_that_a_person_reads(listed: RelationList) -> None:
    """Whatever the encoding of a database and the name of another one."""
    assert "Orders ü" in of_database(listed, "postgres")
    assert "café" in of_database(listed, "latin")
    assert "café" in of_database(listed, "ascii")
    assert "pg_class" in of_database(listed, ODD)
    names = RelationNames([listed])
    [found] = names.matching('public."Orders ü"', database="postgres")
    assert (found.label, found.database) == ('public."Orders ü"', "postgres")


def test_a_database_that_cannot_be_read_is_named(listed: RelationList) -> None:
    """The others are listed all the same."""
    unread = {one.name: one.unread for one in listed.databases if one.unread is not None}
    assert unread.keys() == {"template0", "closed"} | ({"full_up"} & unread.keys())
    assert unread["closed"] == unread["template0"] == "it does not allow connections"


def test_a_role_without_rights_learns_the_names_and_what_it_may_not_see(cluster: PostgresCluster) -> None:
    """Names and numbers are open to every role that may connect; a database that it may not enter is named."""
    cluster.psql("CREATE ROLE reader LOGIN")
    cluster.psql("REVOKE CONNECT ON DATABASE latin FROM PUBLIC")
    try:
        conninfo = cluster.conninfo.replace("user=postgres", "user=reader")
        listed = RelationServer(conninfo).relation_list()
    finally:
        cluster.psql("GRANT CONNECT ON DATABASE latin TO PUBLIC")
    assert "orders" in of_database(listed, "postgres")
    unread = {one.name: one.unread for one in listed.databases}
    assert "permission denied for database" in (unread["latin"] or "")
    assert "too many connections" in (unread["full_up"] or "")


def test_temporary_relations_are_left_out(cluster: PostgresCluster) -> None:
    """They are written to no WAL, and are gone with their session."""
    with cluster.connect() as connection:
        connection.execute("CREATE TEMP TABLE passing (id serial PRIMARY KEY, note text)")
        found = of_database(RelationServer(cluster.conninfo).relation_list(), "postgres")
    assert not [name for name in found if name.startswith("passing")]
    assert not [one for one in found.values() if one.schema.startswith("pg_temp")]


def test_databases_for_which_no_time_is_left_are_named(cluster: PostgresCluster) -> None:
    """A base backup does not wait for a thousand databases that are slow to answer."""
    listed = RelationServer(cluster.conninfo).relation_list(most_seconds=0)
    assert {one.unread for one in listed.databases} == {
        "it does not allow connections",
        "the 0 s for all databases were over",
    }
    assert listed.relations == ()


def test_a_standby_answers_too(cluster: PostgresCluster, listed: RelationList) -> None:
    """It has the same relations; its place is where replay is."""
    cluster.stop()
    pgdata = owned_folder("standby") / "pgdata"
    shutil.copytree(cluster.pgdata, pgdata, symlinks=True)
    pgdata.chmod(0o700)
    (pgdata / "standby.signal").touch()
    give_to_postgres(pgdata)
    standby = PostgresCluster(cluster.install, pgdata=pgdata).start()
    try:
        found = RelationServer(standby.conninfo).relation_list()
    finally:
        standby.remove()
        cluster.start()
    assert found.relations == listed.relations
    assert found.lsn >= listed.lsn
