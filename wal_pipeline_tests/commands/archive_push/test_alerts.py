"""Which events of an archiving run become alerts, when they are resolved, and that they never stop the run."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from wal_pipeline.archive.alerts import AlertKind, Severity
from wal_pipeline.commands.archive_push.alerts import ArchiveAlerts
from wal_pipeline.commands.archive_push.events import (
    CopyFailed,
    CopyVerified,
    FileQuarantined,
    FileReleased,
    FileSkipped,
    FilesWaiting,
    QuarantineReason,
)
from wal_pipeline.errors import CatalogError
from wal_pipeline_tests.support.archive_scene import ArchiveScene, fail, nothing
from wal_pipeline_tests.support.catalog_records import copy_of, segment
from wal_pipeline_tests.support.segments import OTHER_SYSTEM_IDENTIFIER, name_of, segment_bytes, spool_segments

FILE = segment(1)
NAME = FILE.name
NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
VERIFIED = CopyVerified(FILE, copy_of(FILE, "r2"), is_new=True, seconds={})


@pytest.fixture
def alerts(scene: ArchiveScene) -> ArchiveAlerts:
    return ArchiveAlerts(scene.catalog, lambda: NOON)


def active(scene: ArchiveScene) -> list[tuple[AlertKind, str, str]]:
    return [(alert.kind, alert.subject, alert.message) for alert in scene.catalog.alerts.active()]


def down(failures: int, tries: int = 1) -> CopyFailed:
    return CopyFailed(NAME, "r2", "r2: no answer", tries, failures)


def test_a_store_is_down_after_three_failures(scene: ArchiveScene, alerts: ArchiveAlerts) -> None:
    """Once or twice is no news; the alert opens once and ends with the next file that the store takes."""
    alerts.note(down(1))
    alerts.note(down(2))
    assert active(scene) == []
    for failures in (3, 4, 5):
        alerts.note(down(failures, tries=failures))
    assert active(scene) == [(AlertKind.STORE_DOWN, "r2", "r2: no answer")]
    (alert,) = scene.catalog.alerts.active()
    assert (alert.times_seen, alert.severity, alert.details) == (3, Severity.WARNING, {"failures": 5})
    alerts.note(VERIFIED)
    assert active(scene) == []


def test_a_copy_that_fails_while_its_store_works(scene: ArchiveScene, alerts: ArchiveAlerts) -> None:
    """It has an alert of its own, which another file's success does not end."""
    alerts.note(down(1, tries=3))
    assert active(scene) == [(AlertKind.COPY_FAILED, f"{NAME} on r2", "r2: no answer")]
    other = segment(2)
    alerts.note(CopyVerified(other, copy_of(other, "r2"), is_new=True, seconds={}))
    assert len(active(scene)) == 1
    alerts.note(VERIFIED)
    assert active(scene) == []


def test_a_copy_that_was_recorded_before_proves_nothing(scene: ArchiveScene, alerts: ArchiveAlerts) -> None:
    """A store that is down has not answered because an old record says verified."""
    alerts.note(down(3))
    alerts.note(CopyVerified(FILE, copy_of(FILE, "r2"), is_new=False, seconds={}))
    assert len(active(scene)) == 1


def test_a_quarantined_file(scene: ArchiveScene, alerts: ArchiveAlerts) -> None:
    """It is critical, says where the file is, and ends when a good file of that name was archived."""
    alerts.note(FileQuarantined(NAME, QuarantineReason.NOT_WHOLE, f"'{NAME}' is half", Path("/q/file")))
    message = f"'{NAME}' is half; the file is in quarantine as '/q/file'"
    assert active(scene) == [(AlertKind.QUARANTINE, NAME, message)]
    (alert,) = scene.catalog.alerts.active()
    assert (alert.severity, alert.details) == (Severity.CRITICAL, {"reason": "not_whole", "path": "/q/file"})
    alerts.note(FileReleased(FILE, (), {}))
    assert active(scene) == []


def test_a_file_that_is_stuck(scene: ArchiveScene, alerts: ArchiveAlerts) -> None:
    """One that needs help is told; one that may still grow is not."""
    alerts.note(FileSkipped(NAME, "it may grow"))
    assert active(scene) == []
    alerts.note(FileSkipped(NAME, "it cannot be read", needs_help=True))
    assert active(scene) == [(AlertKind.QUARANTINE, NAME, "it cannot be read; it stays in the spool")]


def test_the_next_run_resolves_what_the_last_one_opened(scene: ArchiveScene, alerts: ArchiveAlerts) -> None:
    """Alerts outlive the process; those of other kinds are left alone."""
    alerts.note(down(3))
    later = ArchiveAlerts(scene.catalog, lambda: NOON + timedelta(minutes=1))
    later.note(FilesWaiting((NAME,)))
    later.note(VERIFIED)
    assert active(scene) == []


def test_a_thousand_copies_ask_the_catalog_once(scene: ArchiveScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events without an alert cost no transaction each."""
    asked: list[int] = []
    read = scene.catalog.alerts.active
    monkeypatch.setattr(scene.catalog.alerts, "active", lambda: (asked.append(1), read())[1])
    monkeypatch.setattr(scene.catalog.alerts, "resolve", lambda *_: pytest.fail("nothing is open"))
    alerts = ArchiveAlerts(scene.catalog, lambda: NOON)
    for _ in range(1000):
        alerts.note(VERIFIED)
        alerts.note(FileReleased(FILE, (), {}))
    assert asked == [1]


def test_a_catalog_that_fails_stops_nothing(
    scene: ArchiveScene, alerts: ArchiveAlerts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An alert that cannot be kept is logged, and the run goes on."""

    def broken(*_: object) -> None:
        raise CatalogError("catalog 'x' failed: disk is full")

    monkeypatch.setattr(scene.catalog.alerts, "observe", broken)
    alerts.note(down(3))
    assert "an alert of an archiving run could not be recorded: catalog 'x' failed: disk is full" in caplog.text


def test_a_whole_story(scene: ArchiveScene) -> None:
    """A real run with a store that is down and another cluster's file, and the run after both were mended."""
    made = spool_segments(scene.spool_folder, [1, 2])
    spool_segments(scene.spool_folder, [3], system_identifier=OTHER_SYSTEM_IDENTIFIER)
    scene.stores["r2"].before = fail("r2")
    for _ in range(3):
        run(scene)
        scene.settle()
    assert [(kind, subject) for kind, subject, _ in active(scene)] == [
        (AlertKind.QUARANTINE, name_of(3)),
        (AlertKind.STORE_DOWN, "r2"),
    ]
    scene.stores["r2"].before = nothing
    (scene.spool_folder / name_of(3)).write_bytes(segment_bytes(3))
    run(scene)
    assert active(scene) == []
    assert scene.spooled() == []
    assert scene.verified("r2") == {*made, name_of(3)}


def run(scene: ArchiveScene) -> None:
    alerts = ArchiveAlerts(scene.catalog, scene.clock)
    for event in scene.archiver().drain():
        alerts.note(event)
