"""Real servers whose WAL has one name and two contents: two promotions, a copy that archives, another segment size."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.postgres_install import PostgresInstall, owned_folder
from wal_pipeline.archive.alerts import AlertKind
from wal_pipeline.archive.recovery.restore_plan import require_chosen_timeline
from wal_pipeline.archive.recovery.target import RecoveryTarget, TargetKind
from wal_pipeline.commands.archive_push.events import FileQuarantined, FileReleased, FileSkipped
from wal_pipeline.commands.health.facts import HealthFacts, look_at_everything
from wal_pipeline.commands.health.rules import HealthLimits, observe
from wal_pipeline.commands.rebuild_catalog import rebuild
from wal_pipeline.commands.setup.plan import WantedArchiving
from wal_pipeline.commands.setup.setup import look_at_archiving
from wal_pipeline.errors import BaseBackupError, RecoveryTargetError
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wiring.archive_push import archived_segment_bytes
from wal_pipeline.wiring.health import fact_sources
from wal_pipeline.wiring.pipeline import Pipeline
from wal_pipeline.wiring.verify import verifier
from wal_pipeline_tests.support.archive_scene import folder_store, names
from wal_pipeline_tests.support.two_hosts import Host


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A folder that stands for the store of all hosts, prepared."""
    folder = owned_folder("store")
    folder_store("local", folder)
    return folder


@pytest.fixture
def primary(postgres_version: PostgresInstall, store: Path) -> Iterator[Host]:
    """A running primary with one row and a base backup; its segments have 1 MiB."""
    host = Host.make(postgres_version, store)
    host.cluster.initdb(wal_segment_size_mb=1).start()
    host.cluster.psql("CREATE TABLE t (label text); INSERT INTO t VALUES ('P')")
    host.archive()
    host.back_up()
    yield host
    host.cluster.remove()


@pytest.fixture
def standbys(primary: Host) -> Iterator[tuple[Host, Host]]:
    """Two standbys of the primary, each with a spool and a catalog of its own."""
    made = tuple(Host.make(primary.cluster.install, primary.store) for _ in range(2))
    for one in made:
        one.standby_of(primary.cluster)
    yield made[0], made[1]
    for one in made:
        one.cluster.remove()


def look(pipeline: Pipeline) -> HealthFacts:
    """Look at everything, as the health sensor does."""
    return look_at_everything(fact_sources(pipeline))


def test_two_promotions_onto_one_timeline_make_no_unbroken_window(primary: Host, standbys: tuple[Host, Host]) -> None:
    """The second one's WAL stays in its spool; no window, plan or catalog joins the two."""
    one, other = standbys
    one.catch_up(primary.cluster)
    one.cluster.stop(mode="immediate")
    primary.write("before", times=2, rows=10_000)
    primary.archive()
    other.catch_up(primary.cluster)
    primary.cluster.stop()
    primary.archive()
    one.cluster.start()
    one.cluster.promote()
    other.cluster.promote()
    mine = one.write("A", times=2)
    assert "00000002.history" in names(one.archive(), FileReleased)
    one.cluster.stop()
    before = one.stored()
    theirs = other.write("B", times=8)

    events = other.archive()
    assert names(events, FileQuarantined) == ["00000002.history"]
    assert set(theirs) <= set(names(events, FileSkipped))
    assert {name for name in other.stored() - before if not name.endswith(".partial")} == set()
    assert set(theirs) <= {path.name for path in other.spool.iterdir()}

    rebuild([other.local], other.pipeline.catalog, "", "main")
    facts = look(other.pipeline)
    assert {window.last_segment for window in facts.windows.windows[None]} & set(theirs) == set()
    problems = observe(facts, HealthLimits())
    assert {one.subject for one in problems[AlertKind.QUARANTINE]} >= {"00000002.history"}
    plan = other.plan()
    assert plan.wal[-1].name == mine[-1]
    assert plan.window.timeline == 2


def test_a_copy_that_archives_is_not_followed_without_a_word(primary: Host) -> None:
    """Both ends stand in the plan, a restore asks which is meant, and an alert is open."""
    primary.write("P1", times=1)
    copy = Host.make(primary.cluster.install, primary.store, spool=primary.spool)
    copy.standby_of(primary.cluster)
    copy.catch_up(primary.cluster)
    try:
        copy.cluster.promote()
        copy.write("copy", times=3)
        last = primary.write("P2", times=2)[-1]
        at = primary.now()
        primary.write("P3", times=1)
        primary.archive()
        chosen = primary.plan()
        assert any(note.startswith("Timeline 1 goes on until") for note in chosen.notes)
        assert any(note.endswith("timeline 2 was chosen.") for note in chosen.notes)
        with pytest.raises(RecoveryTargetError, match="two servers archive side by side") as caught:
            require_chosen_timeline(chosen)
        assert "--timeline 1 or --timeline 2" in str(caught.value)
        assert last in {file.name for file in primary.plan(RecoveryTarget(timeline=1)).wal}
        assert any("imeline 1 goes on until" in note for note in primary.plan(RecoveryTarget(timeline=2)).notes)
        lsn = Lsn(primary.plan(RecoveryTarget(timeline=2)).window.latest_lsn - 9)
        assert primary.plan(RecoveryTarget(TargetKind.LSN, lsn=lsn)).rival is not None
        assert primary.plan(RecoveryTarget(TargetKind.TIME, at=at, timeline=1)).timeline == 1
        facts = look(primary.pipeline)
        assert [one.subject for one in observe(facts, HealthLimits())[AlertKind.OLDER_TIMELINE]] == ["timeline 1"]
        assert any("imeline 1 goes on until" in note for note in facts.windows.notes)
    finally:
        copy.cluster.remove()


def test_an_ordinary_failover_is_followed(primary: Host, standbys: tuple[Host, Host]) -> None:
    """The old server ended before the new timeline began, with commits that the standby never got."""
    standby, other = standbys
    other.cluster.stop()
    standby.catch_up(primary.cluster)
    standby.cluster.stop()
    primary.write("lost", times=2)
    primary.cluster.stop()
    primary.archive()
    (standby.cluster.pgdata / "standby.signal").touch()
    standby.cluster.start()
    standby.cluster.promote()
    last = standby.write("new", times=3)[-1]
    assert names(standby.archive(), FileSkipped) == []
    assert standby.plan().wal[-1].name == last
    facts = look(standby.pipeline)
    assert observe(facts, HealthLimits())[AlertKind.OLDER_TIMELINE] == []
    assert verifier(standby.pipeline).verify(share=1.0).breaks == ()


def test_pg_rewind_and_archiving_standbys_hold_nothing_back(postgres_version: PostgresInstall, store: Path) -> None:
    """Both archive with archive_mode=always; after a failover the old primary is rewound, and promoted in its turn."""
    primary, standby = (Host.make(postgres_version, store) for _ in range(2))
    for one in (primary, standby):
        one.cluster.settings |= {"archive_mode": "always", "wal_log_hints": "on", "wal_keep_size": "64MB"}
    try:
        primary.cluster.initdb(wal_segment_size_mb=1).start()
        primary.cluster.psql("CREATE TABLE t (label text)")
        primary.archive()
        primary.back_up()
        standby.standby_of(primary.cluster)
        primary.write("P", times=2)
        standby.catch_up(primary.cluster)
        events = [*primary.archive(), *standby.archive()]
        standby.cluster.stop(mode="immediate")
        primary.write("lost", times=1)
        primary.cluster.stop()
        standby.cluster.start()
        standby.cluster.promote()
        standby.write("S", times=2)
        standby.cluster.psql("CHECKPOINT")
        events += [*primary.archive(), *standby.archive()]
        source = f"--source-server={standby.cluster.conninfo}"
        primary.cluster.run("pg_rewind", f"--target-pgdata={primary.cluster.pgdata}", source)
        primary.follow(standby.cluster)
        primary.catch_up(standby.cluster)
        standby.cluster.stop()
        primary.cluster.promote()
        primary.write("again", times=2)
        events += [*standby.archive(), *primary.archive()]
        assert names(events, FileSkipped) == []
        assert names(events, FileQuarantined) == []
        assert primary.plan().timelines[-1] == 3
        facts = look(primary.pipeline)
        assert facts.windows.branches == ()
        assert observe(facts, HealthLimits())[AlertKind.OLDER_TIMELINE] == []
        assert verifier(primary.pipeline).verify(share=1.0).breaks == ()
    finally:
        primary.cluster.remove()
        standby.cluster.remove()


def test_another_segment_size_is_refused_and_nothing_is_lost(primary: Host) -> None:
    """Setup, base backup and archiving say the way out; what was archived before can be restored as before."""
    primary.write("before", times=5)
    at = primary.now()
    primary.write("after", times=1)
    primary.archive()
    before = primary.stored()
    primary.cluster.stop()
    primary.archive()
    primary.cluster.run("pg_resetwal", "--wal-segsize=4", str(primary.cluster.pgdata))
    primary.cluster.settings |= {"min_wal_size": "16MB", "max_wal_size": "64MB"}
    primary.cluster.start()
    made = primary.write("larger", times=3)

    pipeline = primary.pipeline
    wanted = WantedArchiving(primary.spool, archived_segment_bytes=archived_segment_bytes(pipeline))
    (found,) = [one for one in look_at_archiving(pipeline.server, wanted).problems if one.name == "wal_segment_size"]
    assert "WAL_PIPELINE_CLUSTER" in " ".join(found.mending)
    with pytest.raises(BaseBackupError, match="the server has segments of 4194304 bytes") as caught:
        primary.back_up()
    assert "WAL_PIPELINE_CLUSTER" in str(caught.value)
    events = primary.archive()
    assert names(events, FileQuarantined) == []
    assert set(made) <= set(names(events, FileSkipped))
    assert {name for name in primary.stored() - before if len(name) == 24} <= {
        name for name in before if len(name) == 24
    } | set()
    assert primary.plan(RecoveryTarget(TargetKind.TIME, at=at)).wal

    primary.environment["WAL_PIPELINE_CLUSTER"] = "larger"
    assert set(made) <= set(names(primary.archive(), FileReleased))
    primary.back_up()
    assert primary.plan().wal


@pytest.mark.parametrize("crashes", [3])
def test_a_server_that_crashes_goes_on_being_archived(primary: Host, crashes: int) -> None:
    """No joint of one server's WAL is taken for another's, also where records were given up."""
    for _ in range(crashes):
        primary.cluster.psql("SELECT pg_logical_emit_message(false, '', repeat('x', 700000))")
        primary.cluster.kill()
        primary.cluster.start()
        primary.write("again", times=2)
    events = primary.archive()
    assert names(events, FileSkipped) == []
    assert names(events, FileQuarantined) == []
    assert verifier(primary.pipeline).verify(share=1.0).breaks == ()


def test_a_server_that_was_set_back_is_not_joined(primary: Host) -> None:
    """A snapshot of the data folder is put back, and the server goes on without a new timeline."""
    primary.cluster.stop()
    snapshot = primary.folder / "snapshot"
    primary.cluster.run("pg_controldata", str(primary.cluster.pgdata))
    os.system(f"cp -a {primary.cluster.pgdata} {snapshot}")  # noqa: S605
    primary.cluster.start()
    primary.write("first", times=3, rows=1000)
    primary.archive()
    before = primary.stored()
    primary.cluster.stop(mode="immediate")
    os.system(f"rm -rf {primary.cluster.pgdata} && cp -a {snapshot} {primary.cluster.pgdata}")  # noqa: S605
    primary.cluster.start()
    primary.write("second", times=6, rows=700)
    events = primary.archive()
    assert names(events, FileQuarantined)
    assert names(events, FileSkipped)
    assert primary.stored() - before == set()
