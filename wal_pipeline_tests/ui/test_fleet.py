"""Tests that several clusters in one UI are told apart."""

import re

import pytest
from rich.text import Text

from wal_pipeline_tests.support.ui.browser import Screen
from wal_pipeline_tests.support.ui.history import FLEET, Fleet, wait

pytestmark = pytest.mark.ui
_SCHEDULED = re.compile(r"(?<!incremental_)base_backup_schedule\nScheduled At (\d\d:\d\d)")


def test_the_lineage_does_not_merge_the_clusters(fleet_ui: Screen) -> None:
    """Each box carries one cluster's name."""
    fleet_ui.open("/asset-groups", re.compile("billing"), re.compile("orders"), re.compile("users"))
    fleet_ui.picture("lineage-three-clusters")
    groups = set(re.findall(r"^\w+$", fleet_ui.text, re.MULTILINE))
    for cluster in FLEET:
        assert any(cluster in group for group in groups), groups
    assert not groups & {"recovery", "wal_archive", "base_backups", "cost"}


def test_no_run_is_listed_without_its_cluster(fleet_ui: Screen) -> None:
    """The runs of all three stand in one list, each with its cluster; no Celery is named, as there is none."""
    fleet_ui.open("/runs", *(re.compile(f"cluster: {name}") for name in FLEET))
    assert "celery" not in fleet_ui.text
    fleet_ui.picture("runs-three-clusters")


def test_the_schedules_do_not_all_begin_in_one_minute(fleet_ui: Screen, fleet: Fleet) -> None:
    """The three base backups begin at three minutes of the hour."""
    with fleet_ui.taller():
        fleet_ui.open("/automation", *FLEET)
        wait(fleet.dagster, lambda: len(_SCHEDULED.findall(fleet_ui.text)) == len(FLEET))
        found = _SCHEDULED.findall(fleet_ui.text)
    assert len(set(found)) == len(FLEET), found


def test_the_worst_cluster_is_not_the_last_line(fleet: Fleet) -> None:
    """One line for each cluster in the terminal, the worst first, and an exit code."""
    words = [word for name in FLEET for word in ("--env-file", str(fleet.clusters[name].env_file))]
    printed = fleet.clusters["orders"].terminal("status", *words)
    lines = Text.from_ansi(printed).plain.splitlines()
    assert [name for line in lines for name in FLEET if name in line.split()] == ["billing", "users", "orders"], printed
