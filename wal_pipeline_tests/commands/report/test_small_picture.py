"""Tests that the small picture stays small, is well-formed, and shows windows, gaps and base backups."""

from datetime import timedelta
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from wal_pipeline.commands.report.small_picture import MOST_BYTES, small_windows_svg
from wal_pipeline_tests.support.health_scene import HealthScene

_SVG = "{http://www.w3.org/2000/svg}"
GREEN, RED, BLUE = "#16a34a", "#dc2626", "#1e3a8a"


@pytest.fixture
def scene(tmp_path: Path) -> HealthScene:
    return HealthScene(tmp_path)


def drawn(scene: HealthScene) -> dict[str, int]:
    """Return the number of bars or lines of each colour, and that of the texts."""
    text = small_windows_svg(scene.facts())
    assert len(text) <= MOST_BYTES
    root = ET.fromstring(text)  # noqa: S314 - our own text
    paths = {
        one.get("fill") or one.get("stroke") or "": one.get("d", "").count("M") for one in root.iter(f"{_SVG}path")
    }
    return paths | {"texts": len(list(root.iter(f"{_SVG}text")))}


def test_a_bar_for_any_store_and_for_each(scene: HealthScene) -> None:
    """Each row has its name, its window and its base backup; two texts are the ends of the axis."""
    scene.archive(*range(1, 11))
    scene.back_up(2)
    assert drawn(scene) == {GREEN: 3, BLUE: 3, "texts": 5}


def test_an_open_gap_is_red_on_its_store(scene: HealthScene) -> None:
    """A gap of one store is none of any store, where the other one has the segments."""
    scene.archive(*range(1, 11), on=("r2",))
    scene.archive(1, 2, 3, 7, 8, 9, 10, on=("b2",))
    scene.back_up(1, timedelta(hours=2))
    assert drawn(scene)[RED] == 1


def test_an_empty_archive_has_a_picture_too(scene: HealthScene) -> None:
    """There is an axis and no bar."""
    assert drawn(scene) == {"texts": 5}


def test_many_base_backups_do_not_make_it_large(scene: HealthScene) -> None:
    """The oldest lines are left out; the bars stay."""
    scene.archive(*range(1, 101))
    for number in range(1, 90):
        scene.back_up(number, timedelta(hours=100 - number))
    found = drawn(scene)
    assert found[GREEN] == 3
    assert 1 <= found[BLUE] < 89 * 3
