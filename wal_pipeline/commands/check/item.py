"""One item of a check: what was tried, whether it went well, and how long it took."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from wal_pipeline.errors import WalPipelineError


@dataclass(frozen=True, slots=True)
class CheckItem:
    """The result of one item. ``hint`` is what the person can do, empty where there is nothing to do."""

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
    """Run one item: ``action`` returns what it saw, or raises one of our errors, which fails this item alone."""
    begun = time.monotonic()
    try:
        message, hint, ok = action(), "", True
    except WalPipelineError as error:
        message, hint, ok = error.message, error.hint or "", False
    return CheckItem(name, ok, message, hint, time.monotonic() - begun)
