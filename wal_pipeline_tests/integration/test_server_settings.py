"""The commands work on servers with other encodings, date styles and time zones than those that tests usually have."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from testbed.postgres_install import PostgresInstall
from wal_pipeline.archive.alerts import AlertKind, Observation
from wal_pipeline.catalog.catalog import open_catalog
from wal_pipeline.cli.group import run
from wal_pipeline_tests.support.one_host import OneHost, one_host

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def host(postgres_version: PostgresInstall) -> Iterator[OneHost]:
    """One host for the module."""
    with one_host(postgres_version) as made:
        yield made


@pytest.fixture(autouse=True)
def settings(host: OneHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands' settings, in the environment."""
    for name, value in host.settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(host.folder)


def assert_all_commands_work(host: OneHost, capsys: pytest.CaptureFixture[str]) -> None:
    """Set-up, archive, check, status and metrics answer, and the new segment is on the store."""
    assert run(["setup"]) == 0
    name = host.new_segment()
    assert run(["archive"]) == 0
    assert not (host.spool / name).exists()
    capsys.readouterr()
    assert run(["status"]) == 0
    assert "did not answer" not in capsys.readouterr().out
    assert run(["list"]) == 0
    assert run(["check"]) == 0
    assert run(["metrics"]) == 0
    printed = capsys.readouterr()
    assert name in printed.out
    assert "Traceback" not in printed.out + printed.err


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_no_command_ends_in_a_database_of_another_encoding(
    host: OneHost, encoding: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SQL_ASCII: setup, check and backup ended in a TypeError, status said that the server did not answer."""
    host.cluster.psql(f"CREATE DATABASE old_{encoding} ENCODING '{encoding}' TEMPLATE template0")
    conninfo = host.cluster.conninfo.replace("dbname=postgres", f"dbname=old_{encoding.lower()}")
    monkeypatch.setenv("WAL_PIPELINE_CONNINFO", conninfo)
    assert_all_commands_work(host, capsys)
    assert run(["backup"]) == 0


@pytest.mark.parametrize("style", ["German, DMY", "SQL, MDY", "Postgres, DMY"])
def test_no_datestyle_ends_archiving(host: OneHost, style: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Archiving ended with a NotImplementedError on a cluster that already archived."""
    host.cluster.psql(f"ALTER SYSTEM SET datestyle = '{style}';\nALTER SYSTEM SET timezone = 'UTC+3'")
    host.cluster.psql("SELECT pg_reload_conf()")
    host.cluster.process.wait_until(lambda: host.cluster.value("SHOW datestyle") == style)
    assert_all_commands_work(host, capsys)
    assert run(["backup"]) == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PGDATESTYLE", "German"),
        ("PGCLIENTENCODING", "SQL_ASCII"),
        ("PGTZ", "UTC+3"),
        ("PGOPTIONS", "-c datestyle=sql"),
    ],
)
def test_no_variable_of_libpq_ends_archiving(
    host: OneHost, name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The variables of the shell from which a command is typed change nothing."""
    monkeypatch.setenv(name, value)
    assert_all_commands_work(host, capsys)


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1", "UTF8"])
@pytest.mark.parametrize("style", ["German, DMY", "SQL, DMY"])
def test_no_catalog_of_another_encoding_or_style_ends_archiving(
    host: OneHost, encoding: str, style: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In SQL_ASCII all commands ended in a traceback; by the date style those that read what others wrote."""
    name = f"catalog_{encoding}_{style[:3]}".lower()
    host.cluster.psql(f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0")
    host.cluster.psql(f"ALTER DATABASE {name} SET datestyle = '{style}'")
    host.cluster.psql(f"ALTER DATABASE {name} SET timezone = 'Asia/Tokyo'")
    host.cluster.psql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    monkeypatch.setenv("WAL_PIPELINE_CATALOG_URL", f"postgresql://postgres@127.0.0.1:{host.cluster.port}/{name}")
    assert_all_commands_work(host, capsys)
    assert run(["catalog", "rebuild"]) == 0
    assert run(["alerts"]) == 0
    catalog = open_catalog(os.environ["WAL_PIPELINE_CATALOG_URL"], "main")
    catalog.alerts.observe(AlertKind.GAP, Observation("größe", "ends at ●"), datetime.now(UTC))
    [alert] = catalog.alerts.active()
    assert (alert.subject, alert.message) == ("größe", r"ends at \u25cf" if encoding == "LATIN1" else "ends at ●")
    catalog.close()


def test_a_stale_identifier_stops_nothing_silently(
    host: OneHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after pg_upgrade: set-up, check and base backup refuse with the way out, and the WAL stays in the spool."""
    monkeypatch.setenv("WAL_PIPELINE_SYSTEM_IDENTIFIER", "7")
    actual = int(host.cluster.system_identifier)
    name = host.new_segment()
    assert run(["archive"]) == 1
    assert (host.spool / name).exists()
    assert not host.spool.with_name("spool-quarantine").exists()
    for command in (["setup"], ["check"]):
        assert run(command) == 1
        assert f"{actual}, expected 7 by" in " ".join(capsys.readouterr().out.split())
    assert run(["backup"]) == 1
    assert capsys.readouterr().err.endswith(
        f"ERROR: the server has system identifier {actual}, expected 7 by WAL_PIPELINE_SYSTEM_IDENTIFIER\n"
        "HINT: After pg_upgrade remove WAL_PIPELINE_SYSTEM_IDENTIFIER or set it to the server's; "
        "else mend the connection.\n"
    )
    monkeypatch.delenv("WAL_PIPELINE_SYSTEM_IDENTIFIER")
    assert run(["archive"]) == 0
    assert not (host.spool / name).exists()


def test_libpqs_variables_work_in_the_settings_file(
    host: OneHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """PGHOST and its family did nothing there, in silence; pg_basebackup needs them too."""
    host.cluster.psql("DROP ROLE IF EXISTS backup; CREATE ROLE backup SUPERUSER LOGIN PASSWORD 'a${b} c'")
    hba = host.cluster.pgdata / "pg_hba.conf"
    before = hba.read_text()
    hba.write_text(f"host all,replication backup 127.0.0.1/32 scram-sha-256\n{before}")
    host.cluster.psql("SELECT pg_reload_conf()")
    for name in host.settings:
        monkeypatch.delenv(name)
    given = {name: value for name, value in host.settings.items() if name != "WAL_PIPELINE_CONNINFO"}
    given |= {"PGHOST": "127.0.0.1", "PGPORT": str(host.cluster.port), "PGUSER": "backup", "PGPASSWORD": "a${b} c"}
    given |= {"PGDATABASE": "postgres", "PGDATESTYLE": "German", "PGCLIENTENCODING": "LATIN1"}
    (host.folder / ".env").write_text("".join(f"{name}='{value}'\n" for name, value in given.items()))
    try:
        assert_all_commands_work(host, capsys)
        assert run(["backup"]) == 0
        monkeypatch.setenv("PGPASSWORD", "wrong")
        assert run(["check"]) == 1
        assert "password authentication failed" in " ".join(capsys.readouterr().out.split())
    finally:
        (host.folder / ".env").unlink()
        hba.write_text(before)
        host.cluster.psql("SELECT pg_reload_conf()")
