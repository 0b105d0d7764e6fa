"""How far a search reads back for transactions that began before it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

from wal_pipeline.commands.find.look_back import earlier_parts
from wal_pipeline.commands.find.read_ahead import DecodedPart, PartReader
from wal_pipeline.commands.find.window import FindWindow, WalPart
from wal_pipeline.wal.names import segment_name
from wal_pipeline.wal.records.endings import RunningTransactions
from wal_pipeline_tests.support.wal_stretch import stretch

MIB = 1 << 20


@dataclass
class Segments:
    """Segments with the transactions that run in each: by number, next xid and oldest xid. None: it cannot be read."""

    running: dict[int, tuple[tuple[int, int], ...] | None]
    first: int
    read_numbers: list[int] = field(default_factory=list)

    def earlier(self) -> Iterator[WalPart]:
        for number in range(self.first - 1, 0, -1):
            yield WalPart(segment_name(1, number, MIB), is_early=True)

    def read(self, part: WalPart) -> DecodedPart:
        number = part.name.number(MIB)
        self.read_numbers.append(number)
        found = self.running.get(number, ())
        if found is None:
            return DecodedPart(part, 0, 0, fault="gone")
        running = [RunningTransactions(number * MIB, next_xid, oldest) for next_xid, oldest in found]
        return DecodedPart(part, 18, MIB, stretch(number * MIB, running=running))

    def numbers(self) -> list[int]:
        parts = earlier_parts(cast(PartReader, self), cast(FindWindow, self))
        return [one.part.name.number(MIB) for one in parts]


def test_up_to_a_record_from_before_the_oldest_that_runs() -> None:
    """In the order of the WAL, and no segment more."""
    assert Segments({9: ((100, 90),), 7: ((95, 89),), 6: ((90, 80),), 5: ((70, 70),)}, 10).numbers() == [6, 7, 8, 9]


def test_one_segment_is_enough_where_it_has_both() -> None:
    """A busy server logs what runs several times in a segment."""
    assert Segments({9: ((88, 88), (100, 90))}, 10).numbers() == [9]


def test_around_the_wraparound() -> None:
    """An xid after the wraparound is younger than one before it."""
    segments = Segments({9: ((40, 2**32 - 5),), 8: ((2**32 - 5, 2**32 - 9),), 7: ((2**32 - 9, 3),)}, 10)
    assert segments.numbers() == [8, 9]


def test_not_past_a_segment_that_cannot_be_read() -> None:
    """What lies behind it cannot be joined."""
    segments = Segments({9: (), 8: None}, 10)
    assert segments.numbers() == [9]
    assert segments.read_numbers == [9, 8]
