"""Each rule opens an alert for its cause, and not without it."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from wal_pipeline.archive.alerts import AlertKind, Observation, Severity
from wal_pipeline.archive.records import DamagedPages
from wal_pipeline.catalog.drills import DrillRecord
from wal_pipeline.catalog.store_states import StoreState
from wal_pipeline.commands.alerts.base_backups import forget_failure, keep_failure
from wal_pipeline.commands.archive_push.skipped_files import SkippedFiles
from wal_pipeline.commands.health.facts import DiskFacts, HealthFacts, look_at_everything, note_sensor
from wal_pipeline.commands.health.reach import ServerLook
from wal_pipeline.commands.health.rules import HealthLimits, observe
from wal_pipeline.commands.pause import pause
from wal_pipeline.errors import BaseBackupError
from wal_pipeline.postgres.server import PostgresServer
from wal_pipeline.postgres.server_facts import ServerFacts
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline_tests.support.health_scene import NOW, SIZE, SYSTEM, HealthScene, failed_copy, name
from wal_pipeline_tests.support.server_facts import facts as server_facts

LIMITS = HealthLimits()
HOUR = timedelta(hours=1)


def seen(facts: HealthFacts, limits: HealthLimits = LIMITS) -> dict[AlertKind, list[Observation]]:
    """Return what was observed, without the kinds of which there is nothing."""
    return {kind: found for kind, found in observe(facts, limits).items() if found}


def only(facts: HealthFacts, kind: AlertKind, limits: HealthLimits = LIMITS) -> list[str]:
    """Return the messages of one kind, and see that there is no other kind."""
    found = seen(facts, limits)
    assert set(found) == {kind}
    return [f"{one.subject}: {one.message}" for one in found[kind]]


def test_healthy(scene: HealthScene) -> None:
    """An archive that works opens nothing."""
    assert seen(scene.facts()) == {}


def test_no_fault_of_ours_is_called_a_silent_server(scene: HealthScene) -> None:
    """A thread's exception was lost, and status said that the server did not answer within 3 s."""

    class Broken(PostgresServer):
        def facts(self) -> ServerFacts:
            raise NotImplementedError("can't parse timestamptz")

    found = look_at_everything(replace(scene.sources, server=Broken()))
    assert found.server == ServerLook(error="the server cannot be asked: NotImplementedError: can't parse timestamptz")


def test_a_setting_that_names_another_cluster_is_told(scene: HealthScene) -> None:
    """Where the live server has another system identifier than the settings, an alert tells both."""
    assert only(replace(scene.facts(), fixed_identifier=7), AlertKind.WRONG_CLUSTER) == [
        f"server: WAL_PIPELINE_SYSTEM_IDENTIFIER is 7, the server has {SYSTEM}: its WAL stays in the spool"
    ]
    assert seen(replace(scene.facts(), fixed_identifier=SYSTEM)) == {}
    silent = replace(scene.facts(), fixed_identifier=7, server=ServerLook(error="silent"))
    assert AlertKind.WRONG_CLUSTER not in observe(silent, LIMITS)


def test_archiver_failing(scene: HealthScene) -> None:
    """pg_stat_archiver's last word is a failure."""
    good = server_facts(server_at=NOW, wal_lsn=Lsn(0), wal_segment_size=SIZE, system_identifier=SYSTEM)
    failing = replace(good.archiver, last_failed_wal=name(4), last_failed_at=NOW, failed_count=7)
    assert only(scene.facts(replace(good, archiver=failing)), AlertKind.ARCHIVER_FAILING) == [
        f"server: the last try to archive '{name(4)}' failed at 2026-11-22 12:00:00+0000 (7 failures so far); "
        "the server's log says why"
    ]


def test_archive_mode_off(scene: HealthScene) -> None:
    """A server that archives nothing is failing, whatever its statistics say."""
    off = server_facts(server_at=NOW, archive_mode="off", wal_lsn=Lsn(0), system_identifier=SYSTEM)
    assert only(scene.facts(off), AlertKind.ARCHIVER_FAILING) == [
        "server: archive_mode is 'off': PostgreSQL archives nothing"
    ]


@pytest.mark.parametrize(
    ("beyond", "ready", "minutes", "expected"),
    [
        (10 * SIZE, 0, 5, None),
        (1000, 0, 60, None),
        (10 * SIZE, 0, 60, f"{10 * SIZE} bytes of WAL were written after '{name(2)}'"),
        (0, 3, 60, "3 files wait in pg_wal"),
    ],
    ids=["not yet", "idle", "not switched", "not archived"],
)
def test_no_new_wal(scene: HealthScene, beyond: int, ready: int, minutes: int, expected: str | None) -> None:
    """Only WAL that waits to be archived is a reason: an idle server archives nothing, however long."""
    good = server_facts(server_at=NOW, system_identifier=SYSTEM, wal_segment_size=SIZE)
    at = NOW - timedelta(minutes=minutes)
    archiver = replace(good.archiver, last_archived_at=at, ready_count=ready, last_archived_wal=name(2))
    facts = scene.facts(replace(good, archiver=archiver, wal_lsn=Lsn(3 * SIZE + beyond)))
    if expected is None:
        assert seen(facts) == {}
    else:
        message = f"server: nothing archived since {at:%Y-%m-%d %H:%M:%S}Z, while {expected}"
        assert only(facts, AlertKind.NO_NEW_WAL) == [message]


def test_server_that_does_not_answer(scene: HealthScene) -> None:
    """While WAL still comes that is nothing; when none comes, a person has to look."""
    silent = ServerLook(error="cannot connect to PostgreSQL: refused")
    assert seen(scene.facts(server=None) and replace(scene.facts(), server=silent)) == {}
    scene.now += HOUR
    facts = replace(scene.facts(), server=silent)
    assert only(facts, AlertKind.NO_NEW_WAL) == [
        "server: no new WAL came, and whether there is any cannot be asked: cannot connect to PostgreSQL: refused"
    ]


def test_kinds_that_cannot_be_judged_are_left_as_they_are(scene: HealthScene) -> None:
    """Without a server and a spool nothing is said of them, so that their alerts stay open."""
    judged = observe(replace(scene.facts(), server=ServerLook(), spool=None), LIMITS)
    assert {kind.value for kind in set(AlertKind) - set(judged)} >= {
        "archiver_failing",
        "no_new_wal",
        "spool_growing",
        "spool_near_full",
        "quarantine",
    }


def test_spool_growing(scene: HealthScene) -> None:
    """A file waits for longer than the goal; in a pause that is meant."""
    scene.put_in_spool(11, waited=timedelta(minutes=4))
    assert seen(scene.facts()) == {}
    scene.put_in_spool(12, waited=timedelta(minutes=6))
    assert only(scene.facts(), AlertKind.SPOOL_GROWING) == [
        f"spool: 2 files (2 MiB) wait in the spool, the oldest '{name(12)}' for 6 min, expected at most 5 min"
    ]
    pause(scene.catalog, scene.now, length=HOUR, reason="", by="me")
    assert set(seen(scene.facts())) == {AlertKind.PAUSED}


def test_spool_near_full(scene: HealthScene) -> None:
    """The limit counts in a pause too."""
    pause(scene.catalog, scene.now, length=HOUR, reason="", by="me")
    for number in range(11, 15):
        scene.put_in_spool(number)
    limits = replace(LIMITS, spool_limit_bytes=5 * SIZE)
    found = seen(scene.facts(), limits)
    assert [one.message for one in found[AlertKind.SPOOL_NEAR_FULL]] == ["the spool holds 4 MiB of 5 MiB"]


def test_spool_that_cannot_be_read(scene: HealthScene) -> None:
    """That is critical, and nothing else is said of the spool."""
    scene.spool.folder.rmdir()
    [found] = seen(scene.facts())[AlertKind.SPOOL_GROWING]
    assert found.severity is Severity.CRITICAL
    assert found.message == f"spool '{scene.spool.folder}' cannot be read: No such file or directory"


def test_disk_low(scene: HealthScene) -> None:
    """Less than the share is free."""
    facts = scene.facts(disks=(DiskFacts("/spool", 9 * 2**30, 100 * 2**30), DiskFacts("/state", 2**30, 4 * 2**30)))
    assert only(facts, AlertKind.DISK_LOW) == [
        "/spool: the disk of '/spool' has 9.0 GiB free of 100.0 GiB (9.0%), expected at least 10%"
    ]


def test_store_down_hides_its_files(scene: HealthScene) -> None:
    """A store that is down is one alert, not one for each file; another store's failing copy is its own."""
    scene.catalog.stores.save_state(StoreState("r2", 3, "r2: no answer", NOW, NOW - HOUR))
    for number, store, tries in ((11, "r2", 9), (12, "b2", 3), (13, "b2", 2)):
        scene.catalog.files.record_failed(*failed_copy(number, store, tries))
        scene.put_in_spool(number)
    found = seen(scene.facts())
    assert {kind: [(one.subject, one.message) for one in some] for kind, some in found.items()} == {
        AlertKind.STORE_DOWN: [
            ("r2", "3 tries in a row failed, the last success was at 2026-11-22 11:00:00Z: r2: no answer")
        ],
        AlertKind.COPY_FAILED: [(f"{name(12)} on b2", "r2: it said no")],
    }


def test_many_failed_copies_are_counted(scene: HealthScene) -> None:
    """A hundred causes make twenty alerts and one that says that there are more."""
    for number in range(100, 200):
        scene.catalog.files.record_failed(*failed_copy(number, "b2", 5))
        (scene.spool.folder / name(number)).touch()
    found = seen(scene.facts())[AlertKind.COPY_FAILED]
    assert len(found) == 21
    assert found[-1].subject == "more"


def test_failed_copy_of_a_file_that_left_the_spool(scene: HealthScene) -> None:
    """What another store holds is told with the way to bring it; what is nowhere any more is over."""
    for number in (10, 11):
        file, copy = failed_copy(number, "b2", 5)
        scene.catalog.files.remove_copy(SYSTEM, [file.name], "b2")
        scene.catalog.files.record_failed(file, copy)
    found = seen(scene.facts())
    assert [(one.subject, one.message) for one in found[AlertKind.COPY_FAILED]] == [
        (
            f"{name(10)} on b2",
            "r2: it said no; it is in the spool no more: 'wal-pipeline verify --repair' copies it from r2",
        )
    ]
    for number in (10, 11):
        scene.put_in_spool(number)
    assert [(one.subject, one.message) for one in seen(scene.facts())[AlertKind.COPY_FAILED]] == [
        (f"{name(number)} on b2", "r2: it said no") for number in (10, 11)
    ]


def test_failed_copies_where_the_spool_is_elsewhere(scene: HealthScene) -> None:
    """Whether a file waits there is not known: it counts."""
    scene.catalog.files.record_failed(*failed_copy(11, "b2", 5))
    assert AlertKind.COPY_FAILED not in seen(scene.facts())
    facts = replace(look_at_everything(replace(scene.sources, spool=None)), server=scene.facts().server)
    assert only(facts, AlertKind.COPY_FAILED) == [f"{name(11)} on b2: r2: it said no"]


def test_quarantine(scene: HealthScene) -> None:
    """One alert for each file, told as the archiving run told it."""
    scene.quarantine(4)
    scene.quarantine(5)
    told = Observation(name(4), "it is of another cluster")
    scene.catalog.alerts.observe(AlertKind.QUARANTINE, told, NOW)
    folder = scene.spool.quarantine_folder
    assert only(scene.facts(), AlertKind.QUARANTINE) == [
        f"{name(4)}: it is of another cluster",
        f"{name(5)}: '{name(5)}.20261122T110000.000000Z' in '{folder}' was not archived",
    ]


def test_a_quarantine_that_was_emptied(scene: HealthScene) -> None:
    """A person took the file away: nothing is left to tell."""
    scene.quarantine(4)
    scene.catalog.alerts.observe(AlertKind.QUARANTINE, Observation(name(4), "half a file"), NOW)
    for path in scene.spool.quarantine_folder.iterdir():
        path.unlink()
    assert seen(scene.facts()) == {}


def test_a_quarantine_that_cannot_be_read_is_not_empty(scene: HealthScene) -> None:
    """What was told stays told, and that it is not known is told too."""
    scene.spool.quarantine_folder.write_text("no folder")
    scene.catalog.alerts.observe(AlertKind.QUARANTINE, Observation(name(4), "half a file"), NOW)
    folder = scene.spool.quarantine_folder
    assert only(scene.facts(), AlertKind.QUARANTINE) == [
        f"{folder}: quarantine folder '{folder}' cannot be read: Not a directory",
        f"{name(4)}: half a file",
    ]


def test_a_file_that_is_stuck_in_the_spool(scene: HealthScene) -> None:
    """It is told though no archiving run told it, and only while it is there."""
    scene.put_in_spool(11)
    [spooled] = scene.spool.scan(scene.now).ready
    left = SkippedFiles(scene.spool, scene.catalog, lambda: scene.now)
    left.add(spooled, "it cannot be read", needs_help=True)
    left.save()
    assert only(scene.facts(), AlertKind.QUARANTINE) == [f"{name(11)}: it cannot be read; it stays in the spool"]
    (scene.spool.folder / name(11)).unlink()
    assert seen(scene.facts()) == {}


def test_gaps(scene: HealthScene) -> None:
    """What one store lacks can be copied; what all lack is lost; what is in the spool is on its way."""
    scene.catalog.files.remove_copy(SYSTEM, [name(5)], "b2")
    for store in ("r2", "b2"):
        scene.catalog.files.remove_copy(SYSTEM, [name(7), name(8)], store)
    found = seen(scene.facts())[AlertKind.GAP]
    assert [(one.subject, one.severity, one.message) for one in found] == [
        (
            f"any store {name(7)}",
            None,
            f"2 segments are on no store: '{name(7)}' to '{name(8)}'; moments after 2026-11-22 11:18:30Z cannot be "
            "restored across it",
        ),
        (
            f"b2 {name(5)}",
            Severity.WARNING,
            f"1 segment is not on b2: '{name(5)}'; 1 of them can be copied from another store",
        ),
    ]
    for number in (5, 7, 8):
        scene.put_in_spool(number)
    assert seen(scene.facts()) == {}


def test_base_backups(scene: HealthScene) -> None:
    """One store has none, the other one an old one."""
    scene.now += timedelta(hours=60)
    scene.archive(11, 12)
    backup_id = scene.catalog.base_backups.all()[0].backup_id
    scene.catalog.base_backups.remove_copy(SYSTEM, backup_id, "b2")
    found = seen(scene.facts())
    assert [(one.subject, one.message, one.severity) for one in found[AlertKind.BASE_BACKUP_OLD]] == [
        ("r2", "the newest base backup is 2 days old, expected at most 2 days", None),
        ("b2", "no base backup: nothing can be restored from there, whatever WAL it holds", Severity.CRITICAL),
    ]
    assert [one.message for one in found[AlertKind.BASE_BACKUP_FAILED]] == [f"base backup '{backup_id}' is not there"]


def test_the_words_about_the_newest_base_backup_alone_count(scene: HealthScene) -> None:
    """Damaged pages are critical, warnings are not; a later one without both resolves them."""
    (older,) = scene.catalog.base_backups.all()
    said = replace(older, damaged_pages=(DamagedPages("base/5/16384", (3,), 1),), warnings=("skipping it",))
    scene.catalog.base_backups.record(said, [])
    found = seen(scene.facts())
    assert [(one.subject, one.message) for one in found[AlertKind.PAGES_DAMAGED]] == [
        (
            "base/5/16384",
            f"'base/5/16384' block 3: wrong checksum when base backup '{older.backup_id}' was taken, "
            "which has it as it was",
        )
    ]
    assert [one.message for one in found[AlertKind.BASE_BACKUP_WARNING]] == [
        f"base backup '{older.backup_id}': skipping it"
    ]
    scene.back_up(9)
    assert seen(scene.facts()).keys().isdisjoint({AlertKind.PAGES_DAMAGED, AlertKind.BASE_BACKUP_WARNING})


def test_a_base_backup_that_failed_stays_told_until_one_succeeds(scene: HealthScene) -> None:
    """The newest one is good, and the last try was not."""
    keep_failure(scene.catalog, BaseBackupError("no store took it"), scene.now)
    (message,) = only(scene.facts(), AlertKind.BASE_BACKUP_FAILED)
    assert message.startswith("server: no base backup was taken at ")
    forget_failure(scene.catalog)
    assert seen(scene.facts()).get(AlertKind.BASE_BACKUP_FAILED, []) == []


def test_base_backups_of_the_future(scene: HealthScene) -> None:
    """One that a wrong clock dated a year ahead hides neither that all are old, nor that a later one failed."""
    scene.back_up(3, age=-timedelta(days=365))
    scene.now += timedelta(days=100)
    scene.archive(11, 12, 13)
    late = scene.back_up(12, age=timedelta(days=3), on=("r2",))
    found = seen(scene.facts())
    assert [(one.subject, one.message) for one in found[AlertKind.BASE_BACKUP_OLD]] == [
        ("r2", "the newest base backup is 3 days old, expected at most 2 days"),
        ("b2", "the newest base backup is 100 days old, expected at most 2 days"),
    ]
    assert [one.message for one in found[AlertKind.BASE_BACKUP_FAILED]] == [f"base backup '{late}' is not there"]


def test_all_base_backups_are_of_the_future(tmp_path: Path) -> None:
    """How old they are cannot be told, and that is not well."""
    made = HealthScene(tmp_path)
    made.archive(*range(1, 11))
    made.back_up(3, age=-timedelta(days=365))
    assert only(made.facts(), AlertKind.BASE_BACKUP_OLD) == [
        "r2: every base backup is dated in the future: a clock is or was wrong",
        "b2: every base backup is dated in the future: a clock is or was wrong",
    ]


def test_a_drill_of_the_future_does_not_count(scene: HealthScene) -> None:
    """The last one before now does."""
    for days in (-365, 40):
        at = scene.now - timedelta(days=days)
        scene.catalog.drills.record(DrillRecord(f"drill{days}", "r2", "end", at, at, True, {"rto": 1.0}, {}))
    assert only(scene.facts(), AlertKind.DRILL_OLD) == ["r2: the last drill is 40 days old, expected 35 days"]


def test_sensor_that_looks_no_more(scene: HealthScene) -> None:
    """Whoever else looks tells it, after a quarter of an hour; where Dagster was never used there is none to miss."""
    note_sensor(scene.catalog, scene.now)
    scene.now += timedelta(minutes=14)
    scene.archive(11)
    assert seen(scene.facts()) == {}
    scene.now += timedelta(minutes=1)
    assert only(scene.facts(), AlertKind.SENSOR_SILENT) == [
        "health_sensor: Dagster's health sensor has not looked since 2026-11-22 12:00:00Z: see that its daemon and "
        "code location run"
    ]
    assert seen(scene.facts(), replace(LIMITS, health_interval_seconds=600)) == {}


def test_drills(scene: HealthScene) -> None:
    """The last drill of each store counts: failed, or too old."""
    for store, ok, age in (("r2", False, HOUR), ("b2", True, timedelta(days=40))):
        at = scene.now - age
        detail = {} if ok else {"error": "the server did not start"}
        scene.catalog.drills.record(DrillRecord(f"drill-{store}", store, "end", at, at, ok, {"rto": 12.5}, detail))
    found = seen(scene.facts())
    assert [one.message for one in found[AlertKind.DRILL_FAILED]] == [
        "the last drill failed at 2026-11-22 11:00:00Z: the server did not start"
    ]
    assert [one.message for one in found[AlertKind.DRILL_OLD]] == ["the last drill is 40 days old, expected 35 days"]


def test_nothing_is_expected_of_an_empty_archive(tmp_path: Path) -> None:
    """Before the first file there is no base backup and no drill to miss."""
    assert seen(HealthScene(tmp_path).facts()) == {}
