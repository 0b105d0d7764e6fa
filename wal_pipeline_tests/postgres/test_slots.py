"""A slot is made, looked at and dropped, and never one that is another's, on PostgreSQL 18 and 15."""

from collections.abc import Iterator

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall
from testbed.processes import ChildProcess
from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.server import PostgresServer
from wal_pipeline.postgres.slots import SlotError, Slots, SlotTrouble
from wal_pipeline_tests.support.open_wal_scene import write_wal
from wal_pipeline_tests.support.received_scene import SLOT, ReceivedScene

pytestmark = pytest.mark.integration
SMALL = {"min_wal_size": "2MB", "max_wal_size": "4MB", "wal_level": "logical"}


@pytest.fixture(scope="module")
def cluster(postgres_version: PostgresInstall) -> Iterator[PostgresCluster]:
    """A running cluster with little WAL, which can have logical slots."""
    running = PostgresCluster(postgres_version, settings=SMALL).initdb(wal_segment_size_mb=1).start()
    yield running
    running.remove()


@pytest.fixture
def slots(cluster: PostgresCluster) -> Iterator[Slots]:
    """The server's slots, none at first."""
    yield Slots(PostgresServer(cluster.conninfo))
    cluster.psql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
    cluster.psql("ALTER SYSTEM RESET max_slot_wal_keep_size; SELECT pg_reload_conf()")


def trouble_of(error: pytest.ExceptionInfo[SlotError]) -> tuple[SlotTrouble, str]:
    return error.value.trouble, error.value.message


def test_a_slot_is_made_and_holds_back_what_is_written_then(cluster: PostgresCluster, slots: Slots) -> None:
    """Its state says how much, for an alert."""
    assert slots.state(SLOT) is None
    made = slots.make(SLOT)
    assert (made.slot_type, made.active, made.wal_status, made.is_lost) == ("physical", False, "reserved", False)
    write_wal(cluster, 500)
    now = slots.check(SLOT)
    assert (now.held_bytes or 0) >= (made.held_bytes or 0) + 500_000
    assert (now.safe_wal_size_bytes, slots.limit_bytes()) == (None, None)


def test_a_limit_is_seen(cluster: PostgresCluster, slots: Slots) -> None:
    """``safe_wal_size_bytes`` is what may still be written before the slot is lost."""
    cluster.psql("ALTER SYSTEM SET max_slot_wal_keep_size = '64MB'")
    cluster.psql("SELECT pg_reload_conf()")
    cluster.process.wait_until(lambda: slots.limit_bytes() == 64 * 2**20, timeout_seconds=30)
    assert 0 < (slots.make(SLOT).safe_wal_size_bytes or 0) <= 70 * 2**20


def test_a_slot_that_is_gone_has_a_way_out(slots: Slots) -> None:
    """Somebody dropped it, or the server is another after a failover."""
    with pytest.raises(SlotError) as error:
        slots.check(SLOT)
    assert trouble_of(error) == (SlotTrouble.GONE, f"the server has no slot '{SLOT}'")
    assert "wal-pipeline slot make" in str(error.value.hint)


def test_a_slot_that_is_lost_has_a_way_out(cluster: PostgresCluster, slots: Slots) -> None:
    """The server removed what the slot was to keep: only a new slot helps."""
    cluster.psql("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
    cluster.psql("SELECT pg_reload_conf()")
    slots.make(SLOT)
    for _ in range(12):
        write_wal(cluster, 1000)
        cluster.psql("CHECKPOINT")
    with pytest.raises(SlotError) as error:
        slots.check(SLOT)
    assert error.value.trouble is SlotTrouble.LOST
    assert f"slot '{SLOT}' is lost" in error.value.message
    assert "max_slot_wal_keep_size. Type 'wal-pipeline slot drop'" in str(error.value.hint)
    slots.drop(SLOT, is_ours=True)
    assert slots.make(SLOT).wal_status == "reserved"


def test_a_logical_slot_is_not_taken_and_not_dropped(cluster: PostgresCluster, slots: Slots) -> None:
    """It belongs to a subscription or to another program."""
    cluster.psql(f"SELECT pg_create_logical_replication_slot('{SLOT}', 'pgoutput') \\gset")
    said = (SlotTrouble.LOGICAL, f"slot '{SLOT}' is a logical one, which belongs to somebody else")
    for act in (slots.check, slots.make, lambda name: slots.drop(name, is_ours=True)):
        with pytest.raises(SlotError) as error:
            act(SLOT)
        assert trouble_of(error) == said
    assert slots.state(SLOT) is not None


def test_a_slot_of_that_name_is_not_made_twice(slots: Slots) -> None:
    """It may be a standby's."""
    slots.make(SLOT)
    with pytest.raises(SlotError, match=f"the server has a slot '{SLOT}' already, at ") as error:
        slots.make(SLOT)
    assert error.value.trouble is SlotTrouble.TAKEN


def test_a_slot_that_we_did_not_make_is_not_dropped(slots: Slots) -> None:
    """The line to type is there for who knows better."""
    slots.make(SLOT)
    with pytest.raises(SlotError, match="was not made by 'wal-pipeline slot make' on this host") as error:
        slots.drop(SLOT, is_ours=False)
    assert f"SELECT pg_drop_replication_slot('{SLOT}');" in str(error.value.hint)
    assert slots.state(SLOT) is not None


def test_an_active_slot_is_neither_dropped_nor_shared(cluster: PostgresCluster, slots: Slots) -> None:
    """One that another program uses is refused; our own pg_receivewal may come back to its slot."""
    slots.make(SLOT)
    scene = ReceivedScene(cluster)
    receiver = scene.receiver()
    receiver.start()
    cluster.process.wait_until(lambda: slots.check(SLOT).active, timeout_seconds=30)
    assert slots.check(SLOT).application_name == SLOT
    with pytest.raises(SlotError, match=rf"slot '{SLOT}' is in use by process \d+ \({SLOT}\): it is not dropped"):
        slots.drop(SLOT, is_ours=True)
    receiver.stop()
    cluster.process.wait_until(lambda: not slots.check(SLOT).active, timeout_seconds=30)
    other = cluster.conninfo + " application_name=another_standby"
    command = ["--slot", SLOT, "--directory", str(scene.folder), "--dbname", other]
    program = str(cluster.install.program("pg_receivewal"))
    child = ChildProcess("another", [program, *command], log=scene.root / "another.log")
    child.start()
    try:
        cluster.process.wait_until(lambda: (s := slots.state(SLOT)) is not None and s.active, timeout_seconds=30)
        with pytest.raises(SlotError, match=r"in use by another program: process \d+ \(another_standby\)"):
            slots.check(SLOT)
    finally:
        child.stop()
    cluster.process.wait_until(lambda: (s := slots.state(SLOT)) is not None and not s.active, timeout_seconds=30)
    scene.remove()


def test_a_role_without_replication_is_refused_with_the_reason(cluster: PostgresCluster, slots: Slots) -> None:
    """Making a slot needs REPLICATION; looking at it needs nothing."""
    cluster.psql("CREATE ROLE weak LOGIN")
    weak = Slots(PostgresServer(cluster.conninfo.replace("user=postgres", "user=weak")))
    assert weak.state(SLOT) is None
    with pytest.raises(PostgresError, match=r"permission denied|must be superuser or replication role"):
        weak.make(SLOT)
    slots.make(SLOT)
    assert weak.check(SLOT).wal_status == "reserved"
    cluster.psql("DROP ROLE weak")
