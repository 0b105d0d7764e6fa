"""Setup on real servers: what it changes, what needs a restart, and the proof."""

import os
import re
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall
from wal_pipeline.commands.setup.plan import WantedArchiving
from wal_pipeline.commands.setup.proof import ArchivingProver
from wal_pipeline.commands.setup.setup import apply_setup, look_at_archiving
from wal_pipeline.commands.setup.spool import look_at_spool_access
from wal_pipeline.errors import PostgresError, SpoolError
from wal_pipeline.postgres.archive_command import durable_archive_command
from wal_pipeline.postgres.server import AlterableSetting, PostgresServer, SettingChange
from wal_pipeline.postgres.server_facts import archiver_trouble

pytestmark = pytest.mark.integration
MakeCluster = Callable[..., PostgresCluster]


def prover(server: PostgresServer, spool: Path, stored: set[str], **options: object) -> ArchivingProver:
    """A proof with one store, ``b2``, that takes everything from the spool when it is asked to."""

    def archive_now() -> None:
        stored.update(path.name for path in spool.iterdir())

    return ArchivingProver(
        server,
        spool,
        lambda name: {"b2": name in stored},
        archive_now,
        wait_seconds=20,
        **options,  # type: ignore[arg-type]
    )


def test_from_nothing_to_proved(
    postgres_version: PostgresInstall, make_cluster: MakeCluster, postgres_folder: Path
) -> None:
    """A fresh server is set up, asks for a restart, is proved after it, and a third call changes nothing."""
    spool = postgres_folder / "spool with space"
    cluster = make_cluster(postgres_version, wal_segment_size_mb=1).start()
    server, wanted, stored = PostgresServer(cluster.conninfo), WantedArchiving(spool), set[str]()
    prove = prover(server, spool, stored).prove

    first = apply_setup(server, wanted, prove)
    assert (first.made_spool, first.proof, first.ok) == (True, None, False)
    assert spool.stat().st_mode & 0o777 == 0o700
    assert spool.stat().st_uid == cluster.pgdata.stat().st_uid
    assert [change.line for change in first.applied] == [
        "ALTER SYSTEM SET archive_mode = 'on';",
        f"ALTER SYSTEM SET basic_archive.archive_directory = '{spool}';",
        "ALTER SYSTEM SET archive_command = '';",
        "ALTER SYSTEM SET archive_library = 'basic_archive';",
        "ALTER SYSTEM SET archive_timeout = '300';",
    ]
    assert first.after.restart_line == f"pg_ctl restart -m fast -D {cluster.pgdata}"
    assert [problem.name for problem in first.after.problems] == ["archive_mode"]
    assert apply_setup(server, wanted, prove).applied == ()

    cluster.restart()
    second = apply_setup(server, wanted, prove)
    assert (second.applied, second.made_spool, second.ok) == ((), False, True)
    assert second.proof is not None
    assert second.proof.segment in stored
    assert (spool / second.proof.segment).stat().st_size == 2**20
    assert set(second.proof.copies) == {"b2"}


def test_no_library(postgres_version: PostgresInstall, make_cluster: MakeCluster, postgres_folder: Path) -> None:
    """The durable line archives on a real server, also into a folder whose name has a space and a percent sign."""
    spool = postgres_folder / "100% spool"
    spool.mkdir()
    os.chown(spool, postgres_folder.stat().st_uid, postgres_folder.stat().st_gid)
    cluster = make_cluster(postgres_version, wal_segment_size_mb=1, settings={"archive_mode": "on"}).start()
    server = PostgresServer(cluster.conninfo)
    server.alter_system((SettingChange(AlterableSetting.ARCHIVE_COMMAND, durable_archive_command(spool)),))
    server.reload()
    proof = prover(server, spool, set()).prove()
    assert proof.ok, proof.message
    assert (
        look_at_archiving(server, WantedArchiving(spool)).findings[3].message
        == f"archive_command writes durably into '{spool}'"
    )


def test_both_set(postgres18: PostgresInstall, make_cluster: MakeCluster, postgres_folder: Path) -> None:
    """A server whose archiver does not start, because both settings are set, is mended without a restart."""
    cluster = make_cluster(postgres18, wal_segment_size_mb=1, settings={"archive_mode": "on"}).start()
    server = PostgresServer(cluster.conninfo)
    server.alter_system(
        (
            SettingChange(AlterableSetting.ARCHIVE_COMMAND, "true"),
            SettingChange(AlterableSetting.ARCHIVE_LIBRARY, "basic_archive"),
        )
    )
    server.reload()
    cluster.process.wait_until(lambda: server.facts().archiver.running is False)
    archiver = server.facts().archiver
    assert (archiver.failed_count, archiver_trouble(archiver)) == (
        0,
        "the archiver process does not run; the server's log says why",
    )
    report = apply_setup(server, WantedArchiving(postgres_folder), prover(server, postgres_folder, set()).prove)
    assert report.ok, report
    assert report.before.problems[0].message.startswith("archive_library and archive_command are both set")


def test_archiving_fails(postgres18: PostgresInstall, make_cluster: MakeCluster, postgres_folder: Path) -> None:
    """Where PostgreSQL fails to archive, the proof says what pg_stat_archiver says."""
    settings = {"archive_mode": "on", "archive_command": "exit 3"}
    cluster = make_cluster(postgres18, wal_segment_size_mb=1, settings=settings).start()
    server = PostgresServer(cluster.conninfo)

    def sleep_until_failed(_seconds: float) -> None:
        cluster.process.wait_until(lambda: server.facts().archiver.failed_count > 0)

    clock = count(0.0, 30.0)  # the time is up at the look after the first sleep
    proof = ArchivingProver(
        server, postgres_folder, lambda _name: {}, sleep=sleep_until_failed, monotonic=lambda: next(clock)
    ).prove()
    assert (proof.ok, proof.archived_seconds) == (False, None)
    assert re.fullmatch(
        rf"segment '{proof.segment}' did not come into the spool within 60 s: the last try to archive "
        r"'0{7}10{8}[0-9A-F]{8}' failed at \S+ \S+ \(\d+ failures so far\); the server's log says why",
        proof.message,
    )


def test_a_store_without_the_copy(
    shared_archiving: tuple[PostgresServer, Path],
) -> None:
    """A segment that reached one store and not the other is not proved, and the missing store is named."""
    server, spool = shared_archiving

    def sleep_until_archived(seconds: float) -> None:
        if not list(spool.iterdir()):
            time.sleep(seconds)

    clock = count(0.0)
    proof = ArchivingProver(
        server,
        spool,
        lambda _name: {"r2": False, "b2": True},
        sleep=sleep_until_archived,
        monotonic=lambda: next(clock),
    ).prove()
    assert (proof.ok, proof.missing, set(proof.copies)) == (False, ("r2",), {"b2"})
    assert proof.message == f"segment '{proof.segment}' is in the spool, but after 60 s not on r2"


def test_a_segment_that_others_took(shared_archiving: tuple[PostgresServer, Path]) -> None:
    """A pipeline that empties the spool before we look does not spoil the proof: PostgreSQL is asked too."""
    server, spool = shared_archiving
    elsewhere = spool / "never there"
    proof = ArchivingProver(server, elsewhere, lambda _name: {"b2": True}, wait_seconds=20).prove()
    assert proof.ok, proof.message


@pytest.fixture
def shared_archiving(
    postgres18: PostgresInstall, make_cluster: MakeCluster, postgres_folder: Path
) -> tuple[PostgresServer, Path]:
    """A server that archives by basic_archive."""
    settings = {
        "archive_mode": "on",
        "archive_library": "basic_archive",
        "basic_archive.archive_directory": str(postgres_folder),
    }
    cluster = make_cluster(postgres18, wal_segment_size_mb=1, settings=settings).start()
    return PostgresServer(cluster.conninfo), postgres_folder


def test_a_spool_that_the_server_cannot_write(shared_cluster18: PostgresCluster) -> None:
    """The server's own refusal is the finding. Nobody makes files in /proc, not even root."""
    server = PostgresServer(shared_cluster18.conninfo)
    problems = {problem.name: problem for problem in look_at_archiving(server, WantedArchiving(Path("/proc"))).problems}
    if os.geteuid() == 0:
        message = problems["spool: server writes"].message
        assert re.fullmatch(
            r'PostgreSQL answered: could not open file "/proc/\.wal-pipeline-probe\.[0-9a-f]{16}" for writing: .*',
            message,
        )
    else:
        assert "cannot remove files from '/proc'" in problems["spool"].message


def test_looking_leaves_no_trace(shared_cluster18: PostgresCluster, postgres_folder: Path) -> None:
    """The probe that the server writes is removed, and tells who the server is."""
    server = PostgresServer(shared_cluster18.conninfo)
    access = look_at_spool_access(postgres_folder, server, server.facts())
    assert access.server_uid == shared_cluster18.pgdata.stat().st_uid
    assert (access.server_writes, access.files_readable, access.we_can_remove) == ("yes", "yes", True)
    assert list(postgres_folder.iterdir()) == []


def test_the_folder_above_is_missing(shared_cluster18: PostgresCluster, postgres_folder: Path) -> None:
    """A spool that cannot be made is an error before anything is changed on the server."""
    spool = postgres_folder / "no" / "spool"
    server = PostgresServer(shared_cluster18.conninfo)
    with pytest.raises(SpoolError) as caught:
        apply_setup(server, WantedArchiving(spool))
    assert caught.value.message == f"spool '{spool}' cannot be made: No such file or directory"
    assert server.facts().file_settings.get("archive_library") is None


def test_a_role_that_may_not(shared_cluster18: PostgresCluster, postgres_folder: Path) -> None:
    """A role without rights gets the refused statement, and nothing is changed."""
    shared_cluster18.psql("DROP ROLE IF EXISTS no_setup; CREATE ROLE no_setup LOGIN")
    server = PostgresServer(shared_cluster18.conninfo.replace("user=postgres", "user=no_setup"))
    with pytest.raises(PostgresError) as caught:
        apply_setup(server, WantedArchiving(postgres_folder))
    assert caught.value.message.startswith("PostgreSQL refused")
    assert PostgresServer(shared_cluster18.conninfo).facts().file_settings.get("archive_mode") is None
