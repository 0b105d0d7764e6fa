"""Tests that ``.env.example`` and the settings agree."""

import re
from pathlib import Path

import pytest

from wal_pipeline.host.env_file import read_env_file
from wal_pipeline.settings import load_settings, variable_names

EXAMPLE = Path(__file__).parents[1] / ".env.example"
_LINE = re.compile(r"#?([A-Z][A-Z0-9_]*)=(.*)")
_DIFFERENT_BY_INTENT = {"PGDATA", "PG_WAL_ARCHIVE_DIR"}  # a person must change the example's value


def lines() -> list[str]:
    """The example's lines."""
    return EXAMPLE.read_text().splitlines()


@pytest.fixture(autouse=True)
def no_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder without a .env file."""
    monkeypatch.chdir(tmp_path)


def test_every_setting_is_in_the_example_and_no_other() -> None:
    """The example has each setting once, under its present name."""
    named = [match[1] for line in lines() if (match := _LINE.fullmatch(line))]
    assert sorted(named) == sorted(names[0] for names in variable_names().values())


def test_each_setting_is_explained() -> None:
    """The line above each is a sentence."""
    for before, line in zip(lines(), lines()[1:], strict=False):
        if _LINE.fullmatch(line):
            assert re.fullmatch(r"# [A-Z0-9].*\.", before), f"'{line}' has no sentence above it"


def test_the_values_behind_a_hash_are_the_defaults(tmp_path: Path) -> None:
    """A line without its hash sets the default."""
    shown = "\n".join(line.removeprefix("#") for line in lines() if _LINE.fullmatch(line))
    (tmp_path / "shown").write_text(shown)
    values = read_env_file(tmp_path / "shown", lambda _name: True)
    given = load_settings({name: value for name, value in values.items() if name not in _DIFFERENT_BY_INTENT})
    assert given == load_settings({})


def test_the_example_itself_is_accepted() -> None:
    """An unchanged copy can be read, and only the credentials are missing."""
    assert load_settings({}, EXAMPLE).require_spool_folder() == Path("/var/lib/postgresql/wal-spool")
