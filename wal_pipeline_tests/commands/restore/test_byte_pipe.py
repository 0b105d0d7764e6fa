"""Bytes pass from thread to thread in order; each side's end is the other's."""

import threading

import pytest

from wal_pipeline.commands.restore.byte_pipe import Sink, relayed, through

BLOCK = bytes(8 << 20)


def counted(sink: Sink) -> None:
    """Produce the numbers 0 to 99 as single bytes."""
    for number in range(100):
        sink(bytes([number]))


def test_the_bytes_come_in_their_order_and_each_was_shown() -> None:
    """What arrives is what was produced, and whoever looks has seen all of it before the end."""
    seen = bytearray()
    with relayed(through(counted, seen.extend, "look"), "make") as chunks:
        assert b"".join(chunks) == bytes(range(100))
    assert seen == bytes(range(100))


def test_the_producers_error_comes_after_its_bytes() -> None:
    """Whoever takes gets all that was made, then the error itself."""

    def produce(sink: Sink) -> None:
        sink(b"x")
        raise ValueError("broken")

    taken = []
    with pytest.raises(ValueError, match=r"^broken$"), relayed(produce, "make") as chunks:
        taken.extend(chunks)
    assert taken == [b"x"]


@pytest.mark.parametrize("stages", [1, 2])
def test_whoever_gives_up_ends_the_producer(stages: int) -> None:
    """An error in the block is the one that is raised, and no thread is left."""
    before = threading.active_count()
    ended = []

    def produce(sink: Sink) -> None:
        try:
            while True:
                sink(BLOCK)
        except BrokenPipeError:
            ended.append(True)
            raise

    producer = produce if stages == 1 else through(produce, lambda _chunk: None, "look")
    with pytest.raises(ValueError, match=r"^enough$"), relayed(producer, "make") as chunks:
        next(chunks)
        raise ValueError("enough")
    assert ended == [True]
    assert threading.active_count() == before


def test_only_a_few_chunks_are_held() -> None:
    """A producer that is faster waits; one chunk that is larger than the bound still passes."""
    made = []

    def produce(sink: Sink) -> None:
        sink(bytes(40 << 20))
        for _ in range(20):
            made.append(True)
            sink(BLOCK)

    with relayed(produce, "make") as chunks:
        assert len(next(chunks)) == 40 << 20
        first = next(chunks)
        held = len(made)
        assert len(first) == len(BLOCK)
        assert held <= 6  # four are held, one was taken, one waits
        assert sum(len(chunk) for chunk in chunks) == 19 * len(BLOCK)
