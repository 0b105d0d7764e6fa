"""A look settles the alerts and tells people once of each opening and each end."""

import os
from datetime import timedelta
from pathlib import Path

import pytest

from wal_pipeline.archive.alerts import AlertKind, Notification, Observation
from wal_pipeline.commands.alerts.destinations import Destination
from wal_pipeline.commands.health.rules import HealthLimits
from wal_pipeline.commands.health.watch import HealthReport, watch_health
from wal_pipeline_tests.support.health_scene import HealthScene, name


class Inbox(Destination):
    """A destination that keeps what it was sent."""

    name = "inbox"

    def __init__(self) -> None:
        self.titles: list[str] = []

    def send(self, notification: Notification) -> str | None:
        self.titles.append(notification.title)
        return None


@pytest.fixture
def scene(tmp_path: Path) -> HealthScene:
    made = HealthScene(tmp_path)
    made.archive(*range(1, 5))
    made.back_up(1)
    return made


def watch(scene: HealthScene, inbox: Inbox) -> HealthReport:
    return watch_health(scene.sources, HealthLimits(), lambda: [inbox])


def test_told_once_and_resolved(scene: HealthScene) -> None:
    """A file in quarantine is told once, however often it is seen, and its end once it is taken away."""
    inbox = Inbox()
    scene.quarantine(3)
    for _ in range(5):
        report = watch(scene, inbox)
        scene.now += timedelta(minutes=1)
    assert report.describe() == "1 quarantine"
    assert inbox.titles == ["wal-pipeline main: 1 opened"]
    for path in scene.spool.quarantine_folder.iterdir():
        path.unlink()
    for _ in range(5):
        watch(scene, inbox)
        scene.now += timedelta(minutes=1)
    assert inbox.titles == ["wal-pipeline main: 1 opened", "wal-pipeline main: 1 resolved"]
    assert scene.catalog.alerts.active() == []


def test_alerts_of_other_kinds_are_left_alone(scene: HealthScene) -> None:
    """What verification found is not ended by a look that cannot see it."""
    scene.catalog.alerts.observe(AlertKind.DAMAGE, Observation(name(1), "it is damaged"), scene.now)
    watch(scene, Inbox())
    assert [alert.kind for alert in scene.catalog.alerts.active()] == [AlertKind.DAMAGE]


def test_quiet_look(scene: HealthScene) -> None:
    """Nothing needs a person, and nobody is told anything."""
    inbox = Inbox()
    assert watch(scene, inbox).describe() == "nothing needs a person"
    assert inbox.titles == []


def test_a_name_that_is_no_text(scene: HealthScene) -> None:
    """POSIX allows any bytes in a name: one such file in quarantine is told, and stops no other alert."""
    inbox = Inbox()
    scene.quarantine(3)
    for raw in (b"caf\xe9", b"two\nlines"):
        Path(os.fsdecode(os.fsencode(scene.spool.quarantine_folder) + b"/" + raw)).touch()
    assert watch(scene, inbox).describe() == "3 quarantine; 3 told"
    assert {alert.subject for alert in scene.catalog.alerts.active()} == {"caf\\xe9", "two\\nlines", name(3)}
