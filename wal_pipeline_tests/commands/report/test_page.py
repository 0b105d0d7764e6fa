"""The report page: whole in itself, and with the figures of the records."""

import re
from datetime import timedelta
from pathlib import Path
from xml.etree import ElementTree

import pytest

from wal_pipeline.archive.alerts import AlertKind, Observation
from wal_pipeline.archive.cost import DEFAULT_PRICES
from wal_pipeline.commands.health.rules import HealthLimits
from wal_pipeline.commands.report.charts import Series, lines_svg, ticks, windows_svg
from wal_pipeline.commands.report.figures import figures, rules
from wal_pipeline.commands.report.page import render_report
from wal_pipeline.commands.status.status import judge
from wal_pipeline.commands.status.window_line import Axis
from wal_pipeline_tests.support.health_scene import NOW, SIZE, SYSTEM, HealthScene, name
from wal_pipeline_tests.support.tail_records import ship_well


@pytest.fixture
def scene(tmp_path: Path) -> HealthScene:
    made = HealthScene(tmp_path)
    made.archive(*range(1, 11))
    made.back_up(2)
    made.catalog.stores.count_events("b2", NOW, failed=5)
    made.catalog.files.remove_copy(SYSTEM, [name(6)], "b2")
    made.catalog.alerts.observe(AlertKind.DAMAGE, Observation("x", "<script>alert(1)</script>"), NOW)
    return made


def page_of(scene: HealthScene) -> str:
    status = judge(scene.facts(), HealthLimits())
    return render_report(status, scene.catalog, HealthLimits(), dict(DEFAULT_PRICES), days=7)


def test_needs_no_network(scene: HealthScene) -> None:
    """The page loads nothing and runs nothing, whatever stands in a message."""
    page = page_of(scene)
    assert re.findall(r"(?:src|href|url\(|@import)[^>]{0,20}", page) == []
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_pictures_are_xml(scene: HealthScene) -> None:
    """Five pictures, each well-formed; the gap is red in the first."""
    found = re.findall(r"<svg.*?</svg>", page_of(scene), re.DOTALL)
    assert len(found) == 5
    for picture in found:
        ElementTree.fromstring(picture)  # noqa: S314 - our own
    assert "open gap: from " in found[0]
    assert ", 1 segment, refillable from " in found[0]


def test_says_what_it_must(scene: HealthScene) -> None:
    """The parts that the operator looks for are there."""
    page = page_of(scene)
    for part in ("What can be recovered", "Lag:", "Stored WAL", "Compression", "Failures", "Cost", "66.67 %", "5.2"):
        assert part in page, part
    assert "main can be recovered to 2026-11-22 11:58:30 UTC from " in page


def test_says_how_far_the_open_segment_is_shipped(scene: HealthScene) -> None:
    """A row for each store; where shipping is off the page says what that costs."""
    assert "off: a lost host costs the commits since the last finished segment" in page_of(scene)
    ship_well(scene)
    page = page_of(scene)
    assert "running; r2 0.4 s behind, p99 5.2 s; b2 0.4 s behind, p99 5.2 s; promised 6.0 s" in page
    assert page.count("p50 2.6 s, p99 5.2 s") == 2


def test_empty_archive(tmp_path: Path) -> None:
    """It can be made on the first day, and says that nothing can be recovered."""
    page = page_of(HealthScene(tmp_path))
    assert "this host has no records of main: whether it can be recovered was not looked at" in page
    assert "nothing was archived" in page


def test_figures(scene: HealthScene) -> None:
    """Sums, ratios and counts are those of the records of the period."""
    copies, events = scene.catalog.frames.copies(), scene.catalog.frames.archive_events()
    made = figures(copies, events, ["r2", "b2"], Axis(NOW - timedelta(days=1), NOW))
    assert [(row.codec, row.files, row.size_bytes, row.stored_bytes) for row in made.compression] == [
        ("gzip", 10, 10 * SIZE, 10 * 200_000)
    ]
    assert [(row.store, row.attempted, row.failed) for row in made.failures] == [("r2", 10, 0), ("b2", 15, 5)]
    assert [series.points[-1][1] for series in made.storage] == [10 * 200_000, 9 * 200_000]
    assert {value for series in made.lag for _, value in series.points} == {2.0}


@pytest.mark.parametrize(("greatest", "expected"), [(0.0, 5), (8, 5), (9.5, 6), (100, 5), (1234, 6)])
def test_rules_are_round_and_cover(greatest: float, expected: int) -> None:
    """Four to seven rules from 0 to above the greatest value."""
    found = rules([Series("x", [(NOW, greatest)])])
    assert found[0] == 0
    assert found[-1] >= greatest
    assert 3 <= len(found) <= 7
    assert abs(len(found) - expected) <= 1


@pytest.mark.parametrize("hours", [0.1, 1, 5, 24, 200, 720, 9000])
def test_ticks_lie_within_and_are_few(hours: float) -> None:
    """A time axis has some round moments, whatever its length."""
    axis = Axis(NOW - timedelta(hours=hours), NOW)
    found = ticks(axis)
    assert 1 <= len(found) <= 10
    assert all(axis.begin_at <= at <= axis.end_at and at.second == 0 for at in found)


def test_windows_picture_of_nothing(tmp_path: Path) -> None:
    """An archive without anything has an empty picture, not an error."""
    ElementTree.fromstring(windows_svg(HealthScene(tmp_path).facts().windows, NOW))  # noqa: S314 - our own


def test_a_single_point_is_not_drawn_as_nothing() -> None:
    """A line of one point has no length: it is a dot."""
    axis = Axis(NOW - timedelta(days=1), NOW)
    one, two = Series("one", [(NOW, 1.0)]), Series("two", [(NOW - timedelta(hours=1), 1.0), (NOW, 2.0)])
    assert lines_svg([one], axis, label={0: "0", 2: "2 s"}).count("<circle") == 1
    assert "<circle" not in lines_svg([two], axis, label={0: "0", 2: "2 s"})


def test_a_long_label_is_not_cut_at_the_edge() -> None:
    """The picture begins as far to the right as the longest label needs."""
    axis = Axis(NOW - timedelta(days=1), NOW)
    picture = lines_svg([], axis, label={0: "0", 1: "1000.0 MiB a day"})
    [begin] = re.findall(r"<text x='([\d.]+)'[^>]*text-anchor='end'[^>]*>1000.0 MiB a day", picture)
    assert float(begin) >= 8 * len("1000.0 MiB a day")
