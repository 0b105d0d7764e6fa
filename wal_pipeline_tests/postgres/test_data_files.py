"""The walk finds what pg_basebackup sends, and leaves out what it leaves out."""

import os
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, owned_folder
from wal_pipeline.errors import BaseBackupError
from wal_pipeline.postgres.data_files import CONTROL_PATH, DataFile, SkippedEntries, walk_data_files
from wal_pipeline_tests.support.nobody import as_nobody

LEFT_OUT = (
    *("postmaster.pid", "postmaster.opts", "postgresql.auto.conf.tmp", "current_logfiles.tmp", ".DS_Store"),
    *("backup_label", "tablespace_map", "backup_manifest", "pg_internal.init", "pg_internal.init.123"),
    *("pgsql_tmp77.0", "base/5/pgsql_tmp12", "base/5/pg_internal.init", "global/pg_internal.init", "base/pgsql_tmp/f"),
    *("base/5/t3_16400", "base/5/t3_16400_fsm", "base/5/16500", "base/5/16500.1", "base/5/16500_fsm"),
    *("pg_wal/000000010000000000000001", "pg_wal/archive_status/x.ready", "pg_stat_tmp/f", "pg_replslot/slot/state"),
    *("pg_dynshmem/f", "pg_notify/0000", "pg_serial/0000", "pg_snapshots/f", "pg_subtrans/0000"),
    CONTROL_PATH,
)
KEPT = (
    *("PG_VERSION", "postgresql.conf", "current_logfiles", "base/5/16384", "base/5/16384.1", "base/5/16384_vm"),
    *("base/5/16500_init", "base/5/PG_VERSION", "base/5/t3_16400x", "global/1262", "global/pg_filenode.map"),
    *("pg_xact/0000", "pg_logical/replorigin_checkpoint", "a folder/with a file", "backup_label.old"),
    *("base/6/16500", "global/t3_16400", "pg_stat/pgstat.stat"),
)
EMPTY = ("pg_commit_ts", "pg_twophase", "base/7")


@pytest.fixture
def pgdata(tmp_path: Path) -> Path:
    """A data directory that has each kind of entry."""
    top = tmp_path / "pgdata"
    for name in (*KEPT, *LEFT_OUT):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(name)
    for name in (*EMPTY, "pg_tblspc"):
        (top / name).mkdir(parents=True)
    return top


def walked(pgdata: Path, major: int = 18, skipped: SkippedEntries | None = None) -> dict[str, DataFile]:
    found = list(walk_data_files(pgdata, major, skipped))
    by_path = {file.path: file for file in found}
    assert len(by_path) == len(found)
    return by_path


def test_what_a_restored_server_makes_anew_is_left_out(pgdata: Path) -> None:
    """All other files are there, each with its size, time and permissions."""
    (pgdata / "postgresql.conf").chmod(0o640)
    os.utime(pgdata / "postgresql.conf", ns=(0, 1_764_450_000_123_456_789))
    found = walked(pgdata)
    assert {path for path, file in found.items() if not file.is_folder} == set(KEPT)
    assert found["postgresql.conf"] == DataFile(
        "postgresql.conf", pgdata / "postgresql.conf", len("postgresql.conf"), 1_764_450_000_123_456_789, 0o640
    )


def test_folders_are_kept_also_empty(pgdata: Path) -> None:
    """The server needs some of them in order to start. PostgreSQL 17 has one more below pg_wal."""
    found = {major: {path for path, file in walked(pgdata, major).items() if file.is_folder} for major in (16, 17)}
    emptied = {"pg_stat_tmp", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_subtrans"}
    assert found[16] >= {*EMPTY, *emptied, "pg_tblspc", "pg_wal", "pg_wal/archive_status", "base/5", "a folder"}
    assert found[17] - found[16] == {"pg_wal/summaries"}
    assert not [path for path in found[17] if "pgsql_tmp" in path or path == "pg_replslot/slot"]


def test_folders_are_told_before_what_lies_in_them(pgdata: Path) -> None:
    """Whoever makes them in this order needs no second look."""
    seen = {""}
    for file in walk_data_files(pgdata, 18):
        assert file.path.rpartition("/")[0] in seen
        seen |= {file.path} if file.is_folder else set()


def test_files_of_pages_and_databases_are_known(pgdata: Path) -> None:
    """Only relations have pages, and only in the folders of databases and in ``global``."""
    (pgdata / "pg_xact" / "16384").touch()
    found = walked(pgdata)
    pages = {path for path, file in found.items() if file.relation}
    assert pages == {
        *("base/5/16384", "base/5/16384.1", "base/5/16384_vm", "base/5/16500_init", "base/6/16500", "global/1262")
    }
    databases = {path: file.database for path, file in found.items() if file.database is not None}
    assert databases == {
        path: int(path.split("/")[1]) for path in found if path.startswith(("base/5", "base/6", "base/7"))
    }


def test_a_link_or_special_file_is_told_and_never_followed(pgdata: Path, tmp_path: Path) -> None:
    """What the cluster needs is lost, other things are warnings, and sockets are the server's own."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "16384").touch()
    for name in ("base/16385", "pg_xact/0001", "pg_hba.conf", "global/1213"):
        (pgdata / name).symlink_to(tmp_path / "elsewhere")
    os.mkfifo(pgdata / "a pipe")
    with socket.socket(socket.AF_UNIX) as own:
        own.bind(str(pgdata / ".s.PGSQL.5432"))
        skipped = SkippedEntries()
        found = walked(pgdata, skipped=skipped)
    assert sorted(skipped.lost) == ["base/16385", "global/1213", "pg_xact/0001"]
    assert sorted(skipped.warnings) == ['skipping special file "./a pipe"', 'skipping special file "./pg_hba.conf"']
    assert not [path for path in found if "16385" in path or path in ("pg_hba.conf", "a pipe", ".s.PGSQL.5432")]


@pytest.mark.parametrize(("mode", "expected"), [(0o700, 0o700), (0o750, 0o750)])
def test_a_link_that_postgresql_follows_becomes_a_folder(
    pgdata: Path, tmp_path: Path, mode: int, expected: int
) -> None:
    """The WAL or the statistics may lie on another disk; with the permissions of a folder of this cluster."""
    pgdata.chmod(mode)
    for name in ("pg_wal", "pg_stat_tmp"):
        shutil.rmtree(pgdata / name)
        (tmp_path / name).mkdir(mode=0o777)
        (tmp_path / name / "file").touch()
        (pgdata / name).symlink_to(tmp_path / name)
    skipped = SkippedEntries()
    found = walked(pgdata, skipped=skipped)
    modes = {path: file.mode for path, file in found.items() if path.startswith(("pg_wal", "pg_stat_tmp"))}
    paths = ("pg_wal", "pg_wal/archive_status", "pg_wal/summaries", "pg_stat_tmp")
    assert modes == dict.fromkeys(paths, expected)
    assert all(found[path].is_folder for path in paths)
    assert skipped == SkippedEntries()


def test_what_vanishes_during_the_walk_is_no_error(pgdata: Path) -> None:
    """A table or a database is dropped, or a tablespace."""
    seen = []
    for file in walk_data_files(pgdata, 18):
        seen.append(file.path)
        if file.path == "base":
            (pgdata / "base" / "5" / "16384").unlink()
        if file.path == "base/6":
            shutil.rmtree(pgdata / "base" / "6")
    assert "base/5/16384" not in seen
    assert "base/6/16500" not in seen
    assert "pg_xact/0000" in seen


def test_a_folder_that_cannot_be_read_ends_the_base_backup(pgdata: Path) -> None:
    """Nobody may take the rest for the whole."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    for folder in (pgdata, *pgdata.parents):
        folder.chmod(folder.stat().st_mode | stat.S_IROTH | stat.S_IXOTH)
    (pgdata / "pg_multixact").mkdir(mode=0o700)
    told = as_nobody(lambda: list(walk_data_files(pgdata, 18)))
    assert told.startswith(f"'{pgdata / 'pg_multixact'}' cannot be read: Permission denied")
    assert "run it as PostgreSQL's user" in told


def test_the_file_systems_own_folder_is_left_out(pgdata: Path) -> None:
    """The data directory may be a mount point. Elsewhere, or of another user, it is the cluster's."""
    for folder in (pgdata, pgdata / "base"):
        (folder / "lost+found").mkdir(mode=0o700)
    assert (pgdata / "lost+found").stat().st_uid == 0 or os.geteuid() != 0
    assert {path for path in walked(pgdata) if "lost" in path} == (
        {"base/lost+found"} if os.geteuid() == 0 else {"base/lost+found", "lost+found"}
    )


def test_a_data_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """It is not an empty one."""
    with pytest.raises(BaseBackupError) as error:
        list(walk_data_files(tmp_path / "none", 18))
    assert error.value.message == f"'{tmp_path / 'none'}' cannot be read: No such file or directory"


def test_a_name_that_is_not_utf8_is_kept(pgdata: Path) -> None:
    """With Python's surrogate escapes, so that its bytes are the same again."""
    name = os.fsdecode(b"caf\xe9")
    (pgdata / name).touch()
    assert name in walked(pgdata)


@pytest.fixture(scope="module")
def cluster(postgres_version: PostgresInstall) -> Iterator[PostgresCluster]:
    """A running cluster with all that a base backup leaves out, and with tablespaces of all kinds."""
    settings = {"allow_in_place_tablespaces": "on", "autovacuum": "off", "temp_file_limit": "-1"}
    running = PostgresCluster(postgres_version, settings=settings).initdb().start()
    running.make_tablespace("fast")
    running.make_tablespace("bare")
    (running.pgdata / "inside").mkdir(mode=0o700)
    shutil.chown(running.pgdata / "inside", running.pgdata.stat().st_uid, running.pgdata.stat().st_gid)
    running.psql(f"CREATE TABLESPACE inside LOCATION '{running.pgdata}/inside'; CREATE TABLESPACE in_place LOCATION ''")
    for space in ("pg_default", "fast", "inside", "in_place"):
        running.psql(
            f"CREATE TABLE of_{space} TABLESPACE {space} AS SELECT generate_series(1, 9999) AS i;"
            f"CREATE UNLOGGED TABLE fleeting_{space} (i int PRIMARY KEY USING INDEX TABLESPACE {space}, t text) "
            f"TABLESPACE {space}; INSERT INTO fleeting_{space} SELECT generate_series(1, 999), 'text'; "
            f"VACUUM of_{space}, fleeting_{space}"
        )
    running.psql("CREATE DATABASE other TABLESPACE fast; SELECT pg_create_physical_replication_slot('kept', true)")
    for name in (*LEFT_OUT, "of our own", "log/today.log", "pg_stat_tmp/x", "base/5/pgsql_tmp99"):
        if name != CONTROL_PATH and not name.startswith(("base/5/1", "pg_wal/", "pg_replslot/", "pg_snapshots/")):
            path = running.pgdata / name
            path.parent.mkdir(exist_ok=True)
            if not path.exists():
                path.write_text(name)
    yield running
    running.remove()


def copied_by_pg_basebackup(cluster: PostgresCluster) -> Path:
    """Return a folder into which PostgreSQL's own program copied the cluster with its tablespaces."""
    target = owned_folder("copied")
    mapped = []
    query = "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE pg_tablespace_location(oid) LIKE '/%'"
    for number, location in enumerate(cluster.psql(query).splitlines()):
        mapped.append(f"--tablespace-mapping={location}={target}/space{number}")
    options = ["--format=plain", "--wal-method=none", "--checkpoint=fast", *mapped]
    cluster.run("pg_basebackup", f"--pgdata={target}/pgdata", *options)
    return target / "pgdata"


def entries_of(top: Path) -> dict[str, tuple[int, bytes | None]]:
    """Return the permissions and bytes of all files and folders, through the links of tablespaces."""
    found: dict[str, tuple[int, bytes | None]] = {}
    for folder, folders, files in os.walk(top, followlinks=True):
        for name in (*folders, *files):
            path = Path(folder) / name
            mode = stat.S_IMODE(path.stat().st_mode)
            found[str(path.relative_to(top))] = (mode, None if path.is_dir() else path.read_bytes())
    return found


@pytest.mark.integration
@pytest.mark.each_version
def test_the_walk_finds_what_pg_basebackup_sends(cluster: PostgresCluster) -> None:
    """The same names, permissions and bytes, while a session has temporary files."""
    with cluster.connect() as session:
        session.execute("CREATE TEMP TABLE for_a_while AS SELECT generate_series(1, 9999) AS i")
        session.execute("CHECKPOINT")
        copied = entries_of(copied_by_pg_basebackup(cluster))
        skipped = SkippedEntries()
        found = walked(cluster.pgdata, cluster.install.version, skipped)
    ours = {path: (file.mode, None if file.is_folder else file.source.read_bytes()) for path, file in found.items()}
    control = {CONTROL_PATH, "backup_label", "backup_manifest", "tablespace_map"}
    spaces = {path for path in copied if path.startswith("pg_tblspc/") and path.count("/") == 1}
    assert len(spaces) == 4
    assert sorted(copied.keys() - ours.keys() - spaces) == sorted(control & copied.keys())
    assert sorted(ours.keys() - copied.keys()) == []
    different = {path for path in ours if ours[path] != copied[path]}
    assert different == set()
    assert skipped == SkippedEntries()
    assert len([path for path in ours if path.endswith("_init")]) >= 8
