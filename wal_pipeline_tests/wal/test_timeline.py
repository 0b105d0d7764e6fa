"""Timeline history files, and which timeline holds an LSN."""

from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from wal_pipeline.wal.lsn import MAX_LSN, Lsn
from wal_pipeline.wal.timeline import InvalidTimelineHistoryError, TimelineHistory, TimelineSwitch

MIB = 1 << 20
REASON = "no recovery target specified"
# Byte for byte what PostgreSQL 18 archived after a second promotion.
REAL = b"1\t0/50000A0\tno recovery target specified\n\n2\t0/BCA1F80\tno recovery target specified\n"
# After a target time PostgreSQL ends the line with two line feeds: restored to a time, then promoted.
TO_A_TIME = b"1\t0/3000000\tbefore 2026-11-29 13:22:21.370446+05:45\n\n\n2\t0/5000000\tafter 2026-11-30 00:00:00+00\n\n"


@st.composite
def histories(draw: st.DrawFn) -> TimelineHistory:
    """Any path that PostgreSQL can make."""
    timelines = sorted(draw(st.sets(st.integers(1, 0xFFFFFFFF), min_size=2, max_size=6)))
    positions = sorted(
        draw(st.lists(st.integers(1, MAX_LSN), min_size=len(timelines) - 1, max_size=len(timelines) - 1))
    )
    reasons = st.text(st.characters(exclude_characters="\n", exclude_categories=("Cs",)), max_size=20).map(str.strip)
    reasons |= st.sampled_from(
        ["before 2026-11-22 17:59:27+00", "after 2026-11-22 17:59:27.5+05:45", "before 7", REASON]
    )
    switches = (TimelineSwitch(tli, Lsn(at), draw(reasons)) for tli, at in zip(timelines, positions, strict=False))
    return TimelineHistory(timelines[-1], tuple(switches))


@given(histories())
def test_content_and_back(history: TimelineHistory) -> None:
    """A rendered history reads back as the same path."""
    assert TimelineHistory.parse(history.timeline, history.render()) == history


def test_real_content_is_rendered_to_the_byte() -> None:
    """Our rendering of a real file is that file."""
    history = TimelineHistory.parse(3, REAL)
    assert history == TimelineHistory(
        3, (TimelineSwitch(1, Lsn(0x50000A0), REASON), TimelineSwitch(2, Lsn(0xBCA1F80), REASON))
    )
    assert history.render() == REAL


def test_a_history_that_ends_at_a_target_time_is_whole() -> None:
    """The blank line after a time is PostgreSQL's own; the file reads and is rendered to the byte."""
    history = TimelineHistory.parse(3, TO_A_TIME)
    assert [switch.reason for switch in history.switches] == [
        "before 2026-11-29 13:22:21.370446+05:45",
        "after 2026-11-30 00:00:00+00",
    ]
    assert history.render() == TO_A_TIME


@pytest.mark.parametrize(
    "size", sorted(set(range(len(TO_A_TIME) - 1)) - {TO_A_TIME.index(b"\n") + 1, TO_A_TIME.index(b"\n") + 2})
)
def test_half_a_copy_after_a_target_time_is_refused(size: int) -> None:
    """A file cut anywhere is refused, but for a cut after a whole line, which looks like a shorter past."""
    with pytest.raises(InvalidTimelineHistoryError):
        TimelineHistory.parse(3, TO_A_TIME[:size])


@given(histories(), st.integers(0, MAX_LSN).map(Lsn))
def test_each_lsn_has_one_timeline(history: TimelineHistory, lsn: Lsn) -> None:
    """The ranges cover every LSN once, and ``timeline_at`` names the one that holds it."""
    holding = [part.timeline for part in history.ranges() if part.holds(lsn)]
    assert holding == [history.timeline_at(lsn)]


@given(histories(), st.integers(1, MAX_LSN).map(Lsn))
def test_the_path_to_an_lsn(history: TimelineHistory, lsn: Lsn) -> None:
    """The path to an LSN begins at 0, has no gap, ends at the LSN, and ends on the timeline of the byte before it."""
    path = history.path_to(lsn)
    assert path[0].start == 0
    assert path[-1].end == lsn
    assert all(one.end == other.start for one, other in pairwise(path))
    assert path[-1].timeline == history.timeline_at(Lsn(lsn - 1))


@given(histories(), st.integers(0, MAX_LSN).map(Lsn))
def test_a_fork_shares_the_past(history: TimelineHistory, lsn: Lsn) -> None:
    """A timeline that leaves the path at an LSN shares the timelines before it, and follows itself after it."""
    assume(history.timeline < 0xFFFFFFFF)
    fork = history.forked(history.timeline + 1, lsn, "promoted")
    assert fork.timeline_at(lsn) == history.timeline + 1
    assert lsn == 0 or fork.timeline_at(Lsn(lsn - 1)) == history.timeline_at(Lsn(lsn - 1))


@given(histories(), st.integers(0, MAX_LSN).map(Lsn))
def test_base_backups_on_the_path(history: TimelineHistory, lsn: Lsn) -> None:
    """WAL of a timeline is on the path up to where the path leaves the timeline, and not beyond."""
    for switch in history.switches:
        assert history.holds(switch.parent, lsn) == (lsn <= switch.lsn)
    assert history.holds(history.timeline, lsn)
    assert not history.holds(history.timeline + 1, lsn)


def test_the_byte_at_a_switch_is_the_new_timelines() -> None:
    """The LSN of a switch is the first one of the new timeline."""
    history = TimelineHistory.parse(3, REAL)
    assert [history.timeline_at(Lsn(lsn)) for lsn in (0x500009F, 0x50000A0, 0xBCA1F7F, 0xBCA1F80)] == [1, 2, 2, 3]


def test_segments_are_looked_for_on_the_newest_timeline_first() -> None:
    """In the segment of a switch, recovery asks for the new timeline's file, then the old one's."""
    history = TimelineHistory.parse(3, REAL)
    names = [[name.name for name in history.segment_candidates(number, 16 * MIB)] for number in (4, 5, 11)]
    assert names == [
        ["000000010000000000000004"],
        ["000000020000000000000005", "000000010000000000000005"],
        ["00000003000000000000000B", "00000002000000000000000B", "00000001000000000000000B"],
    ]


def test_comments_and_blank_lines_are_skipped() -> None:
    """Lines that PostgreSQL skips are skipped; zero-padded LSNs and spaces are read."""
    content = b"# by hand\n\n \t\n1 0/050000A0  before 2026-11-22 17:59:27+00\n"
    assert TimelineHistory.parse(2, content).switches == (
        TimelineSwitch(1, Lsn(0x50000A0), "before 2026-11-22 17:59:27+00"),
    )


def test_a_reason_in_any_encoding_is_kept() -> None:
    """A restore point's name may be in the server's encoding: its bytes are kept."""
    content = b'1\t0/1000\tat restore point "\xe9t\xe9"\n'
    assert TimelineHistory.parse(2, content).render() == content


@pytest.mark.parametrize("size", [size for size in range(len(REAL)) if size != REAL.index(b"\n") + 1])
def test_half_a_copy_is_refused(size: int) -> None:
    """A file cut anywhere is refused, but for a cut just after a line, which looks like a shorter past."""
    with pytest.raises(InvalidTimelineHistoryError) as caught:
        TimelineHistory.parse(3, REAL[:size])
    assert caught.value.message == f"'00000003.history' ends in the middle, after {size} bytes"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"# nothing\n", "has no entry, expected the timeline it came from"),
        (b"one\t0/1\tx\n", "has the line 'one\t0/1\tx', expected a timeline, an LSN and a reason"),
        (b"1\n", "has the line '1', expected a timeline, an LSN and a reason"),
        (b"1\tx/y\tz\n", "has the line '1\tx/y\tz': 'x/y' is not an LSN"),
        (b"1\t0/1\tx\n\n1\t0/2\tx\n", "has timeline 1 after timeline 1, expected increasing timelines"),
        (b"5\t0/1\tx\n", "has timeline 5 after timeline 5, expected increasing timelines"),
        (b"7\t0/1\tx\n", "has timeline 5 after timeline 7, expected increasing timelines"),
        (b"1\t0/2\tx\n\n2\t0/1\tx\n", "has a switch at 0/1 after one at 0/2, expected increasing positions"),
        (b"\0" * 40 + b"\n", "has the line '" + "\0" * 40 + "', expected a timeline, an LSN and a reason"),
    ],
)
def test_damaged_content_is_refused(content: bytes, message: str) -> None:
    """Each thing that PostgreSQL would stumble on during recovery is refused now, by name."""
    with pytest.raises(InvalidTimelineHistoryError) as caught:
        TimelineHistory.parse(5, content)
    assert caught.value.message == f"'00000005.history' {message}"
