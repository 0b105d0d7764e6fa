"""Asks the questions of an on-call person in the terminal and in the UI, and keeps the seconds of both."""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import pytest

from wal_pipeline_tests.support.ui.browser import Screen
from wal_pipeline_tests.support.ui.history import Orders
from wal_pipeline_tests.support.ui.questions import Answer, write

pytestmark = pytest.mark.ui


@dataclass(frozen=True, slots=True)
class Question:
    """``command``: as a person types it. ``page`` shows the answer ``text``; the documents call it ``place``.

    With ``clicks_on`` the page has a link to the answer, which is found by this selector. With ``launches`` it is a
    launchpad, and the run of this configuration answers.
    """

    asks: str
    command: str
    place: str
    page: str
    text: str
    clicks_on: str | None = None
    launches: str | None = None


_WINDOW = "asset `recovery_window`, its first row"
QUESTIONS = (
    Question(
        "Can I recover to 14:05, and from which store?",
        "status",
        _WINDOW,
        "/assets/orders/recovery_window",
        "orders can be recovered to .* from r2 and b2",
    ),
    Question(
        "What would I lose if the server were gone now?",
        "status",
        _WINDOW,
        "/assets/orders/recovery_window",
        "nothing committed since",
    ),
    Question(
        "What needs me?",
        "alerts",
        "asset `open_alerts`, its first row",
        "/assets/orders/open_alerts",
        "needs? a person",
    ),
    Question(
        "Is WAL arriving now?",
        "list --since 1h",
        "asset `wal_segment/r2`, its first row",
        "/assets/orders/wal_segment/r2",
        "verified .* after PostgreSQL archived it",
    ),
    Question(
        "How full is the spool?",
        "status",
        "asset `spool`, its first row",
        "/assets/orders/spool",
        "waits? in the spool",
    ),
    Question(
        "When was the last base backup?",
        "status",
        "asset `base_backup/r2`, its first row",
        "/assets/orders/base_backup/r2",
        "base backup on r2, finished",
    ),
    Question(
        "Did the last drill pass, and how long did it take?",
        "status",
        "asset `recovery_drill`, its first row",
        "/assets/orders/recovery_drill",
        "the cluster was restored from r2 in",
    ),
    Question(
        "Which copy is missing?",
        "verify",
        "asset `wal_segment/b2`, *Partitions*; *Materialize*, *Failed and missing* repairs it",
        "/assets/orders/wal_segment/b2?view=partitions",
        r"Missing \(\d+\)",
    ),
    Question(
        "Why did the last run fail?",
        "alerts",
        "*Runs*, *Failed*, the run",
        "/runs?q%5B0%5D=status%3AFAILURE",
        "ERROR: ",
        clicks_on="a[href^='/runs/']",
    ),
    Question(
        "What would a restore to 14:05 do?",
        "restore --plan --to-time TIME --pgdata FOLDER",
        "job `restore_cluster`, *Launchpad*, *Launch Run*, its result",
        "/locations/wal_pipeline/jobs/restore_cluster/playground",
        "only planned",
        launches='{ops: {restore: {config: {pgdata: FOLDER, to_time: "TIME"}}}}',
    ),
)


def test_no_question_is_left_without_an_answer(ui: Screen, orders: Orders, pictures: Path | None) -> None:
    """Each question of the documents' table is answered by its command, and by its page."""
    orders.run("restore_cluster", {"ops": {"restore": {"config": {"pgdata": "/nowhere", "to_time": "2020-01-01"}}}})
    answers = [_ask(question, ui, orders) for question in QUESTIONS]
    if pictures is not None:
        write(answers)


def _ask(question: Question, ui: Screen, orders: Orders) -> Answer:
    words = {"TIME": orders.target, "FOLDER": str(orders.cluster.folder / "restored")}
    typed = [words.get(word, word) for word in question.command.split()]
    in_terminal = _seconds(lambda: orders.cluster.command(*typed, expect=(0, 1, 2)))
    in_ui = _seconds(lambda: _look(question, ui, words))
    return Answer(question.asks, question.command, round(in_terminal, 1), question.place, round(in_ui, 1))


def _look(question: Question, ui: Screen, words: Mapping[str, str]) -> None:
    if question.launches is not None:
        ui.launch(question.page, reduce(lambda text, word: text.replace(word, words[word]), words, question.launches))
    else:
        ui.page.goto(ui.url + question.page)
    if question.clicks_on is not None:
        ui.page.locator(question.clicks_on).first.click()
    ui.see(re.compile(question.text))


def _seconds(ask: Callable[[], object]) -> float:
    begun = time.monotonic()
    ask()
    return time.monotonic() - begun
