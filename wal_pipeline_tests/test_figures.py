"""The order in which a measurement runs its contenders."""

from itertools import pairwise

import pytest

from benchmarks.figures import alternately, order


@pytest.mark.parametrize("count", range(1, 12))
def test_each_round_runs_each_contender_once(count: int) -> None:
    """Whatever their number, and whatever the round's."""
    for number in range(30):
        assert sorted(order(count, number)) == list(range(count))


@pytest.mark.parametrize("count", [3, 5, 7, 11])
def test_each_follows_another_one_in_each_round(count: int) -> None:
    """Until the rounds are as many as the others: so what one leaves behind falls to all alike."""
    followed = [pair for number in range(count - 1) for pair in pairwise(order(count, number))]
    assert len(followed) == len(set(followed))


def test_the_first_one_is_another_in_each_round() -> None:
    """Two contenders take turns to be first."""
    assert [order(2, number) for number in range(4)] == [[0, 1], [1, 0], [0, 1], [1, 0]]
    assert [order(7, number)[0] for number in range(7)] == list(range(7))


def test_the_results_stand_in_the_order_of_the_rounds() -> None:
    """However the contenders were mixed."""
    said: list[str] = []
    counts = {"a": iter(range(10)), "b": iter(range(10, 20)), "c": iter(range(20, 30))}
    contenders = {name: lambda count=count: float(next(count)) for name, count in counts.items()}
    found = alternately(contenders, 4, said.append)
    assert found == {"a": [0, 1, 2, 3], "b": [10, 11, 12, 13], "c": [20, 21, 22, 23]}
    assert said[0] == "round 1 of 4: a 0.00, b 10.00, c 20.00"
