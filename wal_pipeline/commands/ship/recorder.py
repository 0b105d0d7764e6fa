"""Writes the shipper's state into the catalog beside its work, and reads whether it is paused.

A catalog that hangs, is down or full delays no piece: the stores are the truth, and the next writing makes up for it.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from wal_pipeline.archive.records import CopyStatus
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.commands.pause import current_pause
from wal_pipeline.commands.ship.records import Shipping, put_shipping, put_tail
from wal_pipeline.commands.ship.store_tail import StoreTail
from wal_pipeline.errors import CatalogError

_ROUND_SECONDS: Final = 1.0
_SIGN_SECONDS: Final = 60.0
_FAILED_ROUND_SECONDS: Final = 5.0
_log = logging.getLogger(__name__)


class ShippingRecorder:
    """Records one shipper, in a thread of its own."""

    def __init__(
        self,
        catalog: Callable[[], Catalog],
        clock: Callable[[], datetime],
        *,
        shipping: Callable[[], Shipping],
        tails: Sequence[StoreTail],
    ) -> None:
        """``catalog`` opens it, and may raise CatalogError. ``shipping`` returns the state without its moment."""
        self._catalog = catalog
        self._clock = clock
        self._shipping = shipping
        self._tails = tails
        self._serials: dict[str, int] = {}
        self._written: Shipping | None = None
        self._signed_at = float("-inf")
        self._is_failing = False
        self._paused = False
        self._first_round = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ship-recorder", daemon=True)

    @property
    def paused(self) -> bool:
        """Whether archiving, and so shipping, is paused by the catalog's last word."""
        return self._paused

    def start(self, wait_seconds: float) -> None:
        """Begin, and wait so long at most to learn whether there is a pause."""
        self._thread.start()
        self._first_round.wait(wait_seconds)

    def stop(self, timeout_seconds: float) -> None:
        """Write what is new, and end."""
        self._stopping.set()
        self._thread.join(timeout_seconds)

    def is_archived(self, system_identifier: int, store: str, segment: str) -> bool:
        """Whether a store has a verified copy of a segment by the catalog; False where nobody knows."""
        try:
            found = self._catalog().files.copies_of([segment]).get((system_identifier, segment), {}).get(store)
        except CatalogError as error:
            self._warn(error)
            return False
        return found is not None and found.status is CopyStatus.VERIFIED

    def _run(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._stopping.is_set()
            try:
                self._write()
                self._is_failing = False
            except CatalogError as error:
                self._warn(error)
            except Exception:  # noqa: BLE001 - records are not worth the shipping
                _log.exception("the shipper's state cannot be recorded")
                self._is_failing = True
            self._first_round.set()
            if not is_last:
                self._stopping.wait(_FAILED_ROUND_SECONDS if self._is_failing else _ROUND_SECONDS)

    def _write(self) -> None:
        catalog = self._catalog()
        self._paused = current_pause(catalog, self._clock()) is not None
        is_due = time.monotonic() - self._signed_at >= _SIGN_SECONDS
        shipping = self._shipping()
        if is_due or self._written is None or _news(shipping) != _news(self._written):
            put_shipping(catalog.values, shipping)
            self._written = shipping
        for tail in self._tails:
            serial, state = tail.serial, tail.state()
            if state is not None and (is_due or serial != self._serials.get(tail.store)):
                put_tail(catalog.values, state)
                self._serials[tail.store] = serial
        if is_due:
            self._signed_at = time.monotonic()

    def _warn(self, error: CatalogError) -> None:
        if not self._is_failing:
            _log.warning("what is shipped is not recorded for now: %s", error.message)
        self._is_failing = True


def _news(shipping: Shipping) -> tuple[object, ...]:
    return (shipping.error, shipping.system_identifier, shipping.timeline)
