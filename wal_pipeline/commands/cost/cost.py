"""Works out the archive's cost from the stored bytes and the requests, and reads sizes such as ``1GB``."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from wal_pipeline.archive.cost import SHOWN_INTERVALS, Cost, Prices, StoreCost, Usage, measured_cost, shipping_cost
from wal_pipeline.archive.records import CopyStatus
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.commands.health.windows import newest_id
from wal_pipeline.commands.relations.records import read_list_bytes
from wal_pipeline.commands.ship.records import read_tails
from wal_pipeline.errors import SettingsError

MONTH: Final = timedelta(days=30)
_SIZE: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kKMGT]?)(i?)B?\s*")
_POWERS: Final = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


@dataclass(frozen=True, slots=True)
class CostReport:
    """The cost of a month, and the usage behind it by store. Requests are those of the last 30 days.

    ``piece_bytes`` are those of the recorded pieces of open segments, by store; they are among the stored bytes.
    """

    at: datetime
    usage: Mapping[str, Usage]
    cost: Cost
    piece_bytes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ShippingCost:
    """The cost of shipping the open segment: the bytes of its pieces now, and a month's requests by the interval.

    ``interval_seconds`` is the setting. ``by_interval`` has it too, and the usual ones beside it.
    """

    interval_seconds: float
    piece_bytes: Mapping[str, int]
    by_interval: Mapping[float, Cost]


def cost_of_shipping(
    interval_seconds: float, prices: Mapping[str, Prices], piece_bytes: Mapping[str, int]
) -> ShippingCost:
    """Estimate a month's requests at the interval that is set, and at 1, 5 and 10 seconds."""
    intervals = sorted({*SHOWN_INTERVALS, interval_seconds})
    costs = {seconds: shipping_cost(seconds, prices) for seconds in intervals}
    return ShippingCost(interval_seconds, piece_bytes, costs)


def shipping_as_json(shipping: ShippingCost) -> dict[str, Any]:
    """Return the cost of shipping as JSON values."""
    return {
        "interval_seconds": shipping.interval_seconds,
        "piece_bytes": dict(shipping.piece_bytes),
        "estimates": [
            {
                "interval_seconds": seconds,
                **_numbers({"month_usd": cost.month_usd}),
                "stores": {name: _numbers({"requests_usd": one.requests_usd}) for name, one in cost.stores.items()},
            }
            for seconds, cost in shipping.by_interval.items()
        ],
    }


def current_cost(catalog: Catalog, prices: Mapping[str, Prices], now: datetime) -> CostReport:
    """Work out the cost of a month with the stores as they are now. Raises: CatalogError."""
    pieces = {store: tail.stored_bytes for store, tail in read_tails(catalog.values, prices).items()}
    usage = {store: _usage(catalog, store, now, pieces.get(store, 0)) for store in prices}
    return CostReport(now, usage, measured_cost(usage, prices), pieces)


def _usage(catalog: Catalog, store: str, now: datetime, piece_bytes: int) -> Usage:
    requests = [one for one in catalog.stores.requests(now - MONTH) if one.store == store]
    wal = sum(one.stored_bytes for one in catalog.files.totals() if one.store == store)
    return Usage(
        stored_bytes=wal
        + piece_bytes
        + catalog.measures.base_backup_bytes().get(store, 0)
        + read_list_bytes(catalog.values, store),
        class_a_requests=sum(one.class_a for one in requests),
        class_b_requests=sum(one.class_b for one in requests),
        restore_bytes=_restore_bytes(catalog, store),
    )


def _restore_bytes(catalog: Catalog, store: str) -> int:
    """Return the bytes of a restore to the newest moment: the newest base backup's chain, and the WAL since.

    One of the method ``local`` says itself what is fetched, of all before it only the volumes that it refers to; a
    chain goes back to the newest of these.
    """
    backups = {one.backup_id: one for one in catalog.base_backups.all()}
    held = {
        copy.backup_id: copy.stored_size_bytes
        for copy in catalog.base_backups.copies()
        if copy.store == store and copy.status is CopyStatus.VERIFIED
    }
    newest = newest_id(held, catalog.now())
    if newest is None:
        return 0
    fetched, next_id = 0, newest
    while next_id in held and next_id in backups:
        one, stored_bytes = backups[next_id], held.pop(next_id)
        if one.fetched_size_bytes is not None:
            fetched += one.fetched_size_bytes
            break
        fetched += stored_bytes
        next_id = one.parent_id or ""
    return fetched + catalog.measures.stored_since(store, backups[newest].started_at)


def cost_as_json(cost: Cost, usage: Mapping[str, Usage] | None = None) -> dict[str, Any]:
    """Return the cost in US dollars and bytes as numbers."""
    stores = {
        store: _store(one) | ({} if usage is None else _requests(usage[store])) for store, one in cost.stores.items()
    }
    total = {"storage_usd": cost.storage_usd, "month_usd": cost.month_usd}
    return {"stored_bytes": cost.stored_bytes, **_numbers(total), "stores": stores}


def _store(one: StoreCost) -> dict[str, Any]:
    names = ("storage_usd", "requests_usd", "month_usd", "restore_usd")
    return {"stored_bytes": one.stored_bytes, **_numbers({name: getattr(one, name) for name in names})}


def _requests(usage: Usage) -> dict[str, Any]:
    return {
        "class_a_requests": usage.class_a_requests,
        "class_b_requests": usage.class_b_requests,
        "restore_bytes": usage.restore_bytes,
    }


def _numbers(values: Mapping[str, Decimal]) -> dict[str, float]:
    """Round to a millionth of a dollar, which is finer than any bill."""
    return {name: float(round(value, 6)) for name, value in values.items()}


def parse_size(text: str) -> int:
    """Read a size such as ``1GB`` (10**9 bytes, as the stores' price lists count) or ``1GiB`` (2**30).

    Raises: SettingsError.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise SettingsError(f"'{text}' is not a size", hint="Write it as 500MB, 1GB or 1.5GiB.")
    base = 1024 if match[3] else 1000
    return int(Decimal(match[1]) * base ** _POWERS[match[2].upper()])
