"""A drill's moment is drawn from the whole window, where the last replayed commit is known beforehand."""

from itertools import pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.archive.recovery.drill_choice import choose_drill
from wal_pipeline.archive.recovery.target import RecoveryTarget, TargetKind
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import segment_name

SIZE = 1 << 24
SEGMENTS_PER_LOG = (1 << 32) // SIZE


def drawing(seed: int) -> Random:
    """Return the source of the draw; no secret depends on it."""
    return Random(seed)  # noqa: S311


def names(timeline: int, first: int, count: int) -> list[str]:
    """Segment names in a row."""
    return [segment_name(timeline, number, SIZE).name for number in range(first, first + count)]


@st.composite
def plans(draw: st.DrawFn) -> tuple[list[str], Lsn]:
    """The files of a restore plan, over one to three timelines with their history files, and a base backup's stop."""
    number, files = draw(st.integers(1, 2 * SEGMENTS_PER_LOG)), []
    begin = number
    for timeline in range(1, draw(st.integers(1, 3)) + 1):
        count = draw(st.integers(1, 6))
        files += [f"{timeline:08X}.history"] if timeline > 1 else []
        files += names(timeline, number, count)
        number += count - 1  # a new timeline begins in the segment in which the old one ends
    stop = begin * SIZE + draw(st.integers(0, (number - begin + 1) * SIZE - 1))
    return files, Lsn(stop)


@given(plans(), st.integers(0, 1 << 30))
def test_what_is_replayed_ends_just_before_the_target(plan: tuple[list[str], Lsn], seed: int) -> None:
    """Replayed are all segments up to the last whole one; the target is its end, or the archive's."""
    files, stop = plan
    segments = [name for name in files if not name.endswith(".history")]
    choice = choose_drill(files, stop, SIZE, drawing(seed))
    assert choice is not None
    replayed = [file.name for file in choice.replayed]
    assert replayed == segments[: len(replayed)]
    assert choice.last.name == replayed[-1]
    if choice.next_file is None:
        assert (replayed, choice.target) == (segments, RecoveryTarget())
    else:
        assert choice.next_file.name == segments[len(replayed)]
        end = choice.last.end_lsn(SIZE)
        assert choice.target == RecoveryTarget(kind=TargetKind.LSN, lsn=end, inclusive=False)
        assert end >= stop
        assert choice.next_file.start_lsn(SIZE) == end


@given(plans())
def test_every_moment_that_can_be_foretold_is_drawn_sooner_or_later(plan: tuple[list[str], Lsn]) -> None:
    """No segment after the base backup's stop is left out, but those that a switch of timelines leaves in the midst."""
    files, stop = plan
    segments = [name for name in files if not name.endswith(".history")]
    left_midst = {name for name, after in pairwise(segments) if int(name[8:], 16) == int(after[8:], 16)}
    wanted = {name for name in segments[:-1] if name not in left_midst and _end(name) >= int(stop)} | {segments[-1]}
    choices = [choose_drill(files, stop, SIZE, drawing(seed)) for seed in range(400)]
    drawn = {choice.last.name for choice in choices if choice is not None}
    assert drawn == wanted


def test_no_segment_leaves_nothing_to_choose() -> None:
    """A base backup without any WAL after it has no moment to restore to."""
    assert choose_drill(["00000002.history"], Lsn(SIZE), SIZE, drawing(1)) is None


def test_the_same_seed_draws_the_same_moment() -> None:
    """A failed drill can be done again with its seed."""
    files = names(1, 3, 9)
    drawn = [choose_drill(files, Lsn(3 * SIZE), SIZE, drawing(7)) for _ in range(2)]
    assert drawn[0] == drawn[1]


def _end(name: str) -> int:
    return (int(name[8:16], 16) * SEGMENTS_PER_LOG + int(name[16:], 16) + 1) * SIZE
