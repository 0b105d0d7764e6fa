"""Keeps how long restores and drills took on each host, in the catalog; a restore never fails for it."""

import logging
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, TypeVar

from wal_pipeline.archive.restore_time.forecast import RestoreForecast, predict_restore
from wal_pipeline.archive.restore_time.measure import (
    MeasuredRestore,
    RestoreWork,
    measure_from_values,
    measure_values,
)
from wal_pipeline.errors import CatalogError

if TYPE_CHECKING:  # a restore needs no catalog, and imports it only to predict its time
    from wal_pipeline.catalog.catalog import Catalog

_KEY: Final = "restore_time/"
_MOST_KEPT: Final = 200
_ANSWER_SECONDS: Final = 5.0  # the catalog may lie on the server that was lost
_log = logging.getLogger(__name__)
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class KnownTimes:
    """The restores and drills that were measured, the oldest first; ``unread`` says why they could not be read."""

    measured: tuple[MeasuredRestore, ...] = ()
    unread: str | None = None

    def forecast(self, work: RestoreWork, host: str) -> RestoreForecast:
        """Predict how long a restore takes on ``host``."""
        if self.unread is not None:
            return RestoreForecast(work, host, unread=self.unread)
        return predict_restore(work, self.measured, host)


def read_times(catalog: "Catalog") -> KnownTimes:
    """Return what the catalog has. What a later version wrote otherwise is passed over. Raises: CatalogError."""
    found = []
    for key, value in catalog.values.beginning(_KEY).items():
        try:
            found.append(measure_from_values(value))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            _log.warning("the measured time '%s' cannot be read: %s", key, error)
    return KnownTimes(tuple(sorted(found, key=lambda one: one.finished_at)))


def keep_time(catalog: "Catalog", measured: MeasuredRestore) -> None:
    """Keep how long a restore or drill took, and forget the oldest of very many. Raises: CatalogError."""
    key = f"{_KEY}{measured.finished_at:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
    catalog.values.put(key, measure_values(measured))
    for old in list(catalog.values.beginning(_KEY))[:-_MOST_KEPT]:
        catalog.values.remove(old)


class RestoreTimes:
    """The measured times for a restore, which needs no catalog: where none answers soon, it goes on without.

    ``open_catalog`` raises CatalogError where this host has none.
    """

    def __init__(
        self,
        open_catalog: Callable[[], "Catalog"],
        host: str,
        clock: Callable[[], datetime],
        answer_seconds: float = _ANSWER_SECONDS,
    ) -> None:
        self.host = host
        self.clock = clock
        self._open_catalog = open_catalog
        self._answer_seconds = answer_seconds

    def forecast(self, work: RestoreWork) -> RestoreForecast:
        """Predict how long a restore takes here."""
        known, unread = self._ask(read_times)
        return (known or KnownTimes(unread=f"the records of earlier restores cannot be read: {unread}")).forecast(
            work, self.host
        )

    def keep(self, measured: MeasuredRestore) -> str | None:
        """Keep how long a restore took; return why that failed."""
        return self._ask(lambda catalog: keep_time(catalog, measured))[1]

    def _ask(self, question: Callable[["Catalog"], Found]) -> tuple[Found | None, str | None]:
        """Return the answer, or the reason why there is none."""
        answers: list[Found] = []
        reasons: list[str] = []

        def ask() -> None:
            try:
                answers.append(question(self._open_catalog()))
            except CatalogError as error:
                reasons.append(error.message)

        thread = threading.Thread(target=ask, name="restore-times", daemon=True)
        thread.start()
        thread.join(self._answer_seconds)
        if answers:
            return answers[0], None
        return None, reasons[0] if reasons else f"the catalog did not answer within {self._answer_seconds:g} s"


def measured_stores(planned: Sequence[str], received_bytes: dict[str, int]) -> tuple[str, ...]:
    """Return the stores that gave at least a tenth of the bytes; those of the plan where nobody counted them."""
    total = sum(received_bytes.values())
    gave = tuple(store for store in planned if total and received_bytes.get(store, 0) * 10 >= total)
    return gave or tuple(planned)
