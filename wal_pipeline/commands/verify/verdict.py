"""Keeps what the last verification of all stores found to be lost: expiry waits for nothing that nobody can heal."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.commands.verify.results import Item, ItemKind, Verification

_KEY: Final = "last_verification"
_MOST: Final = 20_000  # items; of more that are lost, the rest blocks expiry until a person has looked


@dataclass(frozen=True, slots=True)
class Verdict:
    """The last verification in which every store answered: when it began, and what no store has a good copy of."""

    begun_at: datetime
    lost: frozenset[Item]


def record_verdict(catalog: Catalog, done: Verification) -> None:
    """Keep the verdict of a verification. One in which a store was silent proves no loss, and is not kept.

    Raises: CatalogError.
    """
    if not done.silent:
        lost = [[str(one.system_identifier), one.kind.value, one.name] for one in _first(done.lost)]
        catalog.values.put(_KEY, {"begun_at": done.begun_at.isoformat(), "lost": lost})


def read_verdict(catalog: Catalog) -> Verdict | None:
    """Return the last verdict; None where there is none. Raises: CatalogError."""
    value = catalog.values.get(_KEY)
    if not value:
        return None
    lost = (Item(int(identifier), ItemKind(kind), name) for identifier, kind, name in value["lost"])
    return Verdict(datetime.fromisoformat(value["begun_at"]), frozenset(lost))


def _first(items: Iterable[Item]) -> list[Item]:
    return sorted(items, key=lambda one: (one.system_identifier, one.kind, one.name))[:_MOST]
