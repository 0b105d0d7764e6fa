"""While the catalog cannot be written people are told all the same: once, once an hour, and when it is over."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from wal_pipeline.archive.alerts import AlertKind, Notification
from wal_pipeline.catalog.catalog import open_catalog
from wal_pipeline.commands.alerts.catalog_outage import CatalogOutage, OutageFile
from wal_pipeline.commands.alerts.destinations import Destination
from wal_pipeline.commands.health.facts import UnopenedCatalog
from wal_pipeline.commands.health.rules import HealthLimits
from wal_pipeline.commands.health.watch import HealthReport, watch_health
from wal_pipeline.errors import CatalogError
from wal_pipeline_tests.support.health_scene import NOW, HealthScene

FULL = "database or disk is full"


class Inbox(Destination):
    """A destination that keeps what it was sent, unless it is ``closed``."""

    name = "inbox"

    def __init__(self) -> None:
        self.closed = False
        self.got: list[Notification] = []

    def send(self, notification: Notification) -> str | None:
        if self.closed:
            return "inbox: closed"
        self.got.append(notification)
        return None


@pytest.fixture
def scene(tmp_path: Path) -> HealthScene:
    made = HealthScene(tmp_path)
    made.archive(*range(1, 5))
    made.back_up(1)
    return made


@contextmanager
def full_disk(scene: HealthScene) -> Iterator[None]:
    """Let SQLite refuse what is written, in the words of a full disk."""
    names = [f"{table}_{what}" for table in ("alerts", "values") for what in ("insert", "update")]
    with scene.catalog.database.write() as connection:
        for name in names:
            table, _, what = name.rpartition("_")
            raises = f"BEGIN SELECT RAISE(FAIL, '{FULL}'); END"
            connection.execute(text(f"CREATE TRIGGER {name} BEFORE {what} ON wal_{table} {raises}"))
    yield
    with scene.catalog.database.write() as connection:
        for name in names:
            connection.execute(text(f"DROP TRIGGER {name}"))


def watch(scene: HealthScene, inbox: Inbox, outage: CatalogOutage | None = None) -> HealthReport:
    return watch_health(scene.sources, HealthLimits(), lambda: [inbox], outage=outage)


def test_a_full_disk_is_told(scene: HealthScene) -> None:
    """At once and once an hour, with everything else that is wrong; then that it is over, and the alerts as ever."""
    inbox, outage = Inbox(), None
    scene.put_in_spool(11, waited=timedelta(hours=5))
    with full_disk(scene):
        for _ in range(61):
            report = watch(scene, inbox, outage)
            outage = CatalogOutage.from_json(report.outage.as_json()) if report.outage else None
            scene.now += timedelta(minutes=1)
    assert report.describe() == "1 spool_growing, 1 catalog_down; 2 told"
    assert [one.title for one in inbox.got] == ["wal-pipeline main: 2 opened"] * 2
    assert f"catalog.sqlite' failed: {FULL} (since 2026-11-22 12:00:00Z)" in inbox.got[0].body
    assert "(since 2026-11-22 12:00:00Z)" in inbox.got[1].body
    after = watch(scene, inbox, outage)
    assert after.outage is None
    assert [one.title for one in inbox.got[2:]] == ["wal-pipeline main: 1 opened", "wal-pipeline main: 1 resolved"]
    assert [alert.kind for alert in scene.catalog.alerts.active()] == [AlertKind.SPOOL_GROWING]


def test_what_was_not_taken_is_told_again(scene: HealthScene) -> None:
    """A service that does not answer is asked at each look, at the outage's beginning and at its end."""
    inbox = Inbox()
    inbox.closed = True
    with full_disk(scene):
        report = watch(scene, inbox)
        assert report.delivery.failures == {"inbox": "inbox: closed"}
        inbox.closed = False
        report = watch(scene, inbox, report.outage)
        assert len(inbox.got) == 1
    inbox.closed = True
    report = watch(scene, inbox, report.outage)
    assert report.outage is not None
    inbox.closed = False
    assert watch(scene, inbox, report.outage).outage is None
    assert [one.title for one in inbox.got] == ["wal-pipeline main: 1 opened", "wal-pipeline main: 1 resolved"]


def test_a_catalog_that_cannot_be_opened(scene: HealthScene) -> None:
    """The spool, the disks and the server are judged, and nothing is said of what only the catalog knows."""
    inbox = Inbox()
    scene.put_in_spool(11, waited=timedelta(hours=5))
    with pytest.raises(CatalogError) as refused:
        open_catalog(f"sqlite:///{scene.folder}", "main")
    sources = replace(scene.sources, catalog=UnopenedCatalog(refused.value))
    report = watch_health(sources, HealthLimits(), lambda: [inbox], cluster="main")
    assert report.describe() == "1 catalog_down, 1 spool_growing; 2 told"
    assert inbox.got[0].title == "wal-pipeline main: 2 opened"


@pytest.mark.parametrize("text_", [None, "", "{}", "no json", '{"since_at": "no moment", "told_at": null}'])
def test_no_outage(text_: str | None) -> None:
    """What is no outage is none."""
    assert CatalogOutage.from_json(text_) is None


def test_outage_in_a_file(tmp_path: Path) -> None:
    """It takes no byte; what nobody was told is not kept, and a folder that is not there stops nothing."""
    file = OutageFile(tmp_path / "outage")
    assert file.read() is None
    told = CatalogOutage(NOW, NOW + timedelta(hours=1))
    file.write(told)
    assert file.read() == told
    assert file.path.stat().st_size == 0
    file.write(CatalogOutage(NOW))
    assert file.read() is None
    OutageFile(tmp_path / "none" / "outage").write(told)
