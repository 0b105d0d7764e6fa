"""Tests what comes with a rescued table and what stays behind, between two databases of a real server.

The source stands for the scratch server: a rescue alters it as it alters that.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall
from wal_pipeline.commands.rescue.bring import BroughtTables, SourceDatabase, load_tables, write_dump
from wal_pipeline.commands.rescue.living import LivingDatabase
from wal_pipeline.commands.rescue.result import RescueEvents, RescueSteps
from wal_pipeline.commands.rescue.wanted import TableNotFoundError, WantedTable
from wal_pipeline.errors import PostgresError, RestoreError
from wal_pipeline.postgres.environment import plain_environment
from wal_pipeline.postgres.pg_dump import find_dump_programs
from wal_pipeline.postgres.server import PostgresServer

pytestmark = pytest.mark.integration

ORDERS = """
CREATE TYPE public.status AS ENUM ('new', 'paid');
CREATE DOMAIN public.price AS numeric(10, 2) CHECK (VALUE >= 0);
CREATE TABLE public.customers (id int PRIMARY KEY);
INSERT INTO public.customers SELECT generate_series(1, 10);
CREATE FUNCTION public.next_code() RETURNS int LANGUAGE sql AS 'SELECT 7';
CREATE FUNCTION public.is_fine(text) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT true';
CREATE SEQUENCE public.numbers START 41;
CREATE TABLE public.orders (
  id serial PRIMARY KEY, customer int REFERENCES public.customers, state public.status DEFAULT 'new',
  cost public.price, code int DEFAULT public.next_code(), number bigint DEFAULT nextval('public.numbers'),
  label text CHECK (public.is_fine(label)), doubled numeric GENERATED ALWAYS AS (cost * 2) STORED
);
CREATE INDEX by_label ON public.orders (lower(label));
COMMENT ON TABLE public.orders IS 'all of them';
CREATE FUNCTION public.noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER noting BEFORE INSERT ON public.orders FOR EACH ROW EXECUTE FUNCTION public.noted();
CREATE RULE quiet AS ON UPDATE TO public.orders WHERE false DO INSTEAD NOTHING;
ALTER TABLE public.orders ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_only ON public.orders USING (false);
INSERT INTO public.orders (customer, cost, label)
  SELECT i % 10 + 1, i, E'a\\tb\\n\\\\.' || i FROM generate_series(1, 300) i;
"""
EVENTS = """
CREATE SCHEMA sales;
CREATE TABLE sales.events (id bigint GENERATED ALWAYS AS IDENTITY, at date NOT NULL, "order" int)
  PARTITION BY RANGE (at);
CREATE TABLE sales.spring PARTITION OF sales.events FOR VALUES FROM ('2026-01-01') TO ('2026-06-01');
CREATE TABLE public.autumn PARTITION OF sales.events FOR VALUES FROM ('2026-06-01') TO ('2027-01-01')
  PARTITION BY LIST (id);
CREATE TABLE public.rest PARTITION OF public.autumn DEFAULT;
CREATE INDEX ON sales.events (at);
INSERT INTO sales.events (at) SELECT date '2026-01-01' + i % 300 FROM generate_series(1, 600) i;
"""


@dataclass(frozen=True, slots=True)
class TwoDatabases:
    """A server with a database that is rescued from and one that is loaded into."""

    cluster: PostgresCluster
    folder: Path

    def make(self, source: str, target: str = "", *, encoding: str = "UTF8") -> None:
        """Make both databases anew."""
        for name, script in (("source", source), ("target", target)):
            self.cluster.psql(f"DROP DATABASE IF EXISTS {name};\n")
            self.cluster.psql(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C';\n")
            self.cluster.psql(script, database=name)

    def living(self, schema: str = "rescued", **parameters: str) -> LivingDatabase:
        """Return the database to load into."""
        more = " ".join(f"{name}={value}" for name, value in parameters.items())
        return LivingDatabase(PostgresServer(f"{self.cluster.conninfo} dbname=target {more}"), schema)

    @contextmanager
    def source(self) -> Iterator[SourceDatabase]:
        """Open the database that is rescued from."""
        cluster = self.cluster
        environment = {**plain_environment(), **cluster.pg_environment, "PGDATABASE": "source"}
        programs = find_dump_programs(cluster.install.version, cluster.install.bin_folder)
        server = PostgresServer(f"{cluster.conninfo} dbname=source")
        with server.session("a test") as connection:
            connection.execute("SET client_encoding = 'UTF8'")
            yield SourceDatabase(connection, "source", environment, programs, RescueSteps(RescueEvents(), {}))

    def load(self, *tables: str, schema: str = "rescued") -> BroughtTables:
        """Load tables into the target."""
        with self.source() as source:
            chosen = source.choose([WantedTable.parse(text) for text in tables])
            return load_tables(source, chosen, self.living(schema), self.folder)

    def dump(self, *tables: str) -> tuple[BroughtTables, Path]:
        """Write tables, or without any the whole database, into a dump."""
        output = self.folder / "tables.dump"
        with self.source() as source:
            chosen = source.choose([WantedTable.parse(text) for text in tables])
            return write_dump(source, chosen, output, whole=not tables), output

    def value(self, query: str) -> str:
        """Return a query's first value in the target."""
        lines = self.cluster.psql(query, database="target").splitlines()
        return lines[0] if lines else ""


@pytest.fixture(scope="module")
def server(postgres_version: PostgresInstall) -> Iterator[PostgresCluster]:
    """One server for all tests."""
    cluster = PostgresCluster(postgres_version).initdb().start()
    yield cluster
    cluster.remove()


@pytest.fixture
def databases(server: PostgresCluster, tmp_path: Path) -> TwoDatabases:
    """The two databases, which a test makes."""
    return TwoDatabases(server, tmp_path)


def test_a_table_comes_with_its_rows_and_fits_the_living_one(databases: TwoDatabases) -> None:
    """Types, functions and defaults are the living ones; what acts on other tables or roles stays behind."""
    databases.make(ORDERS, f"{ORDERS} TRUNCATE public.orders;")
    brought = databases.load("orders")
    assert brought.rows == {("public", "orders"): 300}
    assert databases.value("SELECT count(*) FROM public.orders") == "0"
    databases.cluster.psql(
        "INSERT INTO public.orders (id, customer, state, cost, code, number, label) "
        "SELECT id, customer, state, cost, code, number, label FROM rescued.orders",
        database="target",
    )
    assert databases.value("SELECT count(*) FROM public.orders NATURAL JOIN rescued.orders") == "300"
    assert databases.value("SELECT nextval('rescued.orders_id_seq')") == "301"
    assert databases.value("SELECT nextval('rescued.numbers')") == "341"
    assert databases.value("SELECT obj_description('rescued.orders'::regclass)") == "all of them"
    assert sorted(brought.notes) == [
        "left out: the foreign key 'orders_customer_fkey' to 'public.customers' of 'public.orders'",
        "left out: the row security policy 'own_only' of 'public.orders'",
        "left out: the rule 'quiet' of 'public.orders'",
        "left out: the trigger 'noting' of 'public.orders'",
        "owner and privileges: those of the role that loaded it",
        "sequence public.numbers came along",
    ]


def test_types_come_along_where_the_target_has_none(databases: TwoDatabases) -> None:
    """A dropped database's table brings its types; a default, a check and an index that lack a function stay behind."""
    databases.make(ORDERS)
    brought = databases.load("orders")
    assert databases.value("SELECT count(*) FROM rescued.orders") == "300"
    assert databases.value("SELECT 'rescued.status'::regtype = pg_typeof(state) FROM rescued.orders") == "t"
    assert {note for note in brought.notes if "lacks" in note} == {
        "type public.price came along: the target lacks it",
        "type public.status came along: the target lacks it",
        "left out: the default of column code of 'public.orders': the target lacks function public.next_code()",
        "left out: the constraint orders_label_check of 'public.orders': the target lacks function "
        "public.is_fine(pg_catalog.text)",
    }


def test_a_type_in_another_form_comes_along(databases: TwoDatabases) -> None:
    """The living type has a label more since: the old rows come with the old type, beside it."""
    databases.make(ORDERS, ORDERS + "ALTER TYPE public.status RENAME VALUE 'paid' TO 'payed';")
    brought = databases.load("orders")
    assert databases.value("SELECT 'rescued.status'::regtype = pg_typeof(state) FROM rescued.orders") == "t"
    assert "type public.status came along: the target has it in another form, or made of other types" in brought.notes


def test_a_partitioned_table_comes_with_all_partitions(databases: TwoDatabases) -> None:
    """Also partitions of partitions, and those in another schema."""
    databases.make(EVENTS)
    brought = databases.load("sales.events")
    assert brought.rows_of(brought.chosen.wanted[0]) == 600
    assert databases.value("SELECT count(*) FROM rescued.events") == "600"
    tables = (
        "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relnamespace = 'rescued'::regnamespace"
    )
    assert databases.value(f"{tables} AND relkind IN ('r', 'p')") == "autumn events rest spring"


def test_one_partition_comes_as_a_table(databases: TwoDatabases) -> None:
    """Its parent does not come, and this is said."""
    databases.make(EVENTS)
    brought = databases.load("spring")
    assert int(databases.value("SELECT count(*) FROM rescued.spring")) == brought.rows["sales", "spring"] > 0
    assert "'sales.spring' was a partition of 'sales.events', and comes as a table of its own" in brought.notes


@pytest.mark.parametrize("encoding", ["UTF8", "LATIN1", "SQL_ASCII"])
def test_any_name_is_only_a_name(databases: TwoDatabases, encoding: str) -> None:
    """Capitals, quotes, dots, patterns and letters outside ASCII: exactly the named table comes, from any encoding."""
    weird = 'Gr\u00f6\u00dfe ".*?$|[a]'
    quoted = '"' + weird.replace('"', '""') + '"'
    client = encoding if encoding == "SQL_ASCII" else "UTF8"
    script = (
        f'SET client_encoding = {client}; CREATE SCHEMA "Ver.kauf"; CREATE TABLE "Ver.kauf".{quoted} ("N") AS VALUES '
        '(1), (2); CREATE TABLE "Ver.kauf"."Gr" (n int);'
    )
    databases.make(script, encoding=encoding)
    brought = databases.load(f'"Ver.kauf".{quoted}', schema='Mein "*" Sch\u00e4ma')
    assert brought.rows == {("Ver.kauf", weird): 2}
    assert databases.value("SELECT count(*) FROM pg_class WHERE relkind = 'r' AND oid >= 16384") == "1"


def test_an_existing_table_is_never_written_over(databases: TwoDatabases) -> None:
    """The schema may be there, a table of the same name not; then the schema takes a second table."""
    databases.make(EVENTS + ORDERS, "CREATE SCHEMA rescued; CREATE TABLE rescued.orders ();")
    with pytest.raises(RestoreError) as error:
        databases.load("orders")
    assert error.value.message == "rescued.orders is in database 'target', and nothing is written over"
    databases.load("sales.events")
    assert databases.value("SELECT count(*) FROM rescued.events") == "600"


def test_a_schema_of_that_name_at_the_moment_does_not_come(databases: TwoDatabases) -> None:
    """An earlier rescue's tables lie in the schema already at the moment: only the named table comes."""
    databases.make("CREATE SCHEMA rescued; CREATE TABLE rescued.older (); CREATE TABLE rescued.orders (n int);")
    databases.load("rescued.orders")
    assert databases.value("SELECT to_regclass('rescued.older') IS NULL AND to_regclass('rescued.orders') > 0") == "t"


def test_a_column_that_needs_a_missing_extension_is_refused(databases: TwoDatabases) -> None:
    """By name, and with what to type; nothing is loaded."""
    databases.make("CREATE EXTENSION citext; CREATE TABLE public.words (word citext);")
    with pytest.raises(RestoreError) as error:
        databases.load("words")
    assert "lacks type public.citext of extension 'citext', which the columns need" in error.value.message
    assert 'CREATE EXTENSION "citext"' in (error.value.hint or "")
    databases.cluster.psql("CREATE EXTENSION citext", database="target")
    databases.load("words")


def test_event_triggers_of_the_past_do_not_run(databases: TwoDatabases) -> None:
    """One that forbids every change of a table holds nothing up."""
    script = """
    CREATE TABLE public.t AS SELECT 1 AS n;
    CREATE FUNCTION public.never() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'never'; END $$;
    CREATE PUBLICATION all_of_it FOR ALL TABLES;
    CREATE EVENT TRIGGER never ON ddl_command_start EXECUTE FUNCTION public.never();
    """
    databases.make(script)
    assert databases.load("t").rows == {("public", "t"): 1}


def test_an_inheriting_table_comes_with_its_children(databases: TwoDatabases) -> None:
    """As a query of the parent shows their rows too."""
    databases.make(
        "CREATE TABLE a (n int); CREATE TABLE b () INHERITS (a); CREATE TABLE c () INHERITS (b);"
        "INSERT INTO a VALUES (1); INSERT INTO b VALUES (2); INSERT INTO c VALUES (3);"
    )
    brought = databases.load("b")
    assert databases.value("SELECT string_agg(n::text, ' ' ORDER BY n) FROM rescued.b") == "2 3"
    assert "'public.b' inherited from 'public.a', and comes as a table of its own" in brought.notes


def test_two_tables_of_one_name_are_refused(databases: TwoDatabases) -> None:
    """They cannot lie in one schema."""
    databases.make("CREATE SCHEMA s; CREATE TABLE s.t (); CREATE TABLE public.t ();")
    with pytest.raises(RestoreError) as error:
        databases.load("s.t", "public.t")
    assert error.value.message == "'public.t' and 's.t' have one name, and would be loaded into one schema"


def test_a_load_that_fails_leaves_nothing(databases: TwoDatabases) -> None:
    """All of it is one transaction: a guard of the living database rolls it back."""
    guard = """
    CREATE FUNCTION public.never() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not on Fridays'; END $$;
    CREATE EVENT TRIGGER never ON ddl_command_end WHEN TAG IN ('CREATE INDEX', 'ALTER TABLE')
      EXECUTE FUNCTION public.never();
    """
    databases.make(ORDERS, guard)
    with pytest.raises(RestoreError) as error:
        databases.load("orders")
    assert error.value.message.startswith("nothing was loaded into database 'target': pg_restore failed")
    assert "not on Fridays" in error.value.message
    assert databases.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'rescued'") == "0"


def test_a_dump_holds_the_tables_as_they_were(databases: TwoDatabases) -> None:
    """With their own schema, triggers and keys; what it needs where it is loaded is said."""
    databases.make(ORDERS + EVENTS)
    brought, output = databases.dump("orders", "sales.events")
    assert output.stat().st_mode & 0o777 == 0o600
    assert sum(brought.rows.values()) == 900
    listed = databases.cluster.install.program("pg_restore")
    assert listed.exists()
    assert "the dump needs where it is loaded: type public.status" in brought.notes
    with databases.source() as source:
        assert source.dumper.count_rows(output)["public", "orders"] == 300
    with pytest.raises(RestoreError):
        databases.dump("orders")


def test_a_dump_of_all_holds_every_table(databases: TwoDatabases) -> None:
    """Unlogged tables are named: they are empty after a recovery."""
    databases.make(ORDERS + EVENTS + "CREATE UNLOGGED TABLE fleeting (n int);")
    brought, _ = databases.dump()
    assert sum(brought.rows.values()) == 910
    assert brought.notes == ("'public.fleeting' is an unlogged table: it is empty after a recovery",)


def test_a_database_that_takes_no_tables_is_refused(databases: TwoDatabases) -> None:
    """Before anything is restored: a role without rights, a server that is read-only, older or not there."""
    databases.make("", "CREATE SCHEMA mine")
    databases.cluster.psql("DO $$ BEGIN CREATE ROLE nobody_much LOGIN; EXCEPTION WHEN duplicate_object THEN END $$")
    with pytest.raises(RestoreError) as error:
        databases.living(user="nobody_much").check([])
    assert error.value.message == "role 'nobody_much' may not create anything in database 'target'"
    assert (error.value.hint or "").endswith("GRANT CREATE ON DATABASE target TO nobody_much")
    with pytest.raises(RestoreError) as error:
        databases.living("mine", user="nobody_much").check([])
    assert error.value.message == "role 'nobody_much' may not create anything in schema 'mine'"
    with pytest.raises(RestoreError) as error:
        databases.living(options="'-c default_transaction_read_only=on'").check([])
    assert "takes no writes" in error.value.message
    with pytest.raises(RestoreError) as error:
        databases.living().check([], major=99)
    assert "older than the rescued cluster (99)" in error.value.message
    with pytest.raises(PostgresError):
        databases.living(port="1").check([])


KINDS = """
CREATE TABLE public.t (n int);
CREATE VIEW public.seen AS SELECT * FROM public.t;
CREATE MATERIALIZED VIEW public.kept AS SELECT * FROM public.t;
CREATE SEQUENCE public.counter;
CREATE UNLOGGED TABLE public.fleeting (n int);
CREATE TABLE public.parts (n int) PARTITION BY LIST (n);
CREATE UNLOGGED TABLE public.part PARTITION OF public.parts DEFAULT;
CREATE FOREIGN DATA WRAPPER elsewhere;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER elsewhere;
CREATE FOREIGN TABLE public.away (n int) SERVER elsewhere;
CREATE EXTENSION citext;
CREATE TABLE public.of_extension (n int);
ALTER EXTENSION citext ADD TABLE public.of_extension;
CREATE TABLE public.papers (scan oid);
INSERT INTO public.papers SELECT lo_from_bytea(0, 'scanned');
"""


def test_what_has_no_rows_to_bring_is_refused_by_name(databases: TwoDatabases) -> None:
    """Each kind with its reason; large objects are said not to come."""
    databases.make(KINDS)
    found = {}
    with databases.source() as source:
        for name in ("seen", "kept", "counter", "fleeting", "parts", "away", "of_extension", "gone"):
            with pytest.raises(RestoreError) as error:
                source.choose([WantedTable.parse(name)])
            found[name] = error.value.message
        notes = source.choose([WantedTable.parse("papers")]).notes
    unlogged = "is an unlogged table: it is not in the WAL, and empty after every recovery"
    assert found == {
        "seen": "'public.seen' is a view, which has no rows of its own",
        "kept": "'public.kept' is a materialized view, whose rows come from other tables",
        "counter": "'public.counter' is a sequence",
        "fleeting": f"'public.fleeting' {unlogged}",
        "parts": f"'public.part' {unlogged}",
        "away": "'public.away' is a foreign table, whose rows lie on another server",
        "of_extension": "'public.of_extension' belongs to the extension 'citext', whose tables are not dumped",
        "gone": "database 'source' had no table 'gone' at that moment",
    }
    assert notes == (
        "column 'scan' of 'public.papers' may hold numbers of large objects: the numbers come, the large objects do "
        "not (--whole-database --output has them)",
    )


def test_a_table_without_a_known_name_comes_by_the_number_of_its_files(databases: TwoDatabases) -> None:
    """That of its own file, of its TOAST table's and of an index's mean the same table; an unknown one is said."""
    databases.make("CREATE TABLE public.young (n int PRIMARY KEY, body text); INSERT INTO public.young VALUES (1, 'x')")
    numbers = (
        "SELECT (SELECT oid FROM pg_database WHERE datname = 'source')::text || '/' || pg_relation_filenode(c.oid)"
        " FROM pg_class c WHERE 'public.young'::regclass IN (c.oid, (SELECT i.indrelid FROM pg_index i"
        " WHERE i.indexrelid = c.oid)) OR c.oid = (SELECT reltoastrelid FROM pg_class WHERE relname = 'young')"
    )
    files = databases.cluster.psql(numbers, database="source").splitlines()
    assert len(files) == 3
    brought = databases.load(*files)
    assert [one.shown for one in brought.chosen.wanted] == ["public.young"]
    assert databases.value("SELECT body FROM rescued.young") == "x"
    database = files[0].partition("/")[0]
    with pytest.raises(TableNotFoundError) as error:
        databases.load(f"{database}/4000000000", schema="again")
    assert f"database 'source' had no table with the files '{database}/4000000000'" in error.value.message
