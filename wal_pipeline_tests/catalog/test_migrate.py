"""Making the tables once, refusing those of another version, and the processes that share a catalog."""

import signal
import sqlite3
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text, update

from wal_pipeline.catalog import schema
from wal_pipeline.catalog.catalog import open_catalog
from wal_pipeline.catalog.engine import open_database
from wal_pipeline.catalog.migrate import set_aside
from wal_pipeline.errors import CatalogError
from wal_pipeline_tests.support.catalog_records import NOON, SYSTEM_IDENTIFIER, copy_of, segment

WRITER = """
import sys
from wal_pipeline.catalog.catalog import open_catalog
from wal_pipeline_tests.support.catalog_records import copy_of, segment
url, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
catalog = open_catalog(url, "main")
print("open", flush=True)
for number in range(first, first + count):
    file = segment(number)
    catalog.files.record_verified(file, [copy_of(file, "r2"), copy_of(file, "b2")])
    print(file.name, flush=True)
"""


def writer(url: str, first: int, count: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, url, str(first), str(count)], stdout=subprocess.PIPE, text=True
    )


def other_version(url: str) -> None:
    database = open_database(url)
    with database.write() as connection:
        connection.execute(update(schema.schema_version).values(version=999))
    database.close()


@pytest.fixture
def own_url(catalog_url: str) -> str:
    """A database that no other test uses."""
    if catalog_url.startswith("sqlite"):
        return catalog_url
    engine = create_engine(catalog_url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    name = f"own_{uuid.uuid4().hex}"
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return f"{catalog_url.rpartition('/')[0]}/{name}"


def test_other_version_is_refused(own_url: str) -> None:
    """Tables of another version are not touched; the error says how to go on."""
    open_catalog(own_url, "main").close()
    other_version(own_url)
    with pytest.raises(CatalogError) as caught:
        open_catalog(own_url, "main")
    assert caught.value.message.endswith("has schema version 999, expected 1")
    assert caught.value.hint == (
        "Run 'wal-pipeline catalog rebuild': it sets the old tables aside and reads the stores."
    )


def test_other_version_is_set_aside_and_kept(own_url: str) -> None:
    """New tables can be made after the old ones were moved, and a usable catalog is never moved."""
    catalog = open_catalog(own_url, "main")
    catalog.files.record_verified(segment(), [copy_of(segment())])
    catalog.close()
    assert set_aside(own_url, NOON) is None
    other_version(own_url)
    where = set_aside(own_url, NOON)
    assert where is not None
    assert where.endswith(("catalog.sqlite.20261122T120000Z.old", "schema wal_pipeline_old_20261122t120000z"))
    fresh = open_catalog(own_url, "main")
    assert fresh.files.count() == 0
    fresh.close()


def test_damaged_sqlite_file_is_an_error_and_can_be_set_aside(tmp_path: Path) -> None:
    """A file that is no database is reported with the way out, and then moved out of it."""
    file = tmp_path / "catalog.sqlite"
    file.write_bytes(b"not a database" * 1000)
    with pytest.raises(CatalogError) as caught:
        open_catalog(f"sqlite:///{file}", "main")
    assert caught.value.message == f"catalog 'sqlite+pysqlite:///{file}' failed: file is not a database"
    assert caught.value.hint == "If the file is damaged, 'wal-pipeline catalog rebuild' makes it again from the stores."
    assert set_aside(f"sqlite:///{file}", NOON) == f"{file}.20261122T120000Z.old"
    open_catalog(f"sqlite:///{file}", "main").close()


def test_catalog_that_cannot_be_opened_is_not_set_aside(tmp_path: Path) -> None:
    """A catalog that only cannot be reached now is never moved."""
    (tmp_path / "catalog.sqlite").mkdir()
    with pytest.raises(CatalogError, match="unable to open database file"):
        set_aside(f"sqlite:///{tmp_path}/catalog.sqlite", NOON)


@pytest.mark.parametrize("url", ["nonsense", "mysql://u:topsecret@localhost/x", "sqlite://", "sqlite:///:memory:"])
def test_urls_that_cannot_be_used_are_refused(url: str) -> None:
    """Another database, or one in memory, cannot hold a catalog; the message does not show the URL's password."""
    with pytest.raises(CatalogError) as caught:
        open_catalog(url, "main")
    assert caught.value.hint == "Use sqlite:////folder/catalog.db or postgresql://user:password@host/database."
    assert "topsecret" not in str(caught.value)


def test_unreachable_server_is_an_error_without_its_password() -> None:
    """The message names the database, not the password."""
    with pytest.raises(CatalogError) as caught:
        open_catalog("postgresql://someone:topsecret@127.0.0.1:1/catalog", "main")
    assert caught.value.message.startswith("catalog 'postgresql+psycopg://someone:***@127.0.0.1:1/catalog' failed: ")
    assert "topsecret" not in str(caught.value)


def test_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """The folder is named, with the setting to change."""
    (tmp_path / "state").write_text("a file")
    with pytest.raises(CatalogError) as caught:
        open_catalog(f"sqlite:///{tmp_path}/state/deep/catalog.sqlite", "main")
    assert caught.value.message == f"the catalog's folder '{tmp_path}/state/deep' cannot be made: Not a directory"


def test_processes_that_open_and_write_at_once_all_succeed(own_url: str) -> None:
    """Processes that make the same tables and write at the same time lose nothing."""
    writers = [writer(own_url, 1000 * number, 40) for number in range(4)]
    for process in writers:
        process.communicate(timeout=120)
    assert [process.returncode for process in writers] == [0, 0, 0, 0]
    catalog = open_catalog(own_url, "main")
    assert catalog.files.count() == 160
    assert {total.files for total in catalog.files.totals()} == {160}
    catalog.close()


def test_killed_writer_loses_nothing_that_was_recorded(own_url: str) -> None:
    """After a kill every file that was reported recorded is there with both copies, and the catalog can be written."""
    process = writer(own_url, 0, 100_000)
    assert process.stdout is not None
    reported = [process.stdout.readline().strip() for _ in range(30)][1:]
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate(timeout=60)
    reported += [name for name in rest.split() if len(name) == 24]
    catalog = open_catalog(own_url, "main")
    found = catalog.files.copies_of(reported)
    assert {name: set(found[SYSTEM_IDENTIFIER, name]) for name in reported} == {key: {"r2", "b2"} for key in reported}
    totals = catalog.files.totals()
    assert {total.files for total in totals} == {catalog.files.count()}
    catalog.values.put("alive", True)
    catalog.close()


def test_sqlite_file_survives_a_power_failure(tmp_path: Path) -> None:
    """Each connection waits for others, writes through to the disk, and reads beside a writer."""
    catalog = open_catalog(f"sqlite:///{tmp_path}/catalog.sqlite", "main")
    with catalog.database.read() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "busy_timeout", "foreign_keys")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "busy_timeout": 30_000, "foreign_keys": 1}
    with sqlite3.connect(tmp_path / "catalog.sqlite") as raw:
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    raw.close()
    catalog.close()
