"""Tests that a standby is not made of a server that it could not follow, by a real server's answers."""

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, owned_folder
from wal_pipeline.commands.restore.prepare import PreparedRestore
from wal_pipeline.commands.restore.standby.primary import look_at_primary
from wal_pipeline.commands.restore.standby.request import StandbyRequest
from wal_pipeline_tests.support.prepared_standby import prepare_standby

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def primary(postgres18: PostgresInstall) -> Iterator[PostgresCluster]:
    """A server that has finished its segments 1 to 3."""
    with PostgresCluster(postgres18).initdb() as cluster:
        for _ in range(3):
            cluster.switch_wal()
        cluster.psql("SELECT pg_create_physical_replication_slot('there', true)")
        yield cluster
    cluster.remove()


def prepared(
    primary: PostgresCluster, *, conninfo: str | None = None, slot: str = "", last: int = 3
) -> PreparedRestore:
    """Return a restore of a standby of the server."""
    standby = StandbyRequest(primary.conninfo if conninfo is None else conninfo, slot)
    identifier = int(primary.system_identifier)
    return prepare_standby(primary.install, standby, system_identifier=identifier, last=last)


def test_the_right_primary_is_named_with_its_place(primary: PostgresCluster) -> None:
    """With its slot there is nothing to be done."""
    found = look_at_primary(prepared(primary, slot="there"))
    assert found.refusals == ()
    (note,) = found.notes
    assert note.startswith(f"the primary at 127.0.0.1, port {primary.port} answers, on timeline 1, at 0/4")


def test_a_slot_that_is_not_there_is_told(primary: PostgresCluster) -> None:
    """With the statement that makes it; it can be made later too."""
    found = look_at_primary(prepared(primary, slot="missing"))
    assert found.refusals == ()
    assert "SELECT pg_create_physical_replication_slot('missing', true)" in found.notes[-1]


def test_another_cluster_is_refused(primary: PostgresCluster) -> None:
    """Its WAL does not continue what the stores have."""
    wrong = prepare_standby(primary.install, StandbyRequest(primary.conninfo), system_identifier=7)
    (refusal,) = look_at_primary(wrong).refusals
    assert refusal.message == (
        f"the server at 127.0.0.1, port {primary.port} has system identifier {primary.system_identifier}, expected 7"
    )


def test_a_server_behind_its_own_archive_is_refused(primary: PostgresCluster) -> None:
    """It is an older copy of the one that wrote this WAL: a standby could not follow it."""
    (refusal,) = look_at_primary(prepared(primary, last=5)).refusals
    assert "and the stores have its timeline 1 up to 0/6000000: it is not the server that wrote" in refusal.message


def test_a_server_on_an_older_timeline_is_refused(primary: PostgresCluster) -> None:
    """The standby would follow the newer one through the stores."""
    made = prepared(primary)
    (refusal,) = look_at_primary(replace(made, plan=replace(made.plan, timeline=2))).refusals
    assert "is on timeline 1, and the stores have timeline 2" in refusal.message
    assert "Then --timeline 1;" in (refusal.hint or "")


def test_a_server_of_another_version_is_refused(primary: PostgresCluster) -> None:
    """Its system identifier is that of the cluster before pg_upgrade, or a mistake."""
    made = prepared(primary)
    older = replace(made, binaries=replace(made.binaries, major=15))
    (refusal,) = look_at_primary(older).refusals
    assert refusal.message.endswith("is PostgreSQL 18, expected 15")


def test_a_primary_that_does_not_answer_is_no_fault(primary: PostgresCluster) -> None:
    """The standby goes on from the stores, and streams when it can; the password is in no word."""
    gone = "host=127.0.0.1 port=1 user=f password=s3cr3t-value"
    found = look_at_primary(prepared(primary, conninfo=gone))
    assert found.refusals == ()
    assert "the primary at 127.0.0.1, port 1 cannot be asked now" in found.notes[-1]
    assert "s3cr3t-value" not in str(found)


def test_without_a_primary_the_stores_are_followed(primary: PostgresCluster) -> None:
    """A person is told how far behind that is."""
    (note,) = look_at_primary(prepared(primary, conninfo="")).notes
    assert "as far behind as the last archived segment" in note


def test_a_silent_store_and_a_fixed_timeline_are_told(primary: PostgresCluster) -> None:
    """Neither keeps a standby from being made."""
    made = replace(prepared(primary), silent=("b2",))
    target = replace(made.request.target, timeline=1)
    notes = look_at_primary(replace(made, request=replace(made.request, target=target))).notes
    assert any(note.startswith("the standby stays on timeline 1") for note in notes)
    assert "b2 did not answer; the standby asks again while it follows" in notes


@pytest.mark.parametrize("mode", [0o644, 0o640])
def test_a_password_file_that_libpq_does_not_read_is_refused(primary: PostgresCluster, mode: int) -> None:
    """libpq ignores one that others may read, and the standby would never stream."""
    path = owned_folder("passfile") / "pass"
    path.write_text("*:*:*:*:x\n")
    path.chmod(mode)
    (refusal,) = look_at_primary(prepared(primary, conninfo=f"{primary.conninfo} passfile={path}")).refusals
    assert f"with mode {mode:04o}" in refusal.message


def test_a_password_file_of_the_servers_user_is_right(primary: PostgresCluster) -> None:
    """It must be there, too."""
    path = owned_folder("passfile") / "pass"
    path.write_text("*:*:*:*:x\n")
    path.chmod(0o600)
    made = prepared(primary, conninfo=f"{primary.conninfo} passfile={path}")
    os.chown(path, made.user.uid, made.user.gid)
    assert look_at_primary(made).refusals == ()
    path.unlink()
    (refusal,) = look_at_primary(made).refusals
    assert refusal.message == f"the password file '{path}' cannot be looked at: No such file or directory"


def test_another_servers_restore_is_not_looked_at(primary: PostgresCluster) -> None:
    """A restore that makes no standby asks no primary."""
    made = prepared(primary)
    found = look_at_primary(replace(made, request=replace(made.request, standby=None)))
    assert (found.notes, found.refusals) == ((), ())
