"""The spool sensor's tick ends in time, however long a look at the spool takes."""

from dataclasses import dataclass, field

from wal_pipeline.commands.archive_push.pending import PendingWork
from wal_pipeline.orchestration.sensors.spool import Looks

NOTHING = PendingWork(0, 0, 0, (), is_due=False, resting=())


@dataclass
class SlowSpool:
    """A spool whose listing takes long. ``now`` is a clock of its own."""

    seconds: float
    now: float = 0.0
    looks: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now

    def look(self) -> PendingWork:
        self.looks.append(self.now)
        self.now += self.seconds
        return NOTHING


def test_a_tick_does_not_begin_a_look_that_dagster_would_cut_off() -> None:
    """With 14 s a look, a tick of 50 s has three of them at most, and none that ends after it."""
    spool = SlowSpool(14.0)
    looks = Looks(spool.look, 50.0, monotonic=spool.monotonic)
    while looks.look() is not None:
        pass
    assert spool.looks == [0.0, 14.0, 28.0]
    assert spool.now == 42.0
    assert looks.described() == []


def test_a_full_spool_is_not_listed_without_a_pause() -> None:
    """Each segment changes the folder: a new look waits twice as long as the last one took."""
    spool = SlowSpool(4.0)
    looks = Looks(spool.look, 50.0, monotonic=spool.monotonic)
    assert looks.may_look_again()
    looks.look()
    assert not looks.may_look_again()
    spool.now += 8.0
    assert looks.may_look_again()
    assert not looks.is_old()
    spool.now += 0.1
    assert looks.is_old()


def test_a_quick_look_is_taken_at_once() -> None:
    """An empty spool is listed in no time, and a new file is seen at once."""
    spool = SlowSpool(0.001)
    looks = Looks(spool.look, 50.0, monotonic=spool.monotonic)
    assert looks.described() == ["the spool is empty"]
    spool.now += 0.1
    assert looks.may_look_again()
    assert not looks.is_old()
