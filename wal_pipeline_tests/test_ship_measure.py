"""Tests how the benchmark tells when a commit was shipped."""

import pytest

from benchmarks.measures.ship import ages_when_shipped
from benchmarks.ours import BenchError


def test_a_commit_is_shipped_when_the_last_store_has_it() -> None:
    """The first piece that reaches its position counts, on the slower store."""
    r2, b2 = [(10.0, 100), (12.0, 200)], [(10.5, 100), (13.5, 250)]
    assert ages_when_shipped([(9.0, 90), (9.5, 100), (11.0, 200)], [r2, b2]) == [1.5, 1.0, 2.5]


def test_a_piece_that_was_verified_again_counts_once() -> None:
    """As after the shipper began anew."""
    assert ages_when_shipped([(9.0, 90)], [[(10.0, 100), (11.0, 100), (12.0, 80), (13.0, 120)]]) == [1.0]


def test_a_commit_that_was_not_shipped_is_an_error() -> None:
    """A figure without it would be too good."""
    with pytest.raises(BenchError, match="a store lacks a commit"):
        ages_when_shipped([(9.0, 101)], [[(10.0, 100)]])
