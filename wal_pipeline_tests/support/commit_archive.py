"""Archives real segments whose commits the server itself reports: the last, a prepared and a split one."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psycopg

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, owned_folder
from wal_pipeline.postgres.waldump import CommitSpan, PgWaldump
from wal_pipeline.wal.names import require_file_name
from wal_pipeline.wal.page_header import LONG_HEADER_BYTES, LongPageHeader, check_segment

MIB = 1 << 20
READER = PgWaldump()


@dataclass(frozen=True, slots=True)
class Truth:
    """One commit as the server reports it: id, time, and the segment that was finished just after it."""

    xid: int
    at: datetime
    segment: str


@dataclass(frozen=True, slots=True)
class Archive:
    """A stopped cluster's archive folder, with the commits that the server reported."""

    cluster: PostgresCluster
    folder: Path
    wal_segment_size: int
    normal: Truth  # after pgbench
    prepared: Truth  # of COMMIT PREPARED
    crossing: Truth | None  # a commit record that begins in the segment before, alone in its own

    @property
    def major(self) -> int:
        return self.cluster.install.version

    def segments(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if len(path.name) == 24)

    def before(self, name: str) -> Path:
        names = [path.name for path in self.segments()]
        return self.folder / names[names.index(name) - 1]

    def header(self, path: Path) -> LongPageHeader:
        data = path.read_bytes()
        return check_segment(require_file_name(path.name), data[:LONG_HEADER_BYTES], len(data), None)

    def inspect(self, name: str, previous: Path | None = None) -> CommitSpan | None:
        return READER.inspect(self.folder / name, self.major, self.wal_segment_size, previous=previous)


def archive_settings(folder: Path) -> dict[str, str]:
    return {
        "archive_mode": "on",
        "archive_command": f"cp %p {folder}/%f",
        "track_commit_timestamp": "on",
        "max_prepared_transactions": "4",
        "autovacuum": "off",
    }


def last_commit_and_switch(connection: "psycopg.Connection[tuple[object, ...]]") -> Truth:
    """Ask the server for its last commit, then finish the segment."""
    row = connection.execute(
        "SELECT xid::text::bigint, timestamp, pg_walfile_name(pg_current_wal_insert_lsn())"
        " FROM pg_last_committed_xact()"
    ).fetchone()
    connection.execute("SELECT pg_switch_wal()")
    assert row is not None
    return Truth(int(str(row[0])), datetime.fromisoformat(str(row[1])), str(row[2]))


def commit_across_a_boundary(connection: "psycopg.Connection[tuple[object, ...]]", size: int) -> None:
    """Fill a segment so that a commit record of 34 bytes begins before its end and ends after it."""

    def left() -> int:
        row = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'").fetchone()
        assert row is not None
        return size - int(str(row[0])) % size

    def fill(payload: int) -> None:
        connection.execute("SELECT pg_logical_emit_message(false, '', repeat('x', %s))", (payload,))

    with connection.transaction():
        connection.execute("INSERT INTO marks DEFAULT VALUES")
        if left() > 8192:
            fill(max(400, (left() - 7000) // 8192 * 8168))  # to the last page
        while left() > 8192 - 24:
            fill(1000)
        at = left()
        fill(400)
        overhead = at - left() - 400
        fill((left() - overhead - 16) // 8 * 8)


def make_archive(install: PostgresInstall, size_mb: int) -> Archive:
    cluster = PostgresCluster(install, settings=archive_settings(owned_folder("archive")))
    folder = Path(cluster.settings["archive_command"].split()[2]).parent
    cluster.initdb(wal_segment_size_mb=size_mb)
    with cluster, cluster.connect() as connection:
        cluster.pgbench_init()
        connection.execute("CREATE TABLE marks (at timestamptz DEFAULT now())")
        cluster.pgbench(transactions=300, clients=3)
        normal = last_commit_and_switch(connection)
        cluster.psql("BEGIN; INSERT INTO marks DEFAULT VALUES; PREPARE TRANSACTION 'two phases'")
        cluster.psql("COMMIT PREPARED 'two phases'")
        prepared = last_commit_and_switch(connection)
        crossing = None
        if size_mb == 1:
            commit_across_a_boundary(connection, MIB)
            crossing = last_commit_and_switch(connection)
            for sizes in ((3_500_000,), (600_000, 600_000)):
                for payload in sizes:
                    connection.execute("SELECT pg_logical_emit_message(false, '', repeat('x', %s))", (payload,))
                connection.execute("SELECT pg_switch_wal()")
        cluster.stop()  # the server archives the last segment before it ends
    return Archive(cluster, folder, size_mb * MIB, normal, prepared, crossing)
