"""Joining pieces: what is joined is the beginning of one history, and the longest that the pieces prove."""

import hashlib
from dataclasses import replace
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from wal_pipeline.archive.records import CommitTimes
from wal_pipeline.archive.recovery.tail import HeldPiece, JoinedTail, join_pieces, join_tails
from wal_pipeline_tests.support.pieces import FLUSHED_AT, cut, held, with_commits

NAME = "000000010000000000000003"
SIZE = 1 << 20
SYSTEM = 77
LENGTH = 64  # of the histories here: a few bytes are enough, since only digests are compared


def pieces_of(data: bytes, *places: int, store: str = "r2") -> list[HeldPiece]:
    """Cut a history at these places."""
    return held(cut(NAME, data, places, system_identifier=SYSTEM, wal_segment_size=SIZE), store)


def content(tail: JoinedTail | None, histories: dict[str, bytes]) -> bytes:
    """Return the bytes of a tail's pieces, each from the history whose store holds it."""
    if tail is None:
        return b""
    return b"".join(histories[one.store][one.piece.from_offset : one.piece.to_offset] for one in tail.pieces)


def histories(seed: int, parts_at: int) -> tuple[bytes, bytes]:
    """Return two contents of one segment that agree up to ``parts_at`` and differ in each byte from there on."""
    one = hashlib.sha512(str(seed).encode()).digest()[:LENGTH]
    return one, one[:parts_at] + bytes(byte ^ 0xFF for byte in one[parts_at:])


places = st.lists(st.integers(1, LENGTH), min_size=1, max_size=12, unique=True).map(lambda some: [0, *sorted(some)])


def test_pieces_that_follow_one_another_are_joined() -> None:
    """In any order; the tail ends with the last."""
    data = bytes(range(LENGTH))
    tail = join_pieces(reversed(pieces_of(data, 0, 10, 20, 50)))
    assert tail is not None
    assert [one.piece.to_offset for one in tail.pieces] == [10, 20, 50]
    assert (tail.end_offset, tail.end_lsn, tail.is_whole, tail.conflict) == (50, 3 * SIZE + 50, False, None)
    assert tail.flushed_at == FLUSHED_AT + timedelta(seconds=2)


def test_nothing_begins_the_segment() -> None:
    """The first piece is missing, or there is none."""
    assert join_pieces([]) is None
    assert join_pieces(pieces_of(bytes(LENGTH), 0, 10, 20)[1:]) is None


def test_a_hole_ends_the_tail() -> None:
    """What lies behind it is not used."""
    first, _, third = pieces_of(bytes(LENGTH), 0, 10, 20, 30)
    tail = join_pieces([first, third])
    assert tail is not None
    assert tail.end_offset == 10


def test_a_merged_piece_is_taken_for_its_parts() -> None:
    """A restore reads few objects where small pieces and merged ones lie there together."""
    data = bytes(range(LENGTH))
    small, merged = pieces_of(data, *range(0, 50, 5)), pieces_of(data, 0, 40)
    tail = join_pieces([*small, *merged])
    assert tail is not None
    assert [one.piece.to_offset for one in tail.pieces] == [40, 45]


def test_pieces_of_two_stores_complete_each_other() -> None:
    """Where they were cut at the same place, one store's piece continues the other's."""
    data = bytes(range(LENGTH))
    r2, b2 = pieces_of(data, 0, 10, 20, 30), pieces_of(data, 0, 20, 25, 60, store="b2")
    tail = join_pieces([r2[0], r2[1], *b2[1:]])
    assert tail is not None
    assert (tail.end_offset, tail.stores) == (60, ("b2", "r2"))


def test_two_histories_end_the_tail_where_they_agree() -> None:
    """Two servers shipped the same segment after they parted, and both claim the same place."""
    one, other = histories(1, 15)
    tail = join_pieces([*pieces_of(one, 0, 10, 20, 30), *pieces_of(other, 0, 10, 20, 40, store="b2")])
    assert tail is not None
    assert tail.end_offset == 10
    assert tail.conflict == (
        f"pieces of '{NAME}' are of two histories: up to offset 20 they hold different content, and they agree up to "
        "offset 10, where this tail ends"
    )


def test_two_histories_that_agree_on_nothing_leave_nothing() -> None:
    """The tail is empty, and says why."""
    one, other = histories(1, 5)
    tail = join_pieces([*pieces_of(one, 0, 10), *pieces_of(other, 0, 10, store="b2")])
    assert tail is not None
    assert (tail.end_offset, tail.pieces) == (0, ())
    assert tail.conflict is not None
    assert join_tails({NAME: [*pieces_of(one, 0, 10), *pieces_of(other, 0, 10, store="b2")]}, set(), {"r2", "b2"}) == {}


def test_a_whole_segment_needs_no_pieces() -> None:
    """They count where none of the chosen stores has it, and only those of the chosen stores."""
    pieces = {NAME: [*pieces_of(bytes(LENGTH), 0, 10), *pieces_of(bytes(LENGTH), 0, 10, 20, store="b2")]}
    assert join_tails(pieces, {NAME}, {"r2", "b2"}) == {}
    assert join_tails(pieces, set(), {"r2"})[1][3].end_offset == 10
    assert join_tails(pieces, set(), {"r2", "b2"})[1][3].end_offset == 20


def test_the_commits_of_a_tail_are_those_of_its_pieces() -> None:
    """They are known where they are known of each piece; a piece without a commit is known too."""
    first, second, third = cut(NAME, bytes(LENGTH), [0, 10, 20, 30], system_identifier=SYSTEM, wal_segment_size=SIZE)
    at = FLUSHED_AT - timedelta(minutes=1)
    pieces = [with_commits(first, at, at + timedelta(seconds=5)), second, third]
    tail = join_pieces(held(pieces))
    assert tail is not None
    assert (tail.commit_times, tail.first_commit_at, tail.last_commit_at) == (
        CommitTimes.KNOWN,
        at,
        at + timedelta(seconds=5),
    )
    unknown = join_pieces(held([*pieces[:2], replace(third, commit_times=CommitTimes.UNKNOWN)]))
    assert unknown is not None
    assert (unknown.commit_times, unknown.last_commit_at) == (CommitTimes.UNKNOWN, at + timedelta(seconds=5))
    assert unknown.record().commit_times is CommitTimes.UNKNOWN


@given(places, st.data())
def test_any_pieces_of_one_history_are_joined_as_far_as_they_lead(cuts: list[int], data: st.DataObject) -> None:
    """Merged, repeated, lost and on several stores: against a search over the offsets alone."""
    history, _ = histories(data.draw(st.integers(0, 9)), 0)
    spans = [(begin, end) for index, begin in enumerate(cuts) for end in cuts[index + 1 :]]
    chosen = data.draw(st.lists(st.sampled_from(spans), max_size=20))
    stores = data.draw(st.lists(st.sampled_from(["r2", "b2"]), min_size=len(chosen), max_size=len(chosen)))
    pieces = [pieces_of(history, *span, store=store)[0] for span, store in zip(chosen, stores, strict=True)]
    reached = {0}
    for begin, end in sorted(chosen):
        reached |= {end} if begin in reached else set()
    tail = join_pieces(data.draw(st.permutations(pieces)))
    assert (0 if tail is None else tail.end_offset) == max(reached)
    assert content(tail, {"r2": history, "b2": history}) == history[: max(reached)]
    assert tail is None or tail.conflict is None


@settings(max_examples=300)
@given(places, places, st.integers(0, LENGTH), st.data())
def test_pieces_of_two_histories_make_the_beginning_of_one(
    first: list[int], second: list[int], parts_at: int, data: st.DataObject
) -> None:
    """Whatever is lost: no byte of one is joined to the other's; where they disagree, it is a true part."""
    one, other = histories(data.draw(st.integers(0, 9)), parts_at)
    pieces = [*pieces_of(one, *first), *pieces_of(other, *second, store="b2")]
    kept = data.draw(st.lists(st.sampled_from(pieces), max_size=20))
    tail = join_pieces(kept)
    if tail is None:
        assert not any(piece.piece.from_offset == 0 for piece in kept)
        return
    joined = content(tail, {"r2": one, "b2": other})
    assert joined in (one[: tail.end_offset], other[: tail.end_offset])
    if tail.conflict is not None:
        assert joined == one[: tail.end_offset] == other[: tail.end_offset]
