"""Makes, starts, crashes, restarts and promotes real PostgreSQL clusters on loopback."""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import psycopg

from testbed.cluster_templates import ClusterKind, copy_cluster
from testbed.ports import LOOPBACK, free_port
from testbed.postgres_install import PostgresInstall, give_to_postgres, owned_folder, postgres_user
from testbed.processes import ChildProcess, ServerError

SUPERUSER = "postgres"
DATABASE = "postgres"

# A test's cluster is thrown away, so durability is off unless the test asks for it. WAL is written in any case.
_FAST = {"fsync": "off", "full_page_writes": "on"}
_SMALL = {
    "shared_buffers": "32MB",
    "max_connections": "30",
    "max_wal_senders": "10",
    "wal_level": "replica",
    "summarize_wal": "off",
    "autovacuum_naptime": "10min",
    "log_line_prefix": "%m [%p] ",
    "lc_messages": "C",
}


class PostgresCluster:
    """One PostgreSQL cluster in a folder that its user owns; its address stays the same over restarts."""

    def __init__(
        self,
        install: PostgresInstall,
        folder: Path | None = None,
        *,
        pgdata: Path | None = None,
        settings: Mapping[str, str] | None = None,
        durable: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Describe a cluster, which does not run yet.

        ``folder`` (made where it is ``None``) holds the log, the socket and, unless given, the data folder.
        ``settings`` are put on the server's command line, and so win over postgresql.conf.
        ``env`` is added to the server's environment, and so to that of the archive and restore commands.
        """
        self.install = install
        self.folder = folder or owned_folder("cluster")
        self.pgdata = pgdata or self.folder / "pgdata"
        self.settings = {**_SMALL, **({} if durable else _FAST), **(settings or {})}
        if install.version < 17:
            self.settings.pop("summarize_wal", None)
        self.port = free_port()
        self.socket_folder = owned_folder("socket")
        self._env = dict(env or {})
        self._process: ChildProcess | None = None

    def initdb(
        self,
        *,
        wal_segment_size_mb: int = 16,
        data_checksums: bool = True,
        encoding: str = "UTF8",
        locale: str = "C",
        waldir: Path | None = None,
    ) -> Self:
        """Make the cluster's data folder, with a system identifier of its own. Connections need no password.

        PostgreSQL's ``initdb`` takes a second, so it runs once for each kind of cluster; the others are copies.
        """
        options = ["--no-sync", "--auth=trust", f"--username={SUPERUSER}", f"--encoding={encoding}"]
        options += [f"--locale={locale}", *([f"--waldir={waldir}"] if waldir else [])]
        options += ["--data-checksums"] if data_checksums else []
        options += ["--no-data-checksums"] if self.install.version >= 18 and not data_checksums else []

        def make(pgdata: Path) -> None:
            self.run("initdb", *options, f"--wal-segsize={wal_segment_size_mb}", "--pgdata", str(pgdata))
            with (pgdata / "pg_hba.conf").open("a") as hba:
                hba.write("host replication all 127.0.0.1/32 trust\n")

        if waldir is not None or self.pgdata.exists():
            make(self.pgdata)
        else:
            kind = ClusterKind(self.install, wal_segment_size_mb, data_checksums, encoding, locale)
            copy_cluster(kind, self.pgdata, make)
        return self

    def start(self, *, wait: bool = True, timeout_seconds: float = 60) -> Self:
        """Start the server; with ``wait``, return when it takes connections (a restore: when it is consistent)."""
        self._process = ChildProcess(
            f"postgres {self.pgdata.name}",
            [str(self.install.program("postgres")), "-D", str(self.pgdata), *self._options()],
            log=self.log,
            env={**_clean_environment(), **self._env},
            cwd=Path("/"),
            run_as=postgres_user(),
        )
        self._process.start()
        if wait:
            self.wait_ready(timeout_seconds=timeout_seconds)
        return self

    def wait_ready(self, *, timeout_seconds: float = 60) -> None:
        """Wait until the server takes connections. Raises: ServerError with the log's end."""
        self.process.wait_until(self.accepts_connections, timeout_seconds=timeout_seconds)

    def wait_promoted(self, *, timeout_seconds: float = 60) -> None:
        """Wait until recovery has ended and the server takes writes."""
        self.process.wait_until(
            lambda: self.accepts_connections() and self.value("SELECT pg_is_in_recovery()") == "f",
            timeout_seconds=timeout_seconds,
        )

    def stop(self, *, mode: str = "fast") -> None:
        """Stop the server: ``smart``, ``fast`` or ``immediate``. A server that has ended is no error."""
        signals = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
        if self._process is not None:
            self._process.stop(with_signal=signals[mode], timeout_seconds=60)

    def kill(self) -> None:
        """SIGKILL the server with all its processes and commands, as a crash of the machine would."""
        if self._process is not None:
            self._process.kill()

    def restart(self) -> None:
        """Stop and start the server."""
        self.stop()
        self.start()

    def remove(self) -> None:
        """Stop the server and remove its folders."""
        self.stop(mode="immediate")
        for folder in (self.folder, self.socket_folder):
            shutil.rmtree(folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        self.stop(mode="immediate")

    @property
    def process(self) -> ChildProcess:
        """The server's process. Raises: ServerError where it was never started."""
        if self._process is None:
            raise ServerError(f"the cluster in '{self.pgdata}' is not started")
        return self._process

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        return self.process.pid

    @property
    def is_running(self) -> bool:
        """Whether the postmaster runs."""
        return self._process is not None and self._process.is_running

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self.folder / "server.log"

    @property
    def conninfo(self) -> str:
        """The libpq connection string, over TCP on loopback."""
        return f"host={LOOPBACK} port={self.port} user={SUPERUSER} dbname={DATABASE}"

    @property
    def pg_environment(self) -> dict[str, str]:
        """libpq's variables for this cluster."""
        return {"PGHOST": LOOPBACK, "PGPORT": str(self.port), "PGUSER": SUPERUSER, "PGDATABASE": DATABASE}

    def connect(self, **options: object) -> "psycopg.Connection[tuple[object, ...]]":
        """Open a psycopg connection that commits each statement by itself."""
        return psycopg.connect(self.conninfo, autocommit=True, **options)  # type: ignore[arg-type]

    def accepts_connections(self) -> bool:
        """Whether the server takes connections now."""
        try:
            self.connect(connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def psql(self, sql: str, *, database: str = DATABASE) -> str:
        """Run SQL with ``psql`` in one session, stop at the first error, and return the bare output."""
        options = ["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]
        return self.run("psql", *options, "--dbname", database, "--file=-", stdin=sql).strip()

    def value(self, sql: str) -> str:
        """Return the first value of a query's answer, as ``psql`` prints it."""
        lines = self.psql(sql).splitlines()
        return lines[0] if lines else ""

    def run(self, program: str, *arguments: str, stdin: str = "", timeout_seconds: float = 300) -> str:
        """Run one of PostgreSQL's programs as its user against this cluster and return its output."""
        finished = subprocess.run(
            postgres_user().wrap([str(self.install.program(program)), *arguments]),
            input=stdin,
            capture_output=True,
            text=True,
            errors="backslashreplace",  # messages come in the encoding of the locale
            check=False,
            timeout=timeout_seconds,
            cwd="/",
            env={**_clean_environment(), **self.pg_environment},
        )
        if finished.returncode != 0:
            raise ServerError(f"'{program}' ended with {finished.returncode}: {finished.stderr.strip()}")
        return finished.stdout

    def pgbench_init(self, *, scale: int = 1) -> None:
        """Make pgbench's tables: about 15 MB and one segment of WAL for each unit of ``scale``."""
        self.run("pgbench", "--initialize", "--quiet", f"--scale={scale}", DATABASE)

    def pgbench(self, *, transactions: int = 100, clients: int = 2, timeout_seconds: float = 300) -> None:
        """Run ``transactions`` pgbench transactions on each of ``clients`` connections."""
        options = ["--no-vacuum", f"--client={clients}", f"--transactions={transactions}"]
        self.run("pgbench", *options, DATABASE, timeout_seconds=timeout_seconds)

    def start_pgbench(self, *, seconds: int, clients: int = 2, rate: int | None = None) -> ChildProcess:
        """Run pgbench in the background for ``seconds``; ``rate`` bounds the transactions a second."""
        options = ["--no-vacuum", f"--client={clients}", f"--time={seconds}"]
        options += [] if rate is None else [f"--rate={rate}"]
        load = ChildProcess(
            "pgbench",
            [str(self.install.program("pgbench")), *options, DATABASE],
            log=self.folder / "pgbench.log",
            env={**_clean_environment(), **self.pg_environment},
            cwd=Path("/"),
            run_as=postgres_user(),
        )
        load.start()
        return load

    def bulk_load(self, megabytes: int, *, table: str = "bulk") -> None:
        """Write about ``megabytes`` MB of rows that compress, and somewhat more WAL."""
        rows = "SELECT i, md5(i::text) || ' row of a bulk load', now() FROM generate_series(1, :rows) AS i;"
        self.psql(
            f"\\set rows {megabytes * 9000}\n\\set table {table}\n"
            'CREATE TABLE IF NOT EXISTS :"table" (id bigint, label text, at timestamptz);\n'
            f'INSERT INTO :"table" {rows}'
        )

    def switch_wal(self) -> str:
        """Finish the current segment, so that it is archived, and return its file name.

        A logged message ensures that the segment is not empty, because PostgreSQL switches no empty one.
        """
        return self.psql(
            "SELECT pg_logical_emit_message(true, 'switch', 'switch') \\gset\n"
            "SELECT pg_walfile_name(pg_current_wal_lsn());\nSELECT pg_switch_wal() \\gset\n"
        )

    def archived(self) -> set[str]:
        """Return the files that PostgreSQL marks as archived."""
        return {path.stem for path in (self.pgdata / "pg_wal" / "archive_status").glob("*.done")}

    def promote(self) -> None:
        """End recovery on a new timeline and wait until the server takes writes."""
        self.psql("SELECT pg_promote(true, 60)")
        self.wait_promoted()

    def make_tablespace(self, name: str) -> Path:
        """Make a tablespace in a folder of its own and return the folder."""
        location = owned_folder("tablespace")
        self.psql(f"CREATE TABLESPACE {name} LOCATION '{location}'")
        return location

    @property
    def system_identifier(self) -> str:
        """The system identifier, which ``pg_controldata`` reads also while the server is down."""
        for line in self.run("pg_controldata", str(self.pgdata)).splitlines():
            if line.startswith("Database system identifier"):
                return line.rpartition(":")[2].strip()
        raise ServerError("pg_controldata printed no system identifier")

    def _options(self) -> list[str]:
        listen = {
            "listen_addresses": LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": str(self.socket_folder),
        }
        return [option for name, value in {**listen, **self.settings}.items() for option in ("-c", f"{name}={value}")]


def start_restored(
    install: PostgresInstall,
    pgdata: Path,
    *,
    settings: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    wait: bool = True,
    timeout_seconds: float = 120,
) -> PostgresCluster:
    """Start the data folder that a restore has filled, at an address of its own, and return its cluster.

    PostgreSQL's user becomes the folder's owner first. The server archives nothing unless ``settings`` say so.
    """
    give_to_postgres(pgdata)
    quiet = {"archive_mode": "off", **(settings or {})}
    cluster = PostgresCluster(install, pgdata=pgdata, settings=quiet, env=env)
    return cluster.start(wait=wait, timeout_seconds=timeout_seconds)


def _clean_environment() -> dict[str, str]:
    """The environment without libpq's variables, so that a developer's own cluster is never touched."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}
