"""A session reads the same from every server, whatever anyone has set for it, on PostgreSQL 18 and 15."""

import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall
from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres import session
from wal_pipeline.postgres.backup_server import BackupServer
from wal_pipeline.postgres.server import AlterableSetting, PostgresServer, SettingChange
from wal_pipeline.postgres.session import open_session, readable
from wal_pipeline_tests.support.slow_server import slow_function

STYLES = ["German, DMY", "SQL, MDY", "SQL, DMY", "Postgres, DMY"]
ENCODINGS = ["SQL_ASCII", "LATIN1", "EUC_JP", "UTF8"]


@pytest.fixture(scope="module")
def cluster(postgres_version: PostgresInstall) -> Iterator[PostgresCluster]:
    """A running cluster with a database of each encoding."""
    running = PostgresCluster(postgres_version).initdb(wal_segment_size_mb=1).start()
    for encoding in ENCODINGS:
        running.psql(f"CREATE DATABASE of_{encoding.lower()} ENCODING '{encoding}' TEMPLATE template0")
    yield running
    running.remove()


def in_database(cluster: PostgresCluster, name: str, user: str = "postgres") -> BackupServer:
    conninfo = cluster.conninfo.replace("dbname=postgres", f"dbname={name}")
    return BackupServer(conninfo.replace("user=postgres", f"user={user}"))


def assert_reads_all(cluster: PostgresCluster, server: BackupServer) -> None:
    """Every question that we ask the server is answered with values of the right types."""
    facts = server.facts()
    assert str(facts.system_identifier) == cluster.system_identifier == str(server.system_identifier())
    assert facts.data_directory == str(cluster.pgdata)
    assert abs(datetime.now(UTC) - facts.server_at) < timedelta(minutes=1)
    assert abs(datetime.now(UTC) - server.as_of()) < timedelta(minutes=1)
    assert server.tablespaces() == ()
    assert (server.size_bytes() or 0) > 1 << 20
    assert facts.role.superuser
    before = server.switch_wal()
    assert server.switch_wal().file == before.file.next(1 << 20)


@pytest.mark.integration
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_encoding_of_a_database_stops_us(cluster: PostgresCluster, encoding: str) -> None:
    """SQL_ASCII made text come as bytes: setup, check, backup and status ended in a TypeError."""
    assert_reads_all(cluster, in_database(cluster, f"of_{encoding.lower()}"))


@pytest.mark.integration
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_name_that_is_no_utf8_stops_us(cluster: PostgresCluster, encoding: str) -> None:
    """A role's name may hold bytes of another encoding: it is shown with them as codes, and all else is read."""
    with psycopg.connect(
        cluster.conninfo.replace("dbname=postgres", "dbname=of_sql_ascii"), client_encoding="SQL_ASCII", autocommit=True
    ) as connection:
        connection.execute('DROP ROLE IF EXISTS "caf\udce9"'.encode("utf-8", "surrogateescape"))
        connection.execute('CREATE ROLE "caf\udce9" SUPERUSER LOGIN'.encode("utf-8", "surrogateescape"))
        connection.execute("ALTER ROLE postgres SET role = 'caf\udce9'".encode("utf-8", "surrogateescape"))
    try:
        facts = in_database(cluster, f"of_{encoding.lower()}").facts()
        assert facts.role.name == r"caf\xe9"
        assert facts.role.superuser
    finally:
        cluster.psql("ALTER ROLE postgres RESET role")


@pytest.mark.integration
@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1", "UTF8"])
def test_a_path_stays_the_path_that_it_is(cluster: PostgresCluster, postgres_folder: Path, encoding: str) -> None:
    """The server opens the file whose bytes we named, also from a database that would write 'ö' in another way."""
    server = in_database(cluster, f"of_{encoding.lower()}")
    server.write_file(postgres_folder / "größe", "a line")
    assert (postgres_folder / "größe").read_text() == "a line\n"
    server.alter_system((SettingChange(AlterableSetting.ARCHIVE_COMMAND, f"cp %p {postgres_folder}/größe/%f"),))
    server.reload()
    assert f"{postgres_folder}/größe/%f".encode() in (cluster.pgdata / "postgresql.auto.conf").read_bytes()
    assert server.facts().file_settings["archive_command"] == f"cp %p {postgres_folder}/größe/%f"


@pytest.mark.integration
def test_a_database_that_cannot_take_a_path(cluster: PostgresCluster, postgres_folder: Path) -> None:
    """The error names the way out: another database."""
    with pytest.raises(PostgresError, match=r'invalid byte sequence for encoding "EUC_JP".*\nHINT: Name a'):
        in_database(cluster, "of_euc_jp").write_file(postgres_folder / "größe", "a line")


@pytest.mark.integration
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("place", ["server", "database", "role", "variable", "options"])
def test_no_datestyle_stops_us(
    cluster: PostgresCluster, style: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any style but ISO ended archiving with a NotImplementedError, wherever it was set."""
    set_it = {
        "server": f"ALTER SYSTEM SET datestyle = '{style}'",
        "database": f"ALTER DATABASE postgres SET datestyle = '{style}'",
        "role": f"ALTER ROLE postgres SET datestyle = '{style}'",
    }
    if place == "variable":
        monkeypatch.setenv("PGDATESTYLE", style)
    elif place == "options":
        monkeypatch.setenv("PGOPTIONS", f"-c datestyle={style.replace(' ', '')} -c client_encoding=LATIN1")
    else:
        cluster.psql(set_it[place])
        cluster.psql("SELECT pg_reload_conf()")
        cluster.process.wait_until(lambda: cluster.value("SHOW datestyle") == style)
    try:
        assert_reads_all(cluster, in_database(cluster, "postgres"))
    finally:
        if place in set_it:
            cluster.psql(f"{set_it[place].split(' SET ')[0]} RESET datestyle")
            cluster.psql("SELECT pg_reload_conf()")


HOSTILE = {
    "client_encoding": "LATIN1",
    "timezone": "'UTC+3'",
    "intervalstyle": "sql_standard",
    "search_path": "public",
    "default_transaction_read_only": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "statement_timeout": "200",
    "lock_timeout": "200",
    "idle_in_transaction_session_timeout": "200",
    "standard_conforming_strings": "off",
    "backslash_quote": "off",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "quote_all_identifiers": "on",
}


@pytest.mark.integration
@pytest.mark.parametrize("name", HOSTILE)
def test_no_setting_of_the_role_stops_us(cluster: PostgresCluster, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """The session sets what it depends on. A time zone that the driver does not know brings no warning either."""
    cluster.psql(f"ALTER ROLE postgres SET {name} = {HOSTILE[name]}")
    try:
        assert_reads_all(cluster, in_database(cluster, "postgres"))
        odd = SettingChange(AlterableSetting.BASIC_ARCHIVE_DIRECTORY, "/srv/it's \\ odd")
        in_database(cluster, "postgres").alter_system((odd,))
        assert r"/srv/it''s \\ odd" in (cluster.pgdata / "postgresql.auto.conf").read_text()
    finally:
        cluster.psql(f"SET default_transaction_read_only = off;\nALTER ROLE postgres RESET {name}")
    assert "timezone" not in caplog.text


@pytest.mark.integration
def test_no_variable_of_libpq_changes_what_we_read(cluster: PostgresCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """PGCLIENTENCODING, PGTZ and PGOPTIONS may say what they like."""
    monkeypatch.setenv("PGCLIENTENCODING", "SQL_ASCII")
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")
    monkeypatch.setenv("PGOPTIONS", "-c search_path=public -c statement_timeout=100 -c intervalstyle=iso_8601")
    assert_reads_all(cluster, in_database(cluster, "postgres"))


@pytest.mark.integration
def test_a_cancelled_statement_is_no_lost_connection(cluster: PostgresCluster) -> None:
    """The error names the purpose and the limit, and sends nobody to look for a server that is there."""
    parameters = psycopg.conninfo.conninfo_to_dict(cluster.conninfo)
    with (
        pytest.raises(PostgresError) as caught,
        open_session(parameters, "measuring the tablespaces", limit_seconds=1) as connection,
    ):
        connection.execute("SELECT pg_sleep(20)")
    assert caught.value.message == "PostgreSQL did not finish within 1 s: measuring the tablespaces"
    assert caught.value.hint == (
        "pg_stat_activity shows what the server waits for; measuring the tablespaces may take 1 s."
    )


@pytest.mark.integration
def test_a_statement_that_a_person_cancels(cluster: PostgresCluster) -> None:
    """It is told as that, and not as a limit that was reached."""
    parameters = psycopg.conninfo.conninfo_to_dict(cluster.conninfo)
    with pytest.raises(PostgresError) as caught, open_session(parameters, "reading") as connection:
        connection.execute("SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(5)")
    assert caught.value.message == (
        "a statement was cancelled on the server (reading): canceling statement due to user request"
    )


@pytest.mark.integration
def test_a_server_process_that_is_stuck_does_not_hold_us(
    cluster: PostgresCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that waits for a dead disk takes no cancellation: we leave it after a little more than the limit."""
    monkeypatch.setattr(session, "_GRACE_SECONDS", 0.5)
    parameters = psycopg.conninfo.conninfo_to_dict(cluster.conninfo)
    begun, pid = time.monotonic(), 0
    try:
        with (
            pytest.raises(PostgresError, match=r"PostgreSQL did not finish within 1 s: a test"),
            open_session(parameters, "a test", limit_seconds=1) as connection,
        ):
            pid = connection.info.backend_pid
            os.kill(pid, signal.SIGSTOP)
            connection.execute("SELECT 1")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert time.monotonic() - begun < 10


@pytest.mark.integration
def test_a_server_that_was_stopped_meanwhile(cluster: PostgresCluster) -> None:
    """A connection that is cut is told as lost."""
    parameters = psycopg.conninfo.conninfo_to_dict(cluster.conninfo)
    with pytest.raises(PostgresError) as caught, open_session(parameters, "reading") as connection:
        connection.execute("SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(5)")
    assert caught.value.message.startswith("the connection to PostgreSQL was lost (reading): ")


@pytest.mark.integration
@pytest.mark.parametrize("fault", [NotImplementedError, UnicodeError, TypeError, KeyError, ValueError])
def test_no_exception_of_the_driver_passes(
    cluster: PostgresCluster, fault: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the driver raises becomes one kind of error, which every caller expects, with its purpose."""

    def broken(*_arguments: object) -> Any:
        raise fault("'28.11.2026 22:48:23'")

    monkeypatch.setattr("wal_pipeline.postgres.server.read_system_identifier", broken)
    with pytest.raises(PostgresError, match=rf"cannot be read \(reading the system identifier\): {fault.__name__}: "):
        PostgresServer(cluster.conninfo).system_identifier()


@pytest.mark.integration
def test_very_many_files_in_archive_status_stop_no_command(
    cluster: PostgresCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counting what waits in pg_wal may take longer than the whole limit: the other facts do not need it."""
    monkeypatch.setattr("wal_pipeline.postgres.server_facts._COUNT_SECONDS", 0.2)
    with slow_function(cluster, "pg_ls_archive_statusdir", "", "SETOF record", 5):
        facts = PostgresServer(cluster.conninfo).facts()
    assert facts.archiver.ready_count is None
    assert facts.archiver.running is False
    assert str(facts.system_identifier) == cluster.system_identifier


@pytest.mark.integration
def test_a_size_that_takes_too_long_is_not_needed(cluster: PostgresCluster, caplog: pytest.LogCaptureFixture) -> None:
    """The size of the tablespaces is an estimate: a base backup goes on without it."""
    server = BackupServer(cluster.conninfo, statement_timeout_seconds=1)
    with slow_function(cluster, "pg_tablespace_size", "oid", "bigint", 20):
        assert server.size_bytes() is None
    assert "the size of the cluster is not known: PostgreSQL did not finish within 1 s: measuring" in caplog.text


def test_bytes_of_any_encoding_are_shown() -> None:
    """UTF-8 as it is, and any other byte as its code."""
    assert [readable(text) for text in (b"", "größe".encode(), b"gr\xf6\xdfe")] == ["", "größe", r"gr\xf6\xdfe"]
