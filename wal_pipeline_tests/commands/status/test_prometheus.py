"""The metrics can be read by Prometheus, and the alert rules and the dashboard use no other names."""

import json
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from wal_pipeline.archive.records import DamagedPages
from wal_pipeline.catalog.drills import DrillRecord
from wal_pipeline.commands.health.facts import note_sensor
from wal_pipeline.commands.health.rules import HealthLimits
from wal_pipeline.commands.health.shipping import HeldWal
from wal_pipeline.commands.restore_times import keep_time
from wal_pipeline.commands.status.prometheus import (
    ACTIVE_ALERTS,
    CLUSTER_METRICS,
    PREFIX,
    STORE_METRICS,
    metrics_text,
    write_textfile,
)
from wal_pipeline.commands.status.status import judge
from wal_pipeline.errors import SettingsError
from wal_pipeline_tests.support.health_scene import NOW, HealthScene
from wal_pipeline_tests.support.measured_times import measured_drill
from wal_pipeline_tests.support.tail_records import record_shipping, ship_well

DEPLOY = Path(__file__).parents[3] / "deploy"
KNOWN = {PREFIX + name for name in (*CLUSTER_METRICS, *STORE_METRICS, ACTIVE_ALERTS)}
_NAME = re.compile(r"wal_pipeline_[a-z0-9_]+")
_NOT_DRAWN = {
    "latest_commit_timestamp_seconds": "last_commit_age_seconds is drawn",
    "recovery_point_is_bound": "says how to read the number beside it",
    "store_recovery_point_is_bound": "says how to read the number beside it",
    "store_tail_behind_is_bound": "says how to read the number beside it",
    "store_tail_last_commit_timestamp_seconds": "store_tail_behind_seconds is drawn",
    "store_tail_ok": "a rule looks at shipping_up, and another at store_tail_behind_seconds",
    "shipping_last_seen_timestamp_seconds": "a rule looks at shipping_up",
    "store_files": "store_stored_bytes is drawn",
}


@pytest.fixture
def samples(tmp_path: Path) -> dict[tuple[str, str], float]:
    """All samples of an archive in which every number is known, by name and store or severity."""
    scene = HealthScene(tmp_path)
    scene.archive(*range(1, 11))
    scene.back_up(2)
    for store in ("r2", "b2"):
        at = NOW - timedelta(days=1)
        scene.catalog.drills.record(DrillRecord(f"d-{store}", store, "end", at, at, True, {"rto": 12.5}))
    for store, rate in (("r2", 1000.0), ("b2", 100.0)):
        keep_time(scene.catalog, measured_drill("db1", stores=(store,), download_mib=rate))
    note_sensor(scene.catalog, NOW)
    ship_well(scene)
    scene.slot = lambda: HeldWal("wal_pipeline_main", 4096)
    [backup] = scene.catalog.base_backups.all()
    damaged = (DamagedPages("base/5/16384", (3,), 1), DamagedPages("base/5/16385", (1, 2), 2))
    scene.catalog.base_backups.record(
        replace(backup, damaged_pages=damaged, fetched_size_bytes=backup.stored_size_bytes), []
    )
    status = judge(scene.facts(), HealthLimits())
    text = metrics_text(status, spool_limit_bytes=10**9, rto_objective_seconds=3600)
    return {
        (sample.name, sample.labels.get("store") or sample.labels.get("severity") or ""): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_metric_is_given(samples: dict[tuple[str, str], float]) -> None:
    """Where everything is known, every metric has a value, and no other name is there."""
    assert {name for name, _ in samples} == KNOWN


def test_values(samples: dict[tuple[str, str], float]) -> None:
    """The numbers are those of the status."""
    wanted = {
        ("wal_pipeline_can_recover", ""): 1,
        ("wal_pipeline_archive_success_ratio", ""): 1,
        ("wal_pipeline_archive_lag_seconds", ""): 2,
        ("wal_pipeline_recovery_point_seconds", ""): 0,
        ("wal_pipeline_recovery_point_is_bound", ""): 0,
        ("wal_pipeline_last_commit_age_seconds", ""): 3,  # the last one is in the open segment
        ("wal_pipeline_store_window_end_timestamp_seconds", "b2"): NOW.timestamp(),
        ("wal_pipeline_store_files", "b2"): 10,
        ("wal_pipeline_store_restore_seconds", "r2"): 12.5,
        ("wal_pipeline_active_alerts", "critical"): 2,  # each file with damaged pages
        ("wal_pipeline_store_last_base_backup_damaged_files", "b2"): 2,
        ("wal_pipeline_store_last_base_backup_by_files", "r2"): 1,
        ("wal_pipeline_restore_objective_seconds", ""): 3600,
        ("wal_pipeline_shipping_up", ""): 1,
        ("wal_pipeline_shipping_promise_seconds", ""): 6,
        ("wal_pipeline_shipping_slot_held_bytes", ""): 4096,
        ("wal_pipeline_store_tail_ok", "r2"): 1,
        ("wal_pipeline_store_tail_behind_seconds", "b2"): 0.4,
        ("wal_pipeline_store_tail_behind_p99_seconds", "b2"): 5.2,
        ("wal_pipeline_store_tail_pieces", "r2"): 2,
        ("wal_pipeline_store_tail_bytes", "r2"): 1400,
    }
    assert {key: samples[key] for key in wanted} == wanted
    predicted = [samples["wal_pipeline_store_restore_predicted_seconds", store] for store in ("r2", "b2")]
    assert predicted[1] == pytest.approx(predicted[0] + 2.86 - 0.286, abs=0.01)  # 286 MiB at 100 and 1000 MiB a second


def test_shipping_that_does_not_run_is_zero_and_not_missing(tmp_path: Path) -> None:
    """A number that is gone alarms nobody; where shipping is off there is none, because nothing is missed."""
    scene = HealthScene(tmp_path)
    text = metrics_text(judge(scene.facts(), HealthLimits()), spool_limit_bytes=10**9)
    assert "shipping_" not in text
    assert "store_tail_" not in text
    ship_well(scene)
    record_shipping(scene, seen_at=NOW - timedelta(minutes=10))
    lines = metrics_text(judge(scene.facts(), HealthLimits()), spool_limit_bytes=10**9).splitlines()
    assert 'wal_pipeline_shipping_up{cluster="main"} 0.0' in lines
    assert 'wal_pipeline_store_tail_ok{cluster="main",store="r2"} 0.0' in lines


def test_base_backup_of_the_future(tmp_path: Path) -> None:
    """One that a wrong clock dated a year ahead does not make the newest one young."""
    scene = HealthScene(tmp_path)
    scene.archive(*range(1, 11))
    scene.back_up(2)
    scene.back_up(3, age=-timedelta(days=365))
    text = metrics_text(judge(scene.facts(), HealthLimits()), spool_limit_bytes=10**9)
    at = (NOW - timedelta(hours=1)).timestamp()
    name = "wal_pipeline_store_last_base_backup_timestamp_seconds"
    given = [one for one in text_string_to_metric_families(text) if one.name == name]
    assert [sample.value for family in given for sample in family.samples] == [at, at]


def expressions() -> list[str]:
    """Return every expression of the alert rules and of the dashboard."""
    rules = yaml.safe_load((DEPLOY / "prometheus" / "alert-rules.yml").read_text())
    found = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    dashboard = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
    found += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return found + [item["definition"] for item in dashboard["templating"]["list"] if "definition" in item]


def test_rules_and_dashboard_use_known_names() -> None:
    """A metric that is renamed must not leave an alert silent."""
    assert len(expressions()) > 25
    used = {name for expression in expressions() for name in _NAME.findall(expression)}
    assert used - KNOWN == set()


def test_no_metric_is_given_that_nobody_looks_at() -> None:
    """Each is in the dashboard or a rule, or has a reason why not."""
    used = {name for expression in expressions() for name in _NAME.findall(expression)}
    assert KNOWN - used == {PREFIX + name for name in _NOT_DRAWN}


def test_no_two_panels_lie_over_each_other() -> None:
    """Each has an id and a place of its own."""
    panels = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) < 24


def test_expressions_are_balanced() -> None:
    """A crude look at the syntax, for want of promtool: every bracket closes."""
    for expression in expressions():
        opened: list[str] = []
        for sign in expression:
            if sign in "([{":
                opened.append(sign)
            elif sign in ")]}":
                assert opened and opened.pop() + sign in ("()", "[]", "{}"), expression
        assert not opened, expression


def test_textfile(tmp_path: Path) -> None:
    """It is replaced whole, can be read by all, and leaves nothing beside it."""
    path = tmp_path / "wal_pipeline.prom"
    for text in ("one 1\n", "two 2\n"):
        write_textfile(path, text)
    assert path.read_text() == "two 2\n"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_textfile_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """The error names the file."""
    path = tmp_path / "no" / "file.prom"
    with pytest.raises(SettingsError) as caught:
        write_textfile(path, "")
    assert caught.value.message == f"metrics cannot be written to '{path}': No such file or directory"
