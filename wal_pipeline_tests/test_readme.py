"""Tests that the README's commands, links and pictures exist."""

import re
from pathlib import Path

import pytest

from wal_pipeline.cli.registry import HEADINGS

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text()


def test_every_command_is_in_the_table_and_no_other() -> None:
    """The table has every command, in the order of the help."""
    table = README.partition("## Commands")[2].partition("\n## ")[0]
    named = [
        name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`([a-z-]+)`", row)
    ]
    assert [name for name in named if name != "wal-pipeline"] == [name for names in HEADINGS.values() for name in names]


def test_the_table_has_the_headings_of_the_help() -> None:
    """In the same order."""
    assert re.findall(r"^\| \*\*(.*?)\*\* \|", README, re.MULTILINE) == [heading.lower() for heading in HEADINGS]


@pytest.mark.parametrize("document", ["README.md", "docs/img/README.md"])
def test_links_lead_somewhere(document: str) -> None:
    """Each file that a document links to exists."""
    path = PROJECT / document
    links = re.findall(r"\]\(([^)#]+)", path.read_text())
    assert [link for link in links if "://" not in link and not (path.parent / link).exists()] == []


def test_pictures_are_small() -> None:
    """No picture is above 300 kB, so that a clone stays quick."""
    assert {path.name for path in (PROJECT / "docs/img").glob("*.png") if path.stat().st_size > 300_000} == set()
