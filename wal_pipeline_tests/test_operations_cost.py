"""Tests that docs/operations.md says of shipping what 'wal-pipeline cost' works out."""

from pathlib import Path

from wal_pipeline.archive.cost import (
    DEFAULT_PRICES,
    SHOWN_INTERVALS,
    FileRate,
    dollars,
    shipping_cost,
    shipping_usage,
    store_cost,
)

OPERATIONS = (Path(__file__).parents[1] / "docs" / "operations.md").read_text(encoding="utf-8")


def test_the_documented_cost_of_shipping_is_the_computed_one() -> None:
    """Pieces that are put, and the requests of a month on each store, at 1, 5 and 10 seconds."""
    for seconds in SHOWN_INTERVALS:
        cost, usage = shipping_cost(seconds, DEFAULT_PRICES), shipping_usage(seconds)
        millions = f"{usage.class_a_requests / 10**6:.2f} million"
        stores = " | ".join(dollars(cost.stores[name].requests_usd) for name in ("r2", "b2"))
        assert f"| {seconds:g} s | {millions} | {stores} |" in OPERATIONS


def test_the_documented_cost_of_padded_segments_is_the_computed_one() -> None:
    """Of a server that writes a little all day, so that each archive_timeout finishes a segment."""
    for seconds in (60, 300, 3600):
        files = 30 * 86_400 // seconds
        usage = FileRate(archive_timeout_seconds=seconds).usage(1, 0, 30)
        price = dollars(store_cost(usage, DEFAULT_PRICES["r2"]).requests_usd)
        assert f"| {seconds} s | {files:,} | {price} |" in OPERATIONS
