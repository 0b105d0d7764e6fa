"""Keeps the seconds in which the terminal and the UI answer an on-call person, and writes the documents' table."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from testbed.dagster_instance import PROJECT

RESULTS: Final = PROJECT / "benchmarks" / "results" / "ui.json"
DOCUMENT: Final = PROJECT / "docs" / "operations.md"
MOST_SECONDS: Final = 10.0
_BEGIN: Final = "| question | in the terminal | s | in the UI | s |\n|---|---|---|---|---|\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """One row. ``place``: where the UI shows the answer. The seconds end when the answer is there."""

    question: str
    command: str
    command_seconds: float
    place: str
    ui_seconds: float

    @property
    def row(self) -> str:
        """The row of the table."""
        return (
            f"| {self.question} | `wal-pipeline {self.command}` | {self.command_seconds:.1f} "
            f"| {self.place} | {self.ui_seconds:.1f} |\n"
        )


def table(answers: list[Answer]) -> str:
    """Return the table as the document has it."""
    return _BEGIN + "".join(answer.row for answer in answers)


def read_answers() -> list[Answer]:
    """Return the answers that were measured last."""
    rows: list[Mapping[str, str | float]] = json.loads(RESULTS.read_text())
    return [Answer(**row) for row in rows]  # type: ignore[arg-type]


def documented(document: Path = DOCUMENT) -> str:
    """Return the table that the document has. Raises: ValueError where it has none."""
    text = document.read_text()
    begin = text.index(_BEGIN)
    return text[begin : text.index("\n\n", begin) + 1]


def write(answers: list[Answer]) -> None:
    """Keep the answers, and put the table into the document."""
    RESULTS.write_text(json.dumps([asdict(answer) for answer in answers], indent=1, ensure_ascii=False) + "\n")
    DOCUMENT.write_text(DOCUMENT.read_text().replace(documented(), table(answers)))
