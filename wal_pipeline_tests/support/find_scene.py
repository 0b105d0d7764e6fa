"""Plays every kind of transaction on a real server, and remembers what each of them did, by its xid."""

import atexit
import functools
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import psycopg

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, owned_folder, postgres_15, postgres_18
from wal_pipeline.archive.format.relations import RelationList
from wal_pipeline.postgres.relation_query import RelationServer

_XIDS = 1 << 32
_TABLES = """
CREATE TABLE orders (id int PRIMARY KEY, customer int, note text) WITH (fillfactor = 50);
CREATE INDEX orders_customer ON orders (customer);
CREATE TABLE bulk (id int, label text);
CREATE TABLE letters (id int PRIMARY KEY, body text);
ALTER TABLE letters ALTER body SET STORAGE EXTERNAL;
CREATE TABLE parts (id int, kind int) PARTITION BY LIST (kind);
CREATE TABLE parts_one PARTITION OF parts FOR VALUES IN (1);
CREATE TABLE parts_two PARTITION OF parts FOR VALUES IN (2);
CREATE TABLE old_table (id int PRIMARY KEY, body text);
CREATE TABLE emptied (id int PRIMARY KEY, body text);
CREATE TABLE packed (id int PRIMARY KEY, body text);
CREATE TABLE shapes (id int, tags int[], area int4range, word text);
CREATE INDEX ON shapes USING gin (tags);
CREATE INDEX ON shapes USING gist (area);
CREATE INDEX ON shapes USING spgist (word);
CREATE INDEX ON shapes USING hash (word);
CREATE INDEX ON shapes USING brin (id);
CREATE SEQUENCE numbers;
INSERT INTO old_table SELECT i, 'x' FROM generate_series(1, 20) i;
INSERT INTO emptied SELECT i, 'x' FROM generate_series(1, 30) i;
INSERT INTO packed SELECT i, repeat('y', 500) FROM generate_series(1, 3000) i;
"""

_LETTERS = """
INSERT INTO letters
SELECT i, (SELECT string_agg(md5(i::text || g::text), '') FROM generate_series(1, 3000) g) FROM generate_series(1, 5) i
"""


@dataclass(frozen=True, slots=True)
class Did:
    """What one transaction did, by table: inserted, updated and deleted rows; and the fate of tables."""

    rows: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    fates: Mapping[str, str] = field(default_factory=dict)
    databases: tuple[str, ...] = ()
    prepared: bool = False


@dataclass(slots=True)
class FindScene:
    """A stopped server's archived segments of 1 MiB, and the truth about its transactions.

    ``began_early`` is the xid of a transaction that lies across several segments, and commits before
    ``began_early_lsn``.
    """

    cluster: PostgresCluster
    folder: Path
    truth: dict[int, Did] = field(default_factory=dict)
    times: dict[int, datetime] = field(default_factory=dict)
    aborted: set[int] = field(default_factory=set)
    on_timeline_two: int = 0
    began_early: int = 0
    began_early_lsn: int = 0
    lists: list[RelationList] = field(default_factory=list)

    def remove(self) -> None:
        """Remove the server's folders, and the archive."""
        self.cluster.remove()
        shutil.rmtree(self.folder, ignore_errors=True)

    def segments(self) -> list[Path]:
        """Return the archived segments, in order."""
        return sorted(path for path in self.folder.iterdir() if len(path.name) == 24)


def play(install: PostgresInstall) -> FindScene:
    """Play it on one version, first with wal_level replica, then with logical."""
    folder = owned_folder("archive")
    settings = {
        "archive_mode": "on",
        "archive_command": f"cp %p {folder}/%f",
        "track_commit_timestamp": "on",
        "max_prepared_transactions": "4",
        "autovacuum": "off",
    }
    cluster = PostgresCluster(install, settings=settings).initdb(wal_segment_size_mb=1)
    scene = FindScene(cluster, folder)
    with cluster:
        cluster.psql(_TABLES)
        with cluster.connect() as connection:
            _Player(scene, connection).all()
        cluster.stop()
        cluster.settings["wal_level"] = "logical"
        cluster.start()
        with cluster.connect() as connection:
            _Player(scene, connection).logical()
        cluster.stop()
        _begin_timeline(cluster, folder)
        with cluster.connect() as connection:
            _Player(scene, connection).on_timeline_two()
        cluster.stop()
    return scene


def _begin_timeline(cluster: PostgresCluster, folder: Path) -> None:
    """Recover the cluster from its own archive, which ends on a new timeline."""
    signal = cluster.pgdata / "recovery.signal"
    signal.touch()
    shutil.chown(signal, cluster.pgdata.owner(), cluster.pgdata.group())
    cluster.settings["restore_command"] = f"cp {folder}/%f %p"
    cluster.start()
    cluster.wait_promoted()


@functools.cache
def played(version: int) -> FindScene | None:
    """Return the scene of a version, which is played once for all tests of a process; None where it is not there."""
    install = postgres_18() if version == 18 else postgres_15()
    if install is None:
        return None
    scene = play(install)
    atexit.register(scene.remove)
    return scene


@dataclass(slots=True)
class _Player:
    scene: FindScene
    connection: "psycopg.Connection[tuple[object, ...]]"

    def all(self) -> None:
        self._keep_list()
        self._rows()
        self._subtransactions()
        self._two_phases()
        self._relations()
        self._long_ones()
        self._page_images()
        self._note_times()

    def logical(self) -> None:
        """Play what differs where the server logs for logical decoding."""
        self._run({"orders": (1, 0, 0)}, "INSERT INTO orders VALUES (9001, 1, 'logical')")
        self.connection.execute("ALTER TABLE orders REPLICA IDENTITY FULL")
        self._run({"orders": (0, 50, 0)}, "UPDATE orders SET note = repeat('z', 700) WHERE id BETWEEN 101 AND 150")
        self._run({"orders": (0, 0, 50)}, "DELETE FROM orders WHERE id BETWEEN 101 AND 150")
        self._run({"bulk": (4, 0, 0)}, "INSERT INTO bulk VALUES (1,'a'),(2,'b')", _nested(2, "bulk"))
        self._run({"letters": (0, 0, 1)}, "DELETE FROM letters WHERE id = 3")
        self._copy("bulk", 700)
        self._run({}, "TRUNCATE emptied", fates={"emptied": "truncated"})
        self._keep_list()
        self._note_times()

    def on_timeline_two(self) -> None:
        """Play what comes after a promotion."""
        self._run({"orders": (3, 0, 0)}, "INSERT INTO orders SELECT i, 1, 'two' FROM generate_series(9101, 9103) i")
        self.scene.on_timeline_two = max(self.scene.truth)
        self._note_times()

    def _rows(self) -> None:
        self._run({"orders": (1000, 0, 0)}, "INSERT INTO orders SELECT i, i, 'n' FROM generate_series(1, 1000) i")
        self._run({"orders": (0, 100, 0)}, "UPDATE orders SET note = 'hot' WHERE id <= 100")
        self._run({"orders": (0, 100, 0)}, "UPDATE orders SET customer = customer + 1 WHERE id <= 100")
        self._run({"orders": (0, 0, 40)}, "DELETE FROM orders WHERE id > 960")
        self._copy("bulk", 5000)
        self._run({"letters": (5, 0, 0)}, _LETTERS)
        self._run(
            {"letters": (0, 1, 1)},
            "UPDATE letters SET body = body || 'x' WHERE id = 1",
            "DELETE FROM letters WHERE id = 2",
        )
        self._run({"parts_one": (10, 0, 0)}, "INSERT INTO parts SELECT i, 1 FROM generate_series(1, 10) i")
        self._run({"parts_one": (0, 0, 4), "parts_two": (4, 0, 0)}, "UPDATE parts SET kind = 2 WHERE id <= 4")
        self._run(
            {"orders": (1, 1, 0)},
            "INSERT INTO orders VALUES (1, 1, 'a'), (5001, 1, 'b') ON CONFLICT (id) DO UPDATE SET note = 'upserted'",
        )
        self._run(
            {"orders": (1, 1, 1)},
            "MERGE INTO orders o USING (VALUES (2, 'u'), (3, 'd'), (5002, 'i')) AS s (id, what) ON o.id = s.id"
            " WHEN MATCHED AND s.what = 'd' THEN DELETE WHEN MATCHED THEN UPDATE SET note = 'merged'"
            " WHEN NOT MATCHED THEN INSERT VALUES (s.id, 1, 'merged')",
        )
        self._run(
            {"shapes": (300, 0, 0)},
            "INSERT INTO shapes SELECT i, ARRAY[i, i + 1], int4range(i, i + 5), 'w' || i"
            " FROM generate_series(1, 300) i",
        )
        self._run({}, "SELECT nextval('numbers')")
        self._run({}, "SELECT * FROM orders WHERE id = 7 FOR UPDATE")
        self._run({}, "SELECT pg_logical_emit_message(true, 'a', 'message')")
        self._run({}, "ANALYZE orders")

    def _copy(self, table: str, rows: int) -> None:
        with (
            self._transaction({table: (rows, 0, 0)}) as connection,
            connection.cursor() as cursor,
            cursor.copy(f"COPY {table} FROM STDIN") as copy,
        ):
            for number in range(rows):
                copy.write_row((number, f"row {number}"))

    def _subtransactions(self) -> None:
        self._run(
            {"orders": (5, 0, 0)},
            "SAVEPOINT a",
            "INSERT INTO orders SELECT i, 1, 'gone' FROM generate_series(6001, 6003) i",
            "ROLLBACK TO a",
            "SAVEPOINT b",
            "INSERT INTO orders SELECT i, 1, 'kept' FROM generate_series(6001, 6004) i",
            "RELEASE b",
            "INSERT INTO orders VALUES (6005, 1, 'kept')",
        )
        self._run({"bulk": (150, 0, 0)}, _nested(150, "bulk"))  # more than one XLOG_XACT_ASSIGNMENT
        with self._aborted():
            self.connection.execute("INSERT INTO orders SELECT i, 1, '' FROM generate_series(7001, 7100) i")
            self.connection.execute("SAVEPOINT a")
            self.connection.execute("DELETE FROM orders WHERE id < 50")
            self.connection.execute("RELEASE a")

    def _two_phases(self) -> None:
        xid = self._prepare(
            "kept", "INSERT INTO orders SELECT i, 1, 'p' FROM generate_series(7201, 7207) i", _nested(3, "bulk")
        )
        gone = self._prepare("gone", "DELETE FROM orders WHERE id < 20")
        self.connection.execute("SELECT pg_switch_wal()")
        self.connection.execute("COMMIT PREPARED 'kept'")
        self.connection.execute("ROLLBACK PREPARED 'gone'")
        self.scene.truth[xid] = Did({"orders": (7, 0, 0), "bulk": (3, 0, 0)}, prepared=True)
        self.scene.aborted.add(gone)

    def _prepare(self, name: str, *statements: str) -> int:
        self.connection.execute("BEGIN")
        for statement in statements:
            self.connection.execute(statement)
        xid = self._xid()
        self.connection.execute(f"PREPARE TRANSACTION '{name}'")
        return xid

    def _relations(self) -> None:
        rewritten = "written anew"
        self._run({}, "TRUNCATE emptied", fates={"emptied": "truncated"})
        self._run({"emptied": (3, 0, 0)}, "INSERT INTO emptied SELECT i, 'again' FROM generate_series(1, 3) i")
        self._run({}, "DROP TABLE old_table", fates={"old_table": "dropped"})
        self._keep_list()
        xid = self._last_of("VACUUM FULL packed")
        self._keep_list()
        self.scene.truth[xid] = Did(fates={"packed": rewritten})
        self._run({"packed": (3000, 0, 0)}, "ALTER TABLE packed ALTER id TYPE bigint", fates={"packed": rewritten})
        self._run({}, "REINDEX INDEX orders_customer", fates={"orders_customer": rewritten})
        self._run(
            {}, "CREATE TABLE passing (id int PRIMARY KEY)", "INSERT INTO passing VALUES (1)", "DROP TABLE passing"
        )
        self.connection.execute("CREATE TABLE doomed (id int PRIMARY KEY, body text)")
        self._keep_list()
        self._run({}, "TRUNCATE emptied", "DROP TABLE doomed", fates={"emptied": "truncated", "doomed": "dropped"})
        self.connection.execute("CREATE DATABASE shop")
        self._keep_list()
        before = self._newest()
        self.connection.execute("DROP DATABASE shop")
        self.scene.truth[self._newest(after=before)] = Did(databases=("shop",))

    def _long_ones(self) -> None:
        """Begin in one segment and commit in a later one, with records that fill more than a segment between."""
        with self._transaction({"orders": (2, 0, 0)}):
            self.connection.execute("INSERT INTO orders VALUES (8001, 1, 'long')")
            with self.scene.cluster.connect() as other:
                for size in (2_500_000, 100, 900_000, 1_100_000):
                    other.execute("SELECT pg_logical_emit_message(false, '', repeat('m', %s))", (size,))
                    other.execute("SELECT pg_switch_wal()")
            self.connection.execute("INSERT INTO orders VALUES (8002, 1, 'long')")
        self.scene.began_early = max(self.scene.truth)
        row = self.connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'").fetchone()
        assert row is not None
        self.scene.began_early_lsn = int(str(row[0]))

    def _page_images(self) -> None:
        """Change pages just after a checkpoint, with each kind of compression that the server knows."""
        known = "SELECT unnest(enumvals) FROM pg_settings WHERE name = 'wal_compression'"
        kinds = [str(row[0]) for row in self.connection.execute(known).fetchall()]
        for kind in [one for one in kinds if one not in ("on",)]:
            self.connection.execute("CHECKPOINT")
            self.connection.execute(f"SET wal_compression = {kind}")
            self._run({"orders": (0, 300, 0)}, "UPDATE orders SET note = 'image' WHERE id BETWEEN 201 AND 500")
            self.connection.execute("CHECKPOINT")
            first = 501 + 10 * kinds.index(kind)
            self._run({"orders": (0, 0, 10)}, f"DELETE FROM orders WHERE id BETWEEN {first} AND {first + 9}")  # noqa: S608
            self.connection.execute("CHECKPOINT")
            self.connection.execute("SELECT count(*) FROM orders")  # hint bits
            self._copy("bulk", 300)
        self.connection.execute("RESET wal_compression")

    def _run(
        self, rows: Mapping[str, tuple[int, int, int]], *statements: str, fates: Mapping[str, str] | None = None
    ) -> None:
        with self._transaction(rows, fates or {}):
            for statement in statements:
                self.connection.execute(statement)

    @contextmanager
    def _transaction(
        self, rows: Mapping[str, tuple[int, int, int]], fates: Mapping[str, str] | None = None
    ) -> "Iterator[psycopg.Connection[tuple[object, ...]]]":
        self.connection.execute("BEGIN")
        yield self.connection
        xid = self._xid()
        self.connection.execute("COMMIT")
        self.scene.truth[xid] = Did(dict(rows), dict(fates or {}))

    @contextmanager
    def _aborted(self) -> Iterator[None]:
        self.connection.execute("BEGIN")
        yield
        self.scene.aborted.add(self._xid())
        self.connection.execute("ROLLBACK")

    def _xid(self) -> int:
        row = self.connection.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
        assert row is not None
        return int(str(row[0])) % _XIDS

    def _last_of(self, statement: str) -> int:
        """Run a statement that no transaction block may hold, and return the xid of its last transaction."""
        before = self._newest()
        self.connection.execute(statement)
        return self._newest(after=before)

    def _newest(self, after: int | None = None) -> int:
        row = self.connection.execute("SELECT xid::text::bigint FROM pg_last_committed_xact()").fetchone()
        assert row is not None
        assert int(str(row[0])) != after
        return int(str(row[0]))

    def _keep_list(self) -> None:
        """Keep a list of the relations as they are now."""
        server = RelationServer(self.scene.cluster.conninfo)
        self.scene.lists.append(server.relation_list(most_seconds=60))

    def _note_times(self) -> None:
        rows = self.connection.execute(
            "SELECT x, pg_xact_commit_timestamp(x::text::xid) FROM unnest(%s::bigint[]) x",
            (list(self.scene.truth),),
        ).fetchall()
        for xid, at in rows:
            if isinstance(at, datetime):
                self.scene.times[int(str(xid))] = at


def _nested(count: int, table: str) -> str:
    """Insert ``count`` rows, each in a subtransaction of its own."""
    return (
        f"DO $$ BEGIN FOR i IN 1..{count} LOOP BEGIN INSERT INTO {table} VALUES (i, 'nested');"  # noqa: S608
        " EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$"
    )
