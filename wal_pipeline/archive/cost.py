"""Computes the archive's cost per store and month: storage, requests and the egress of one full restore."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from math import ceil
from typing import Final

GB: Final = 10**9  # bytes; the stores' price lists count in powers of ten
_MILLION: Final = Decimal(10**6)
_CENT: Final = Decimal("0.01")
_SMALLEST: Final = Decimal("0.001")
_MONTH_DAYS: Final = 30
_DAY_SECONDS: Final = 86_400
_MOST_RUNS_A_DAY: Final = 8_640
SHOWN_INTERVALS: Final = (1.0, 5.0, 10.0)  # seconds between two pieces
_MERGES: Final = 15  # sixteen pieces make one, sixteen of those one again, and so on: a fifteenth of all more


@dataclass(frozen=True, slots=True)
class Prices:
    """One store's prices in US dollars: per GB and month stored, per million requests, per GB downloaded.

    Class A: put, copy, list and each part of an upload; class B: get and head.
    """

    storage_gb_month: Decimal
    class_a_million: Decimal = Decimal(0)
    class_b_million: Decimal = Decimal(0)
    egress_gb: Decimal = Decimal(0)

    def __post_init__(self) -> None:
        """Raises: ValueError for a negative price."""
        if min(self.storage_gb_month, self.class_a_million, self.class_b_million, self.egress_gb) < 0:
            raise ValueError(f"a price is negative: {self}")


R2_PRICES: Final = Prices(Decimal("0.015"), class_a_million=Decimal("4.50"), class_b_million=Decimal("0.36"))
B2_PRICES: Final = Prices(Decimal("0.005"), egress_gb=Decimal("0.01"))
DEFAULT_PRICES: Final[Mapping[str, Prices]] = {"r2": R2_PRICES, "b2": B2_PRICES}


@dataclass(frozen=True, slots=True)
class Usage:
    """One store's month: bytes stored, requests made, and the bytes that one full restore downloads."""

    stored_bytes: int
    class_a_requests: int = 0
    class_b_requests: int = 0
    restore_bytes: int = 0


@dataclass(frozen=True, slots=True)
class FileRate:
    """The assumptions by which a forecast turns WAL into files and requests.

    A segment is finished when it is full, or ``archive_timeout_seconds`` after the last one. Each is put once and, with
    ``read_back``, read once; a deep verification reads ``deep_share`` of all segments again each week.
    """

    segment_bytes: int = 16 * 2**20
    archive_timeout_seconds: int = 300
    read_back: bool = True
    deep_share: float = 0.0

    def usage(self, wal_per_day_bytes: int, stored_bytes: int, retention_days: int) -> Usage:
        """Return the month of one full store. A rate above zero means that some WAL is written all day long."""
        if not wal_per_day_bytes:
            return Usage(stored_bytes, restore_bytes=stored_bytes)
        files = max(ceil(wal_per_day_bytes / self.segment_bytes), _DAY_SECONDS // self.archive_timeout_seconds)
        objects = files * retention_days
        # Each archiving run lists the store; a run whose next file comes within seconds continues. Expiry and
        # verification list everything once a day, 1,000 objects at a time.
        listings = min(files, _MOST_RUNS_A_DAY) + 2 * ceil(objects / 1000)
        return Usage(
            stored_bytes,
            class_a_requests=_MONTH_DAYS * (files + listings),
            class_b_requests=_MONTH_DAYS * files * self.read_back + ceil(objects * self.deep_share * _MONTH_DAYS / 7),
            restore_bytes=stored_bytes,
        )


def shipping_usage(interval_seconds: float) -> Usage:
    """Return the requests of a month in which the open segment is shipped to one store.

    The server writes all the time, so that each interval has a piece. Each piece, also a merged one, is put once and
    read once, or asked for its size where nothing is read back; its removal is free. A server that writes nothing costs
    no request.
    """
    pieces = ceil(_MONTH_DAYS * _DAY_SECONDS / interval_seconds)
    puts = pieces + ceil(pieces / _MERGES)
    return Usage(0, class_a_requests=puts, class_b_requests=puts)


@dataclass(frozen=True, slots=True)
class StoreCost:
    """One store's cost in US dollars, not rounded. ``month_usd`` leaves out ``restore_usd``, one full restore."""

    stored_bytes: int
    storage_usd: Decimal
    requests_usd: Decimal
    restore_usd: Decimal

    @property
    def month_usd(self) -> Decimal:
        """Storage and requests of a month."""
        return self.storage_usd + self.requests_usd


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost per store. ``stored_bytes`` is one store's in a forecast, and all stores' sum in a measured cost."""

    stored_bytes: int
    stores: Mapping[str, StoreCost]

    @property
    def storage_usd(self) -> Decimal:
        """The storage of all stores for a month."""
        return sum((store.storage_usd for store in self.stores.values()), Decimal(0))

    @property
    def month_usd(self) -> Decimal:
        """Storage and requests of all stores for a month."""
        return sum((store.month_usd for store in self.stores.values()), Decimal(0))


def store_cost(usage: Usage, prices: Prices) -> StoreCost:
    """Return one store's cost of a month with this usage."""
    return StoreCost(
        stored_bytes=usage.stored_bytes,
        storage_usd=_gigabytes(usage.stored_bytes) * prices.storage_gb_month,
        requests_usd=usage.class_a_requests / _MILLION * prices.class_a_million
        + usage.class_b_requests / _MILLION * prices.class_b_million,
        restore_usd=_gigabytes(usage.restore_bytes) * prices.egress_gb,
    )


def shipping_cost(interval_seconds: float, prices: Mapping[str, Prices]) -> Cost:
    """Return the cost of a month's requests for shipping the open segment to each store; see ``shipping_usage``."""
    usage = shipping_usage(interval_seconds)
    return Cost(0, {store: store_cost(usage, one) for store, one in prices.items()})


def measured_cost(usage: Mapping[str, Usage], prices: Mapping[str, Prices]) -> Cost:
    """Return the stores' cost of a month from their measured usage.

    Raises: KeyError for a store without prices.
    """
    stores = {store: store_cost(one, prices[store]) for store, one in usage.items()}
    return Cost(sum(one.stored_bytes for one in usage.values()), stores)


def forecast(
    wal_per_day_bytes: int,
    reduction: Decimal | float,
    retention_days: int,
    prices: Mapping[str, Prices],
    rate: FileRate | None = None,
) -> Cost:
    """Return the cost of a full WAL archive: each store holds ``retention_days`` of compressed WAL.

    ``reduction`` is the share that compression takes away: 0.8 leaves a fifth. ``rate`` gives the files and requests.

    Raises: ValueError for a reduction outside 0 to 1, or a negative rate or number of days.
    """
    share = 1 - Decimal(str(reduction))
    if not 0 <= share <= 1 or wal_per_day_bytes < 0 or retention_days < 0:
        raise ValueError(
            f"no forecast for {wal_per_day_bytes} bytes of WAL a day, reduced by {reduction}, for {retention_days} days"
        )
    stored = int((wal_per_day_bytes * retention_days * share).to_integral_value(ROUND_HALF_UP))
    usage = (rate or FileRate()).usage(wal_per_day_bytes, stored, retention_days)
    return Cost(stored, {store: store_cost(usage, one) for store, one in prices.items()})


def dollars(usd: Decimal) -> str:
    """Return a sum for people: ``$12.35``, below a dollar ``$0.004``. Sums are made before rounding, a half goes up.

    What is less than half of the last place is still not nothing: ``<$0.001``.
    """
    if usd and usd < _SMALLEST / 2:
        return f"<${_SMALLEST}"
    rounded = usd.quantize(_CENT if usd >= 1 else _SMALLEST, ROUND_HALF_UP)
    return f"${rounded.quantize(_CENT) if rounded >= 1 or not rounded else rounded}"


def _gigabytes(size_bytes: int) -> Decimal:
    return Decimal(size_bytes) / GB
