"""The five metrics against their goals, the recovery point, the Nagios line and the picture."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from wal_pipeline.archive.alerts import AlertKind, Observation
from wal_pipeline.catalog.drills import DrillRecord
from wal_pipeline.commands.health.rules import HealthLimits
from wal_pipeline.commands.status.as_json import check_line, status_as_json
from wal_pipeline.commands.status.status import ArchiveStatus, Rating, judge
from wal_pipeline.commands.status.window_line import axis_of, draw
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline_tests.support.health_scene import NOW, SIZE, SYSTEM, HealthScene, failed_copy, healthy_scene, name
from wal_pipeline_tests.support.server_facts import facts as server_facts
from wal_pipeline_tests.support.tail_records import SEGMENT, SHIPPED, record_tail, ship_well


@pytest.fixture
def scene(tmp_path: Path) -> HealthScene:
    """An archive in good health."""
    return healthy_scene(tmp_path)


def status_of(scene: HealthScene, **changed: object) -> ArchiveStatus:
    return judge(scene.facts(**changed), HealthLimits())


def test_five_metrics(scene: HealthScene) -> None:
    """Each has its figure, its goal and whether it is met."""
    assert [(one.name, one.shown, one.goal, one.verdict.value) for one in status_of(scene).metrics] == [
        ("archive success rate", "100 % (20 of 20 copies)", "> 99% of a day's", "ok"),
        ("archive lag", "2.0 s (median r2 2.0 s, b2 2.0 s)", "< 5 min", "ok"),
        ("storage", "r2 288.0 MiB, b2 288.0 MiB", "the same on each", "ok"),
        ("failed archives", "0", "0", "ok"),
        ("active alerts", "0", "0", "ok"),
    ]


def test_missed_goals(scene: HealthScene) -> None:
    """One failed copy of twenty-one misses three goals; it never reads as 100 %."""
    scene.catalog.files.record_failed(*failed_copy(11, "b2", 5))
    scene.catalog.stores.count_events("b2", scene.now, failed=1)
    scene.put_in_spool(11, waited=timedelta(minutes=20))
    verdicts = {one.name: (one.shown, one.verdict.value) for one in status_of(scene).metrics}
    assert verdicts == {
        "archive success rate": ("95.24 % (20 of 21 copies)", "warning"),
        "archive lag": ("20 min (median r2 2.0 s, b2 2.0 s)", "warning"),
        "storage": ("r2 288.0 MiB, b2 288.0 MiB", "ok"),
        "failed archives": ("1 now, 1 tries in a day", "warning"),
        "active alerts": ("2", "warning"),
    }


def test_the_headline_is_not_better_than_a_row_about_now(scene: HealthScene) -> None:
    """The first failed try of a copy is no alert yet, and all the same not well."""
    scene.catalog.files.record_failed(*failed_copy(11, "b2", 1))
    scene.put_in_spool(11, waited=timedelta(seconds=3))
    status = status_of(scene)
    assert (status.problems, status.verdict) == ((), Rating.WARNING)


def test_recovery_point(scene: HealthScene) -> None:
    """The last commit is 30 seconds older than the last file; the server is two segments and 100 bytes ahead."""
    server = server_facts(system_identifier=SYSTEM, server_at=NOW, wal_segment_size=SIZE, wal_lsn=Lsn(13 * SIZE + 100))
    scene.catalog.drills.record(
        DrillRecord("d", "b2", "end", NOW - timedelta(hours=1), NOW, True, {"rto": 12.5, "fetch": 9})
    )
    point = status_of(scene, server=server).point
    assert (point.latest_commit_at, point.rpo_seconds) == (NOW - timedelta(seconds=90), 90.0)
    assert point.reach is not None and point.reach.rpo_is_bound
    assert point.unarchived_bytes == 2 * SIZE + 100
    assert point.rto_seconds == {"b2": 12.5}


def test_without_base_backup(tmp_path: Path) -> None:
    """WAL alone cannot be recovered, and that is critical."""
    scene = HealthScene(tmp_path)
    scene.archive(1, 2)
    status = status_of(scene)
    assert (status.can_recover, status.verdict) == (False, Rating.CRITICAL)
    assert check_line(status) == (
        "WAL-PIPELINE CRITICAL - main: base_backup_old b2: no base backup: nothing can be restored from there, "
        "whatever WAL it holds (and 1 more) | lag=2.0s spool_files=0 spool_bytes=0B alerts=2"
    )


def test_empty_archive_is_not_well(tmp_path: Path) -> None:
    """Nothing is wrong yet, and yet nothing can be recovered."""
    assert check_line(status_of(HealthScene(tmp_path))) == (
        "WAL-PIPELINE WARNING - main: this host has no records of main: whether it can be recovered was not looked at; "
        "'wal-pipeline catalog rebuild' asks the stores | spool_files=0 spool_bytes=0B alerts=0"
    )


def test_check_line(scene: HealthScene) -> None:
    """All is well, in one line with the figures."""
    assert check_line(status_of(scene)) == (
        "WAL-PIPELINE OK - main: can be recovered to 2026-11-22 11:58:30 UTC from r2 and b2, nothing committed since | "
        "lag=2.0s spool_files=0 spool_bytes=0B rpo=0s last_commit_age=90s alerts=0"
    )


def test_acknowledged_alerts_do_not_alarm(scene: HealthScene) -> None:
    """A person knows: it is shown, and the verdict is good; an alert that nobody judged here counts too."""
    scene.catalog.alerts.observe(AlertKind.DAMAGE, Observation(name(3), "it is\ndamaged | badly"), NOW)
    line = check_line(status_of(scene))
    assert line.startswith(f"WAL-PIPELINE CRITICAL - main: damage {name(3)}: it is damaged / badly | lag=")
    scene.catalog.alerts.acknowledge(scene.catalog.alerts.active()[0].id, "me", "known", NOW)
    assert status_of(scene).verdict is Rating.OK
    assert status_of(scene).metric("active alerts").shown == "1 (1 acknowledged)"


def test_json(scene: HealthScene) -> None:
    """It is JSON, and the windows stand in it by store."""
    scene.catalog.files.remove_copy(SYSTEM, [name(5)], "b2")
    found = json.loads(json.dumps(status_as_json(status_of(scene))))
    assert found["system_identifier"] == str(SYSTEM)
    assert found["stores"]["r2"]["windows"][0]["last_segment"] == name(10)
    assert found["stores"]["b2"]["windows"][0]["last_segment"] == name(4)
    assert found["stores"]["b2"]["gaps"][0]["held_elsewhere"] == 1
    assert [problem["kind"] for problem in found["problems"]] == ["gap"]


def test_picture(scene: HealthScene) -> None:
    """The base backup begins the window, the gap ends it on one store."""
    scene.catalog.files.remove_copy(SYSTEM, [name(7)], "b2")
    scene.catalog.base_backups.remove_copy(SYSTEM, scene.catalog.base_backups.all()[0].backup_id, "r2")
    scene.back_up(2, timedelta(minutes=80))
    facts = status_of(scene).facts
    windows = facts.windows
    axis = axis_of(windows, NOW)
    assert axis.begin_at == NOW - timedelta(minutes=80)
    assert "".join(draw(windows, "r2", axis, 16, facts.reaches)) == "◆━━━━━━━━━━━━━━━"
    assert "".join(draw(windows, "b2", axis, 16, facts.reaches)) == "◆━━━◆━━✖✖✖✖✖····"


def test_no_store_holds_the_same(scene: HealthScene) -> None:
    """Storage misses its goal where a store lacks files that do not wait in the spool."""
    scene.catalog.files.remove_copy(SYSTEM, [name(1)], "b2")
    assert status_of(scene).metric("storage").verdict is Rating.WARNING
    assert replace(status_of(scene).metric("storage"), verdict=Rating.OK).verdict.exit_code == 0


def test_json_says_how_far_the_open_segment_is_shipped(scene: HealthScene) -> None:
    """The cluster's shipping stands by itself, and each store has its tail; off, there is no tail."""
    off = status_as_json(status_of(scene))
    assert (off["shipping"]["state"], off["stores"]["r2"]["tail"]) == ("off", None)
    ship_well(scene)
    record_tail(scene, "b2", error="b2: it is down", failing_since=NOW)
    values = json.loads(json.dumps(status_as_json(status_of(scene))))
    shipping = values["shipping"]
    assert (shipping["state"], shipping["reason"]) == ("failing", "b2: b2: it is down")
    assert (shipping["promise_seconds"], shipping["interval_seconds"], shipping["source"]) == (6.0, 5.0, "host")
    assert values["stores"]["r2"]["tail"] == {
        "state": "running",
        "reason": None,
        "behind_seconds": 0.4,
        "behind_is_at_most": False,
        "behind_p50_seconds": 2.6,
        "behind_p99_seconds": 5.2,
        "shipped_lsn": str(Lsn(SEGMENT * SIZE + SHIPPED)),
        "timeline": 1,
        "complete_at": "2026-11-22T11:59:58+00:00",
        "last_commit_at": "2026-11-22T11:59:57+00:00",
        "pieces": 2,
        "stored_bytes": 1400,
        "conflict": None,
    }
    assert values["stores"]["b2"]["tail"]["state"] == "failing"
