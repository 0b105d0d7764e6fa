"""Defines the figures of a measurement, each with its samples."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final

MIB: Final = 2**20
Samples = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of the result. Where ``value`` is None, it was not measured and ``note`` says why.

    ``unit``: ``x`` for a ratio (ours over theirs in throughput, more than 1 is faster, unless ``title`` says
    otherwise), ``s``, ``MiB`` or ``MB/s``. ``goal`` is text such as ``>= 1.5``; ``samples`` are kept in the JSON.
    """

    key: str
    title: str
    value: float | None
    unit: str = "x"
    goal: str = ""
    note: str = ""
    samples: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is reached; None where there is no goal or no value."""
        if not self.goal or self.value is None:
            return None
        sign, _, bound = self.goal.partition(" ")
        return self.value >= float(bound) if sign == ">=" else self.value <= float(bound)


def missing(key: str, title: str, reason: str, *, unit: str = "x", goal: str = "") -> Figure:
    """Return a figure without a value, with the reason."""
    return Figure(key, title, None, unit, goal, reason)


def alternately(contenders: Mapping[str, Callable[[], float]], repeats: int, say: Callable[[str], None]) -> Samples:
    """Run each contender once a round, and return the results of each (such as seconds) by round.

    Each round has an order of its own: a machine that gets slower or warmer favours nobody, and nobody always follows
    the same one, such as one whose stores still delete what it expired. What the one before left for the disk is
    written first.
    """
    found: Samples = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(repeats):
        for index in order(len(names), number):
            os.sync()
            found[names[index]].append(contenders[names[index]]())
        say(f"round {number + 1} of {repeats}: " + ", ".join(f"{name} {found[name][-1]:.2f}" for name in names))
    return found


def order(count: int, number: int) -> list[int]:
    """Return the order of ``count`` contenders in round ``number``, in which each follows another one than before.

    The steps are 1, 2, 3 and so on, around a circle of a prime number of places, of which some may be empty.
    """
    places = next(size for size in range(max(count, 2), 2 * count + 2) if all(size % one for one in range(2, size)))
    step = 1 + number % (places - 1)
    return [place for place in ((number + index * step) % places for index in range(places)) if place < count]


def ratio(samples: Samples, theirs: str, ours: str) -> float:
    """Return the median over the rounds of ``theirs`` by ``ours``: with seconds, how many times faster we are."""
    return median(their / our for their, our in zip(samples[theirs], samples[ours], strict=True))


def speed(size_bytes: int, seconds: Sequence[float]) -> str:
    """Return a throughput as text: the median of some runs over ``size_bytes``."""
    return f"{size_bytes / 1e6 / median(seconds):.0f} MB/s"


def timed(action: Callable[[], object]) -> float:
    """Return the wall time of a call in seconds."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
