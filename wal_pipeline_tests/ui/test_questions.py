"""Asks the questions of an on-call person in the terminal and in the UI, and keeps the seconds of both."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from wal_pipeline_tests.support.ui.browser import Screen
from wal_pipeline_tests.support.ui.history import Fleet, Orders
from wal_pipeline_tests.support.ui.questions import Answer, write

pytestmark = pytest.mark.ui
_SEGMENTS = "/assets/orders/wal_segment/b2"


@dataclass(frozen=True, slots=True)
class Question:
    """``command``: the words as a person types them. ``page`` shows ``text`` in the UI, at ``place`` for a reader."""

    asks: str
    command: str
    place: str
    page: str
    text: str


QUESTIONS = (
    Question(
        "Can I recover to 14:05, and from which store?",
        "status",
        "asset `recovery_window`, first row",
        "/assets/orders/recovery_window",
        r"can be recovered to .* from r2 and b2",
    ),
    Question(
        "What would I lose if the server were gone now?",
        "status",
        "asset `recovery_window`, first row",
        "/assets/orders/recovery_window",
        "nothing committed since",
    ),
    Question("What needs me?", "alerts", "asset `spool`, first row", "/assets/orders/spool", "nothing needs"),
    Question("Is WAL arriving now?", "list --since 1h", "asset `wal_segment/r2`", "/assets/orders/wal_segment/r2", "r2"),
    Question("How full is the spool?", "status", "asset `spool`", "/assets/orders/spool", "spool"),
    Question(
        "When was the last base backup?", "status", "asset `base_backup/r2`", "/assets/orders/base_backup/r2", "finished"
    ),
    Question(
        "Did the last drill pass?", "status", "asset `recovery_drill`", "/assets/orders/recovery_drill", "passed"
    ),
    Question(
        "Which copy is missing? (*Failed and missing, Launch* repairs it)",
        "verify",
        "asset `wal_segment/b2`, Partitions",
        _SEGMENTS + "?view=partitions",
        r"Missing \(0\)",
    ),
    Question("What would a restore do?", "restore --plan", "job `restore_cluster`, Launchpad", "/jobs", "restore_cluster"),
)


def test_each_question_has_its_answer(ui: Screen, orders: Orders, fleet_ui: Screen, fleet: Fleet, pictures: Path | None) -> None:
    """Every question of the documents' table is answered by its command, and by its page."""
    answers = [_ask(question, ui, orders) for question in QUESTIONS]
    if pictures is not None:
        write(answers)


def _ask(question: Question, ui: Screen, orders: Orders) -> Answer:
    in_terminal = _seconds(lambda: orders.cluster.command(*question.command.split(), expect=(0, 1, 2)))
    in_ui = _seconds(lambda: ui.open(question.page, re.compile(question.text)))
    return Answer(question.asks, question.command, round(in_terminal, 1), question.place, round(in_ui, 1))


def _seconds(ask: Callable[[], object]) -> float:
    begun = time.monotonic()
    ask()
    return time.monotonic() - begun
