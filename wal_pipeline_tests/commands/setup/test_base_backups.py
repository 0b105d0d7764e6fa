"""Setup and check name what would end the first base backup, or leave something out of it."""

from dataclasses import replace
from pathlib import Path

import pytest

from testbed.postgres import PostgresCluster
from wal_pipeline.commands.setup.base_backups import BackupLook, judge_data_directory, judge_method, judge_stores
from wal_pipeline.commands.setup.findings import Finding, Level
from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.backup_server import BackupServer, ServerTablespace
from wal_pipeline.postgres.own_data_directory import LocalReading
from wal_pipeline.stores.local.store import LocalFolderStore
from wal_pipeline_tests.support.base_backup_scene import folder_store
from wal_pipeline_tests.support.server_facts import GOOD

SPACES = (ServerTablespace(16384, "/srv/fast"),)


class KnownServer(BackupServer):
    """A server that says what a test wants it to say of its tablespaces."""

    def __init__(self, size_bytes: int | None, spaces: tuple[ServerTablespace, ...] | None = SPACES) -> None:
        super().__init__("")
        self._size_bytes = size_bytes
        self._spaces = spaces

    def tablespaces(self) -> tuple[ServerTablespace, ...]:
        if self._spaces is None:
            raise PostgresError("the role may not see them")
        return self._spaces

    def size_bytes(self) -> int | None:
        return self._size_bytes


@pytest.fixture
def pgdata(tmp_path: Path) -> Path:
    """A data directory with a few entries."""
    for name in ("base/5", "global", "pg_wal"):
        (tmp_path / "pgdata" / name).mkdir(parents=True)
    return tmp_path / "pgdata"


def judged(pgdata: Path) -> list[tuple[Level, str]]:
    facts = replace(GOOD, data_directory=str(pgdata))
    return [(found.status, found.message) for found in judge_data_directory(pgdata, facts)]


def test_a_data_directory_that_is_whole_is_good(pgdata: Path, tmp_path: Path) -> None:
    """A linked pg_wal is followed by PostgreSQL itself."""
    (pgdata / "pg_wal").rmdir()
    (pgdata / "pg_wal").symlink_to(tmp_path)
    assert judged(pgdata) == [(Level.OK, "a base backup has all that lies in it")]


def test_a_linked_database_is_told_before_the_first_base_backup(pgdata: Path, tmp_path: Path) -> None:
    """It is a problem; a linked configuration file is a warning."""
    (pgdata / "base" / "16384").symlink_to(tmp_path)
    (pgdata / "pg_hba.conf").symlink_to(tmp_path / "pg_hba.conf")
    assert judged(pgdata) == [
        (
            Level.PROBLEM,
            "'base/16384' is a symbolic link: base backups lack what it points to, and so are refused",
        ),
        (
            Level.WARNING,
            "'pg_hba.conf' is a symbolic link: no base backup has it, so a restored cluster lacks it",
        ),
    ]


def test_a_data_directory_that_is_not_here_is_not_called_good(tmp_path: Path) -> None:
    """Nothing was looked at, so nothing is said."""
    assert judged(tmp_path / "elsewhere") == []


def spaces(server: BackupServer, folder: Path) -> list[Finding]:
    """Return the findings about tablespaces."""
    return list(BackupLook(server, None, folder).findings(replace(GOOD, data_directory=None)))


FACTS_WITHOUT = replace(GOOD, role=replace(GOOD.role, name="backup", replication=False))
REFUSED = LocalReading("the role 'backup' may not call pg_backup_start", "GRANT EXECUTE ON FUNCTION …;")


def test_files_that_can_be_read_are_good() -> None:
    """Then nobody needs the right to replication."""
    found = judge_method(LocalReading(), FACTS_WITHOUT)
    assert (found.name, found.status, found.lines) == ("base backups", Level.OK, ())


def test_a_base_backup_in_one_stream_is_a_warning_with_the_grant() -> None:
    """It works, and takes longer than it needs to."""
    found = judge_method(REFUSED, GOOD)
    assert (found.status, found.lines) == (Level.WARNING, ("GRANT EXECUTE ON FUNCTION …;",))
    assert found.message == (
        "they come in one stream from pg_basebackup: the role 'backup' may not call pg_backup_start"
    )


def test_a_role_that_may_do_neither_is_a_problem() -> None:
    """Both ways out are told."""
    found = judge_method(REFUSED, FACTS_WITHOUT)
    assert found.status is Level.PROBLEM
    assert found.message == (
        "they cannot be taken: the role 'backup' may not call pg_backup_start; and role 'backup' lacks REPLICATION, "
        "which pg_basebackup needs"
    )
    assert found.lines == (
        "GRANT EXECUTE ON FUNCTION …;",
        'or let it use pg_basebackup: ALTER ROLE "backup" REPLICATION;',
    )


@pytest.mark.integration
def test_a_running_server_is_asked(shared_cluster18: PostgresCluster, tmp_path: Path) -> None:
    """Files that are read need no room for staging; where settings forbid to read them, nothing is asked."""
    server = BackupServer(shared_cluster18.conninfo)
    looks = [BackupLook(server, shared_cluster18.pgdata, tmp_path, reads_files=reads) for reads in (True, False)]
    with_method, without = [[found.name for found in look.findings(server.facts())] for look in looks]
    assert with_method == ["data directory", "base backups"]
    assert without == ["data directory"]


@pytest.mark.integration
def test_incremental_base_backups_that_become_full_ones_are_told(
    shared_cluster18: PostgresCluster, tmp_path: Path
) -> None:
    """Only where they are scheduled and come through pg_basebackup: by files they need no WAL summaries."""
    server, pgdata = BackupServer(shared_cluster18.conninfo), shared_cluster18.pgdata
    facts = server.facts()
    *_, advice = BackupLook(server, pgdata, tmp_path, incremental=True).findings(facts)
    assert (advice.name, advice.status) == ("base backups", Level.WARNING)
    assert advice.message == (
        "incremental ones are scheduled, and each will be a full one: the server's 'summarize_wal' is 'off'"
    )
    assert advice.lines == ("ALTER SYSTEM SET summarize_wal = on;", "SELECT pg_reload_conf();")
    *_, by_files = BackupLook(server, pgdata, tmp_path, reads_files=True, incremental=True).findings(facts)
    assert by_files.status is Level.OK
    for other in (True, None):  # on, or a server before PostgreSQL 17
        found = BackupLook(server, pgdata, tmp_path, incremental=True).findings(replace(facts, summarize_wal=other))
        assert [one.name for one in found] == ["data directory"]


def test_a_server_that_does_not_answer_is_no_ground_for_a_claim(pgdata: Path, tmp_path: Path) -> None:
    """What could not be asked is a warning."""
    nowhere = BackupServer("host=127.0.0.1 port=1 user=nobody")
    found = BackupLook(nowhere, pgdata, tmp_path, reads_files=True).findings(replace(GOOD, data_directory=str(pgdata)))
    (method,) = [one for one in found if one.name == "base backups"]
    assert method.status is Level.WARNING
    assert "cannot connect to PostgreSQL" in method.message


def test_the_room_for_tablespaces_is_told_before_the_first_base_backup(tmp_path: Path) -> None:
    """Too little is a problem with its way out; a size that the server does not tell is not taken for enough."""
    folder = tmp_path / "state" / "staging"
    (enough,) = spaces(KnownServer(1 << 20), folder)
    assert enough.status is Level.OK
    assert enough.message.startswith(f"1 tablespace: base backups are staged in '{folder}', which needs 1.0 MiB of ")
    (short,) = spaces(KnownServer(1 << 60), folder)
    assert short.status is Level.PROBLEM
    assert short.lines == ("set WAL_PIPELINE_BASE_BACKUP_STAGING_FOLDER to a folder on a larger disk",)
    (unknown,) = spaces(KnownServer(None), folder)
    assert unknown.status is Level.WARNING
    assert "room for the whole cluster, whose size is not known" in unknown.message
    (unseen,) = spaces(KnownServer(None, None), folder)
    assert (unseen.status, unseen.message) == (Level.WARNING, "not known: the role may not see them")
    assert spaces(KnownServer(None, ()), folder) == []


def test_a_store_that_is_not_prepared_is_told(tmp_path: Path) -> None:
    """With the line that makes its folders."""
    (tmp_path / "bare").mkdir()
    bare = LocalFolderStore("bare", tmp_path / "bare")
    bad, good = judge_stores({"bare": bare, "local": folder_store("local", tmp_path)}, {})
    assert (bad.name, bad.status) == ("store bare", Level.PROBLEM)
    assert "mkdir -p" in bad.lines[0]
    assert (good.name, good.status, good.message) == ("store local", Level.OK, "it answers")


def test_a_store_whose_settings_are_missing_is_not_passed_over() -> None:
    """It was not asked, so archiving is not set up."""
    [found] = judge_stores({}, {"r2": ["R2_BUCKET_NAME", "R2_ACCESS_KEY_ID"], "b2": []})
    assert (found.name, found.status) == ("store r2", Level.PROBLEM)
    assert found.message == "not asked: R2_BUCKET_NAME, R2_ACCESS_KEY_ID not set"
