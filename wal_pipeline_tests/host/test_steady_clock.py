"""Ages of files count from the last step of the clock, over processes, and restarts of the machine."""

import json
from pathlib import Path

from wal_pipeline.host.steady_clock import RECORD_NAME, SteadyTime


class Clocks:
    """The wall clock and the monotonic one, in seconds."""

    def __init__(self) -> None:
        self.wall = 1_000_000.0
        self.monotonic = 500.0

    def pass_time(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds


def steady(folder: Path, clocks: Clocks) -> SteadyTime:
    return SteadyTime(folder, 15.0, lambda: clocks.monotonic)


def test_without_a_step_an_age_is_what_the_clock_says(tmp_path: Path) -> None:
    """From the first look on; what lay there before is as old as that look, at least."""
    clocks = Clocks()
    assert steady(tmp_path, clocks).age_seconds(clocks.wall - 1000, clocks.wall) == 0
    clocks.pass_time(30)
    changed_at = clocks.wall
    clocks.pass_time(70)
    assert steady(tmp_path, clocks).age_seconds(changed_at, clocks.wall) == 70
    assert steady(tmp_path, clocks).age_seconds(1000.0, clocks.wall) == 100


def test_a_step_begins_anew(tmp_path: Path) -> None:
    """Forward or back, a file of before is as old as the time since; a file of after is as old as it is."""
    for step in (120.0, -120.0):
        clocks = Clocks()
        before = clocks.wall
        steady(tmp_path, clocks).age_seconds(before, clocks.wall)
        clocks.wall += step
        assert steady(tmp_path, clocks).age_seconds(before, clocks.wall) == 0
        after = clocks.wall
        clocks.pass_time(40)
        assert steady(tmp_path, clocks).age_seconds(before, clocks.wall) == 40
        assert steady(tmp_path, clocks).age_seconds(after, clocks.wall) == 40
        (tmp_path / RECORD_NAME).unlink()


def test_a_clock_that_is_adjusted_makes_no_step(tmp_path: Path) -> None:
    """Some seconds of difference are not noted, and not written."""
    clocks = Clocks()
    one = steady(tmp_path, clocks)
    one.age_seconds(clocks.wall, clocks.wall)
    written = (tmp_path / RECORD_NAME).stat().st_ino
    changed_at = clocks.wall
    clocks.pass_time(60)
    clocks.wall += 10
    assert one.age_seconds(changed_at + 10, clocks.wall) == 60
    assert (tmp_path / RECORD_NAME).stat().st_ino == written


def test_another_boot_or_a_broken_record_begins_anew(tmp_path: Path) -> None:
    """A record of before the machine's restart says nothing of its monotonic clock."""
    clocks = Clocks()
    steady(tmp_path, clocks).age_seconds(clocks.wall, clocks.wall)
    clocks.pass_time(100)
    record = json.loads((tmp_path / RECORD_NAME).read_text())
    for text in (json.dumps(record | {"boot_id": "another"}), "{", "[]", json.dumps(record | {"since": None})):
        (tmp_path / RECORD_NAME).write_text(text)
        assert steady(tmp_path, clocks).age_seconds(1000.0, clocks.wall) == 0


def test_a_folder_that_cannot_be_written_counts_from_this_process(tmp_path: Path) -> None:
    """Nothing is raised, and ages grow as long as the process lives."""
    clocks = Clocks()
    one = steady(tmp_path / "none", clocks)
    assert one.age_seconds(1000.0, clocks.wall) == 0
    clocks.pass_time(61)
    assert one.age_seconds(1000.0, clocks.wall) == 61


def test_a_folder_that_takes_long_to_list_is_no_step_of_the_clock(tmp_path: Path) -> None:
    """The moment of the listing stands still for its files; each looked like a step, and none ever settled."""
    clocks = Clocks()
    steady(tmp_path, clocks).ages(clocks.wall)
    clocks.pass_time(100)
    written = (tmp_path / RECORD_NAME).stat().st_ino
    age = SteadyTime(tmp_path, 0.0, lambda: clocks.monotonic).ages(clocks.wall)
    for _ in range(3):
        clocks.monotonic += 10
        assert age(clocks.wall - 50) == 50
    assert (tmp_path / RECORD_NAME).stat().st_ino == written
