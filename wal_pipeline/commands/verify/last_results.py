"""Keeps what the last verification found on each store, for the screens that another process draws."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.commands.verify.results import ItemKind, Verification

_KEY: Final = "verification_results"
_NAMES, _CONTENT = "names", "content"
_MOST_NAMED: Final = 20


@dataclass(frozen=True, slots=True)
class StoreResult:
    """The result of one verification for one kind of copies on one store.

    ``is_deep``: it read the content of a share, not only names and sizes. ``silent``: why the store was left out, or
    not finished. ``faults`` were not healed, and ``lost`` of them have no good copy on any store. ``first_faults`` are
    messages, 20 at most.
    """

    begun_at: datetime
    is_deep: bool
    store: str
    kind: ItemKind
    silent: str | None
    copies: int
    stored_bytes: int
    read: int
    read_bytes: int
    unrecorded: int
    faults: int
    lost: int
    first_faults: tuple[str, ...]

    @property
    def is_right(self) -> bool:
        """Whether the store answered and all of these copies are as they should be."""
        return self.silent is None and not self.faults

    @property
    def sentence(self) -> str:
        """The result as a sentence for a person."""
        if self.silent is not None:
            return f"not verified: {self.silent}"
        if not self.faults:
            return "all is as it should be"
        nowhere = f", {self.lost} of them have no good copy on any store" if self.lost else ""
        return f"{self.faults} copies are missing or damaged{nowhere}; first: {self.first_faults[0]}"


def results_of(done: Verification) -> Iterator[StoreResult]:
    """Yield the result of each store, for its WAL files and for its base backups."""
    for store, tally in done.tallies.items():
        for kind in ItemKind:
            faults = [one for one in done.open_faults if one.store == store and one.item.kind is kind]
            yield StoreResult(
                begun_at=done.begun_at,
                is_deep=done.is_deep,
                store=store,
                kind=kind,
                silent=done.silent.get(store),
                copies=tally.items,
                stored_bytes=tally.stored_bytes,
                read=tally.read,
                read_bytes=tally.read_bytes,
                unrecorded=len(tally.unrecorded),
                faults=len(faults),
                lost=sum(fault.item in done.lost for fault in faults),
                first_faults=tuple(fault.message for fault in faults[:_MOST_NAMED]),
            )


def record_results(catalog: Catalog, done: Verification) -> None:
    """Keep the results of a verification: of names and sizes, and of the content where that was read.

    Raises: CatalogError.
    """
    values = [_as_json(result) for result in results_of(done)]
    kept = dict(catalog.values.get(_KEY) or {})
    catalog.values.put(_KEY, {**kept, _NAMES: values, **({_CONTENT: values} if done.is_deep else {})})


def read_results(catalog: Catalog) -> tuple[StoreResult, ...]:
    """Return the results of the last verification, and those of the last deep one where it is another.

    Raises: CatalogError.
    """
    kept = catalog.values.get(_KEY) or {}
    found = [_from_json(value) for name in (_CONTENT, _NAMES) for value in kept.get(name, ())]
    return tuple(dict.fromkeys(found))


def _as_json(result: StoreResult) -> dict[str, Any]:
    plain = {name: getattr(result, name) for name in StoreResult.__slots__}
    return plain | {"begun_at": result.begun_at.isoformat(), "first_faults": list(result.first_faults)}


def _from_json(value: dict[str, Any]) -> StoreResult:
    moved = {
        "begun_at": datetime.fromisoformat(value["begun_at"]),
        "kind": ItemKind(value["kind"]),
        "first_faults": tuple(value["first_faults"]),
    }
    return StoreResult(**(value | moved))
