"""Which copies a deep verification reads this time: those that were read longest ago, up to a share of the bytes."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from wal_pipeline.commands.verify_faults import Item

_NEVER: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A copy that could be read: ``read_at`` is when its content was read last, None for never."""

    store: str
    item: Item
    size_bytes: int
    read_at: datetime | None


def choose_share(candidates: Iterable[Candidate], share: float) -> list[Candidate]:
    """Return the copies to read, those that were read longest ago first, until they make up ``share`` of the bytes.

    A share of a quarter, taken four times, has read everything that was there the first time.
    """
    ordered = sorted(candidates, key=lambda one: (one.read_at or _NEVER, one.item.kind, one.item.name, one.store))
    wanted = share * sum(one.size_bytes for one in ordered)
    chosen: list[Candidate] = []
    total = 0
    for candidate in ordered:
        if total >= wanted and share < 1:
            break
        chosen.append(candidate)
        total += candidate.size_bytes
    return chosen
