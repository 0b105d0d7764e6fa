"""Tests what a ledger says of the commits that a restored server lacks."""

from testbed.ledger import loss_of


def test_nothing_is_missing() -> None:
    """A commit that was sent and not acknowledged may be there."""
    loss = loss_of({1: 10.0, 2: 11.0}, range(1, 4), {1, 2, 3}, lost_at=12.0)
    assert (loss.acknowledged, loss.missing, loss.never_made, loss.is_suffix) == (2, (), (), True)
    assert (loss.oldest_age_seconds, loss.newest_age_seconds) == (0.0, 0.0)


def test_the_oldest_missing_commit_says_how_much_was_lost() -> None:
    """The newest one is as old as the last acknowledgement, however much is missing."""
    loss = loss_of({1: 10.0, 2: 11.0, 3: 13.0, 4: 15.5}, range(1, 5), {1, 2}, lost_at=15.0)
    assert loss.missing == (3, 4)
    assert (loss.oldest_age_seconds, loss.newest_age_seconds) == (2.0, 0.0)
    assert loss.is_suffix


def test_a_hole_and_a_foreign_commit_are_seen() -> None:
    """A commit is missing before one that is there, and one is there that nobody sent."""
    loss = loss_of({1: 10.0, 2: 11.0, 3: 13.0}, range(1, 4), {1, 3, 9}, lost_at=14.0)
    assert (loss.missing, loss.never_made, loss.is_suffix) == ((2,), (9,), False)
