"""Describes one item of a check: its name, its result, and its duration."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from wal_pipeline.errors import WalPipelineError


@dataclass(frozen=True, slots=True)
class CheckItem:
    """The result of one item. ``hint`` says how a person mends it; it is empty where nothing is to mend."""

    name: str
    ok: bool
    message: str
    hint: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class CheckReport:
    """All items, in the order in which a WAL file passes them."""

    items: tuple[CheckItem, ...]

    @property
    def ok(self) -> bool:
        """True where archiving works now."""
        return all(item.ok for item in self.items)


def try_item(name: str, action: Callable[[], str]) -> CheckItem:
    """Run one item. ``action`` returns its finding as text, or raises an error of ours, which fails this item alone."""
    begun = time.monotonic()
    try:
        message, hint, ok = action(), "", True
    except WalPipelineError as error:
        message, hint, ok = error.message, error.hint or "", False
    return CheckItem(name, ok, message, hint, time.monotonic() - begun)
