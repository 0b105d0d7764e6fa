"""Costs."""

from decimal import Decimal

import pytest

from wal_pipeline.archive.cost import (
    B2_PRICES,
    DEFAULT_PRICES,
    R2_PRICES,
    FileRate,
    Prices,
    Usage,
    dollars,
    forecast,
    measured_cost,
)

R2_A = Decimal("4.50") / 10**6
R2_B = Decimal("0.36") / 10**6


def test_the_given_example_is_reproduced_exactly() -> None:
    """1 GB of WAL a day, 80 % less, 30 days: 6 GB, 9 cents on R2, 3 on B2, 12 together."""
    cost = forecast(10**9, 0.8, 30, DEFAULT_PRICES)
    assert cost.stored_bytes == 6 * 10**9
    assert cost.stores["r2"].storage_usd == Decimal("0.09")
    assert cost.stores["b2"].storage_usd == Decimal("0.03")
    assert cost.storage_usd == Decimal("0.12")


def test_a_forecast_counts_the_requests_of_its_rate() -> None:
    """By the segments that are filled, or by those that archive_timeout finishes; nothing where nothing is written."""
    slow = forecast(10**9, 0.8, 30, DEFAULT_PRICES, FileRate(archive_timeout_seconds=300))
    # 288 files a day: put, listed and read back; 8,640 objects are 9 listings, twice a day
    assert slow.stores["r2"].requests_usd == 30 * (288 + 288 + 2 * 9) * R2_A + 30 * 288 * R2_B
    fast = forecast(10**12, 0.8, 30, DEFAULT_PRICES, FileRate(segment_bytes=2**24, read_back=False, deep_share=0.25))
    files = 59_605
    deep = 1_915_875  # a quarter of 30 days' files each week
    assert fast.stores["r2"].requests_usd == 30 * (files + 8_640 + 2 * 1_789) * R2_A + deep * R2_B
    assert fast.stores["b2"].requests_usd == 0
    assert forecast(0, 0.8, 30, DEFAULT_PRICES).stores["r2"].requests_usd == 0


def test_a_month_counts_storage_and_requests_and_a_restore_counts_apart() -> None:
    """R2 takes nothing for a download and B2 nothing for requests."""
    usage = Usage(10**11, class_a_requests=200_000, class_b_requests=1_000_000, restore_bytes=5 * 10**10)
    cost = measured_cost({"r2": usage, "b2": usage}, DEFAULT_PRICES)
    r2, b2 = cost.stores["r2"], cost.stores["b2"]
    assert (r2.storage_usd, r2.requests_usd, r2.restore_usd) == (Decimal("1.5"), Decimal("1.26"), 0)
    assert (b2.storage_usd, b2.requests_usd, b2.restore_usd) == (Decimal("0.5"), 0, Decimal("0.5"))
    assert (cost.stored_bytes, cost.month_usd) == (2 * 10**11, Decimal("3.26"))


def test_the_default_prices_are_those_of_the_two_stores() -> None:
    """In US dollars, as the settings begin with."""
    assert Prices(Decimal("0.015"), Decimal("4.50"), Decimal("0.36"), Decimal(0)) == R2_PRICES
    assert Prices(Decimal("0.005"), Decimal(0), Decimal(0), Decimal("0.01")) == B2_PRICES


def test_only_what_people_read_is_rounded() -> None:
    """Half a cent is rounded up."""
    shown = {"12.345": "$12.35", "1": "$1.00", "0.9996": "$1.00", "0.125": "$0.125", "0.004": "$0.004", "0": "$0.00"}
    assert {usd: dollars(Decimal(usd)) for usd in shown} == shown


def test_a_small_cost_is_not_shown_as_nothing() -> None:
    """A few hundred requests cost less than a tenth of a cent, and something."""
    assert dollars(Decimal("0.0004")) == "<$0.001"
    assert dollars(Decimal("0.0005")) == "$0.001"


@pytest.mark.parametrize(("rate", "reduction", "days"), [(-1, 0.5, 30), (1, 1.1, 30), (1, -0.1, 30), (1, 0.5, -1)])
def test_a_forecast_that_makes_no_sense_is_refused(rate: int, reduction: float, days: int) -> None:
    """Compression cannot take away more than all."""
    with pytest.raises(ValueError, match="no forecast for"):
        forecast(rate, reduction, days, DEFAULT_PRICES)


def test_a_negative_price_is_refused() -> None:
    """A slip in the settings."""
    with pytest.raises(ValueError, match="a price is negative"):
        Prices(Decimal(-1))
