"""Tests that the selection of environments leaves no combination out."""

from dataclasses import astuple, fields
from itertools import combinations, product
from typing import get_args, get_type_hints

import pytest

from wal_pipeline_tests.matrix.environments import Environment


@pytest.mark.parametrize(("strength", "most"), [(2, 16), (3, 45)])
def test_no_combination_is_left_out(strength: int, most: int) -> None:
    """Each combination of values of any two (three) settings occurs, in a number that can be run."""
    kinds = get_type_hints(Environment)
    values = [get_args(kinds[field.name]) for field in fields(Environment)]
    chosen = Environment.selection(strength)
    rows = [astuple(environment) for environment in chosen]
    for columns in combinations(range(len(values)), strength):
        wanted = set(product(*(values[column] for column in columns)))
        assert {tuple(row[column] for column in columns) for row in rows} == wanted
    assert len(set(map(str, chosen))) == len(chosen) <= most


def test_the_selection_is_the_same_each_time() -> None:
    """A row that failed in one run is found by its name in the next."""
    assert Environment.selection(2) == Environment.selection(2)
