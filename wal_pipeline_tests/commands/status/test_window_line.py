"""The line and the picture reach to where the window reaches, and a past gap has a mark of its own."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from wal_pipeline.commands.report.charts import windows_svg
from wal_pipeline.commands.status.window_line import Cell, axis_of, draw, keep_visible
from wal_pipeline_tests.support.health_scene import NOW, SYSTEM, HealthScene, name


@pytest.fixture
def scene(tmp_path: Path) -> HealthScene:
    made = HealthScene(tmp_path)
    made.archive(*range(1, 11))
    made.back_up(2, timedelta(minutes=160))
    return made


def line(scene: HealthScene, store: str | None) -> str:
    facts = scene.facts()
    return "".join(draw(facts.windows, store, axis_of(facts.windows, facts.at), 16, facts.reaches))


def test_a_fresh_base_backup_of_an_idle_cluster_is_inside(scene: HealthScene) -> None:
    """Nothing was committed for hours, and a base backup was just taken."""
    scene.now += timedelta(hours=2)
    scene.back_up(10, timedelta(minutes=10))
    assert line(scene, "r2") == "◆━━━━━━━━━━━━━━◆"


def test_a_past_gap_is_marked_in_its_own_shape(scene: HealthScene) -> None:
    """Four segments are missing before the second base backup; the other store has them."""
    scene.catalog.files.remove_copy(SYSTEM, [name(n) for n in (4, 5, 6, 7)], "b2")
    scene.back_up(8, timedelta(minutes=15))
    assert line(scene, "b2") == "◆━━━━━━━░░░░░░◆━"
    assert line(scene, "r2") == "◆━━━━━━━━━━━━━◆━"
    facts = scene.facts()
    picture = windows_svg(facts.windows, NOW, facts.reaches)
    assert picture.count("stroke-dasharray='3 2'") == 2  # in the row of b2, and in the legend
    assert "past gap: from 2026-11-22 10:48:30 to 11:38:10, 4 segments, refillable from r2" in picture


def test_a_gap_without_a_known_commit_is_drawn(scene: HealthScene) -> None:
    """It lies right behind the base backup, in whose segment there is no commit."""
    records = {copy.name: copy for copy in scene.catalog.files.copies()}
    for file in scene.catalog.files.files():
        quiet = replace(file, first_commit_at=None, last_commit_at=None)
        scene.catalog.files.record_found([quiet], [records[file.name]])
    scene.catalog.files.remove_copy(SYSTEM, [name(4)], "b2")
    assert "✖" in line(scene, "b2")


def test_a_past_gap_between_close_base_backups_is_not_hidden() -> None:
    """Its mark stands even where both base backups fall on the same cell."""
    cells = [Cell.BACKUP, Cell.NOTHING, Cell.BACKUP]
    keep_visible(cells, 0.0, 0.1)
    keep_visible(cells, 0.5, 0.5)
    assert cells == [Cell.PAST_GAP, Cell.NOTHING, Cell.BACKUP]
