"""A real server reports its facts and does what we ask, on PostgreSQL 18 and 15."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg.conninfo
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.ports import free_port
from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall
from wal_pipeline.errors import PostgresError, SettingsError
from wal_pipeline.postgres.server import AlterableSetting, PostgresServer, SettingChange
from wal_pipeline.postgres.server_facts import ArchiverFacts, RoleFacts
from wal_pipeline.wal.page_header import parse_long_page_header

UNREADABLE = "the PostgreSQL connection string cannot be read"


@pytest.fixture(scope="module")
def cluster(postgres_version: PostgresInstall) -> Iterator[PostgresCluster]:
    """A running cluster with 1 MB segments that archives nothing."""
    running = PostgresCluster(postgres_version).initdb(wal_segment_size_mb=1).start()
    yield running
    running.remove()


@pytest.fixture
def server(cluster: PostgresCluster) -> PostgresServer:
    """The cluster's server, as its superuser."""
    return PostgresServer(cluster.conninfo)


@pytest.mark.integration
def test_facts(cluster: PostgresCluster, server: PostgresServer) -> None:
    """The facts are those that PostgreSQL's own programs show."""
    facts = server.facts()
    assert str(facts.system_identifier) == cluster.system_identifier
    assert facts.major_version == cluster.install.version
    assert (facts.timeline, facts.in_recovery, facts.wal_segment_size) == (1, False, 2**20)
    assert (facts.archive_mode, facts.archive_library, facts.archive_command) == ("off", "", "")
    assert (facts.archive_timeout_seconds, facts.archive_directory, facts.wal_level) == (0, "", "replica")
    assert (facts.data_directory, facts.group_access, facts.data_checksums) == (str(cluster.pgdata), False, True)
    assert facts.summarize_wal is (None if cluster.install.version < 17 else False)
    assert facts.role == RoleFacts("postgres", *[True] * 5)
    assert facts.archiver == ArchiverFacts(0, None, None, 0, None, None, running=False, ready_count=0)
    assert facts.settings_sources["wal_level"] == "command line"
    assert facts.wal_insert_lsn is not None
    assert 0 < facts.wal_lsn <= facts.wal_insert_lsn
    assert abs((datetime.now(UTC) - facts.server_at).total_seconds()) < 60


@pytest.mark.integration
def test_command_line_variables(cluster: PostgresCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty connection string means libpq's own PG* variables."""
    for name, value in cluster.pg_environment.items():
        monkeypatch.setenv(name, value)
    assert str(PostgresServer().facts().system_identifier) == cluster.system_identifier


@pytest.mark.integration
def test_hidden_command(cluster: PostgresCluster, server: PostgresServer) -> None:
    """A command that PostgreSQL hides as '(disabled)' while archive_mode is off is found in its files."""
    server.alter_system((SettingChange(AlterableSetting.ARCHIVE_COMMAND, "cp %p /srv/wal/%f"),))
    server.reload()
    assert cluster.value("SHOW archive_command") == "(disabled)"
    assert server.facts().archive_command == "cp %p /srv/wal/%f"
    server.alter_system((SettingChange(AlterableSetting.ARCHIVE_COMMAND, ""),))
    assert server.facts().archive_command == ""


@pytest.mark.integration
def test_switch_finishes_the_segment_with_the_record(cluster: PostgresCluster, server: PostgresServer) -> None:
    """Each switch names the segment that it finished, also where nothing was written between two switches."""
    first, second = server.switch_wal(), server.switch_wal()
    assert second.file == first.file.next(2**20)
    current = cluster.value("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
    assert current >= second.file.name
    assert first.file.start_lsn(2**20) < first.end_lsn <= first.file.end_lsn(2**20)


@pytest.mark.integration
def test_has_library(server: PostgresServer) -> None:
    """A library that PostgreSQL can load is found, and one that is not installed is not."""
    assert server.has_library("basic_archive") is True
    assert server.has_library("no_such_library") is False


@pytest.mark.integration
@pytest.mark.parametrize("value", ['/srv/it\'s \\ "odd" %f $HOME; --', "/srv/wal"])
def test_alter_system_keeps_the_value(value: str, cluster: PostgresCluster, server: PostgresServer) -> None:
    """A value comes into force as it is, also where it has quotes; PostgreSQL 15 first needs the library."""
    change = SettingChange(AlterableSetting.BASIC_ARCHIVE_DIRECTORY, value)
    server.alter_system((change,))
    server.reload()
    cluster.process.wait_until(lambda: server.facts().archive_directory == value)
    with cluster.connect() as connection:
        connection.execute("LOAD 'basic_archive'")
        connection.execute(change.line.encode())


@pytest.mark.integration
def test_pending_restart(cluster: PostgresCluster, server: PostgresServer) -> None:
    """A setting that waits for a restart is named."""
    server.alter_system((SettingChange(AlterableSetting.ARCHIVE_MODE, "on"),))
    server.reload()
    cluster.process.wait_until(lambda: "archive_mode" in server.facts().pending_restart)
    assert server.facts().archive_mode == "off"
    cluster.psql("ALTER SYSTEM RESET archive_mode")


@pytest.mark.integration
def test_refused_value(server: PostgresServer) -> None:
    """A value that PostgreSQL refuses is shown with the statement."""
    with pytest.raises(PostgresError) as caught:
        server.alter_system((SettingChange(AlterableSetting.ARCHIVE_TIMEOUT, "soon"),))
    assert caught.value.message == (
        "PostgreSQL refused 'ALTER SYSTEM SET archive_timeout = 'soon';': "
        'invalid value for parameter "archive_timeout": "soon"'
    )


@pytest.mark.integration
def test_a_role_without_rights(cluster: PostgresCluster) -> None:
    """A plain role sees what it may see, and what it may not do fails with a hint."""
    cluster.psql("DROP ROLE IF EXISTS plain; CREATE ROLE plain LOGIN")
    server = PostgresServer(cluster.conninfo.replace("user=postgres", "user=plain"))
    facts = server.facts()
    assert facts.role == RoleFacts("plain", *[False] * 5)
    assert (facts.data_directory, facts.archiver.running, facts.archiver.ready_count) == (None, None, None)
    assert server.has_library("basic_archive") is None
    with pytest.raises(PostgresError) as caught:
        server.switch_wal()
    assert str(caught.value) == (
        "PostgreSQL refused: permission denied for function pg_switch_wal\n"
        "HINT: Connect as a superuser, or grant the role what it lacks."
    )


@pytest.mark.integration
def test_a_role_of_pg_monitor(cluster: PostgresCluster) -> None:
    """A member of pg_monitor sees the archiver too."""
    cluster.psql("DROP ROLE IF EXISTS watcher; CREATE ROLE watcher LOGIN IN ROLE pg_monitor")
    facts = PostgresServer(cluster.conninfo.replace("user=postgres", "user=watcher")).facts()
    assert (facts.archiver.running, facts.archiver.ready_count, facts.role.superuser) == (False, 0, False)
    assert facts.data_directory == str(cluster.pgdata)


@pytest.mark.integration
def test_functions_of_another_schema_are_not_called(cluster: PostgresCluster, server: PostgresServer) -> None:
    """A database whose owner shadows system functions cannot make a superuser's session run them."""
    trap = "LANGUAGE plpgsql AS $$ BEGIN RAISE 'the trap was called'; END $$"
    cluster.psql(f"CREATE OR REPLACE FUNCTION public.pg_is_in_recovery() RETURNS bool {trap}")
    cluster.psql("ALTER ROLE postgres SET search_path = public, pg_catalog")
    try:
        with pytest.raises(psycopg.Error, match="the trap was called"), cluster.connect() as connection:
            connection.execute("SELECT pg_is_in_recovery()")
        assert not server.facts().in_recovery
    finally:
        cluster.psql("ALTER ROLE postgres RESET search_path")


@pytest.mark.integration
def test_write_file(server: PostgresServer, postgres_folder: Path) -> None:
    """The server writes a line as its own user."""
    server.write_file(postgres_folder / "it's", "a 'line'")
    assert (postgres_folder / "it's").read_text() == "a 'line'\n"
    assert (postgres_folder / "it's").stat().st_uid == postgres_folder.stat().st_uid


@pytest.mark.integration
def test_wrong_role_without_password_in_the_error(cluster: PostgresCluster) -> None:
    """A refused connection says what PostgreSQL said, and never the password."""
    conninfo = cluster.conninfo.replace("user=postgres", "user=nobody_here password=s3cret-Word")
    with pytest.raises(PostgresError) as caught:
        PostgresServer(conninfo).facts()
    assert caught.value.message == (
        f'cannot connect to PostgreSQL: connection failed: connection to server at "127.0.0.1", port {cluster.port} '
        'failed: FATAL: role "nobody_here" does not exist'
    )
    assert caught.value.__cause__ is None


def test_nothing_listens() -> None:
    """A server that does not run is an error with a hint."""
    port = free_port()
    with pytest.raises(PostgresError) as caught:
        PostgresServer(f"host=127.0.0.1 port={port} user=postgres").facts()
    assert caught.value.message.startswith(
        f'cannot connect to PostgreSQL: connection failed: connection to server at "127.0.0.1", port {port} failed: '
        "Connection refused"
    )
    assert caught.value.hint is not None


@pytest.mark.parametrize(
    "conninfo",
    [
        "postgresql://u:pa@ss@h/db",
        "postgresql://u:pa/ss@h/db",
        "postgresql://u:p@ss:w@h/db",
        "postgresql://u:p%zz@h/db",
        "host=h password=my secret",
        "just-a-secret",
    ],
)
def test_torn_connection_string(conninfo: str) -> None:
    """A string that libpq would cut in the middle of the password is refused, and no part of it is shown."""
    with pytest.raises(SettingsError) as caught:
        PostgresServer(conninfo)
    assert caught.value.message == UNREADABLE


@settings(deadline=None, max_examples=50)
@given(st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), min_size=8))
def test_password_with_any_character(password: str) -> None:
    """A quoted password of any characters is read, and is in no error's text."""
    quoted = psycopg.conninfo.make_conninfo("host=127.0.0.1 port=1 user=nobody connect_timeout=2", password=password)
    with pytest.raises(PostgresError) as caught:
        PostgresServer(quoted).facts()
    assert password not in str(caught.value)


def test_line_is_a_statement() -> None:
    """A change reads as the line to type, with the value as a literal."""
    assert SettingChange(AlterableSetting.ARCHIVE_COMMAND, "it's").line == "ALTER SYSTEM SET archive_command = 'it''s';"
    backslash = SettingChange(AlterableSetting.BASIC_ARCHIVE_DIRECTORY, "/a\\b")
    assert backslash.line == r"ALTER SYSTEM SET basic_archive.archive_directory = E'/a\\b';"


@pytest.mark.integration
def test_a_server_that_does_not_let_us_in_answers_all_the_same(shared_cluster18: PostgresCluster) -> None:
    """Nothing but silence means that no server is there; and no password is shown where it is."""
    port = shared_cluster18.port
    nobody = PostgresServer(f"host=127.0.0.1 port={port} user=nobody dbname=none password=secret")
    assert nobody.answers()
    assert nobody.address == f"127.0.0.1, port {port}"
    assert not PostgresServer(f"host=127.0.0.1 port={free_port()}").answers()


def test_where_a_server_is_comes_from_libpqs_variables_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As its connections do."""
    monkeypatch.setenv("PGHOST", "db.example")
    monkeypatch.setenv("PGPORT", "5433")
    assert PostgresServer("").address == "db.example, port 5433"
    monkeypatch.delenv("PGHOST")
    assert PostgresServer("").address == "the default socket, port 5433"


@pytest.mark.integration
def test_the_first_bytes_of_the_wal_are_a_page_header(cluster: PostgresCluster, server: PostgresServer) -> None:
    """Setup sees at once whether the server encrypts its WAL; a role without rights learns nothing."""
    found = server.first_wal_bytes()
    assert found is not None
    header = parse_long_page_header("now", found)
    assert header.server_major == cluster.install.version
    cluster.psql("CREATE ROLE reader LOGIN")
    conninfo = psycopg.conninfo.make_conninfo(cluster.conninfo, user="reader")
    assert PostgresServer(conninfo).first_wal_bytes() is None
    cluster.psql("DROP ROLE reader")
