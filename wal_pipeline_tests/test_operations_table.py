"""Tests that the table of questions in docs/operations.md says what the browser measured."""

from wal_pipeline_tests.support.ui.questions import MOST_SECONDS, documented, read_answers, table


def test_the_documented_seconds_are_those_that_were_measured() -> None:
    """The table is made from the results of the last 'make test-ui ARGS=--write-pictures'."""
    assert documented() == table(read_answers())


def test_no_answer_of_the_ui_takes_longer_than_a_person_waits() -> None:
    """Each question has its answer in the UI within ten seconds, on the machine of the measurement."""
    assert [answer.question for answer in read_answers() if answer.ui_seconds > MOST_SECONDS] == []
