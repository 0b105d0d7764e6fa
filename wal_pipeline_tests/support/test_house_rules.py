"""Tests that each rule of the layout finds what breaks it, and nothing else."""

from pathlib import Path

import pytest

from wal_pipeline_tests.support import house_rules as rules
from wal_pipeline_tests.support.tiny_checkout import tiny_checkout

DOC = '"""Does one thing well."""\n'


def test_a_crowded_folder_is_found(tmp_path: Path) -> None:
    """Fifteen modules are too many, fourteen and ``__init__.py`` are not; a folder may be excepted."""
    files = {f"wal_pipeline/a/m{number}.py": "" for number in range(14)} | {"wal_pipeline/a/__init__.py": ""}
    assert rules.crowded_folders(tiny_checkout(tmp_path, files), {}) == []
    checkout = tiny_checkout(tmp_path, {"wal_pipeline/a/one_more.py": ""})
    assert rules.crowded_folders(checkout, {}) == ["wal_pipeline/a: 15 modules, at most 14"]
    assert rules.crowded_folders(checkout, {"wal_pipeline/a": "it is wide"}) == []


@pytest.mark.parametrize("name", ["drill/drill_server", "assets/asset_keys", "queries/query_text", "jobs/jobs_more"])
def test_a_name_that_repeats_its_folder_is_found(tmp_path: Path, name: str) -> None:
    """The folder's name in front, in the plural or the singular, says nothing twice over."""
    checkout = tiny_checkout(tmp_path, {f"wal_pipeline/{name}.py": ""})
    assert rules.names_that_repeat_their_folder(checkout) == [f"wal_pipeline/{name}.py"]


@pytest.mark.parametrize("name", ["drill/drill", "wal/walking", "archive/records", "assets/classic"])
def test_a_name_of_its_own_is_none(tmp_path: Path, name: str) -> None:
    """A folder's main module has its name; a word that merely begins alike is another word."""
    checkout = tiny_checkout(tmp_path, {f"wal_pipeline/{name}.py": ""})
    assert rules.names_that_repeat_their_folder(checkout) == []


def test_a_prefix_that_does_the_work_of_a_folder_is_found(tmp_path: Path) -> None:
    """Two modules may share their first word, three may not unless that is accepted."""
    checkout = tiny_checkout(tmp_path, {"wal_pipeline/cli/restore.py": "", "wal_pipeline/cli/restore_text.py": ""})
    assert rules.names_that_share_a_prefix(checkout, {}) == []
    checkout = tiny_checkout(tmp_path, {"wal_pipeline/cli/restore_plan.py": ""})
    assert rules.names_that_share_a_prefix(checkout, {}) == [
        "wal_pipeline/cli/restore: restore, restore_plan, restore_text"
    ]
    assert rules.names_that_share_a_prefix(checkout, {"wal_pipeline/cli/restore": "one command"}) == []


@pytest.mark.parametrize(
    ("opening", "fault"),
    [
        ("Reads WAL files", "does not end with a full stop"),
        ("reads WAL files.", "begins with no capital letter and no ``code``"),
        ("WAL files.", "has fewer than 3 words"),
        ("What a WAL file is.", "is no sentence"),
        ("Whether a file is whole.", "is no sentence"),
        ("The one way by which files are read.", "is no sentence"),
    ],
)
def test_an_opening_that_is_no_sentence_is_found(tmp_path: Path, opening: str, fault: str) -> None:
    """A module's first line says in a plain sentence what the module does."""
    checkout = tiny_checkout(tmp_path, {"wal_pipeline/a.py": f'"""{opening}"""'})
    assert rules.weak_openings(checkout) == [f"wal_pipeline/a.py: {fault}: {opening}"]


def test_a_plain_opening_is_none(tmp_path: Path) -> None:
    """A sentence, or a command with what it does; only the first line is judged."""
    files = {"wal_pipeline/a.py": DOC, "wal_pipeline/b.py": '"""``wal-pipeline list`` lists files.\n\nwhat follows"""'}
    assert rules.weak_openings(tiny_checkout(tmp_path, files)) == []
    assert rules.weak_openings(tiny_checkout(tmp_path, {"wal_pipeline/b.py": ""})) == [
        "wal_pipeline/b.py: no docstring"
    ]


def test_an_init_file_that_does_more_than_say_one_sentence_is_found(tmp_path: Path) -> None:
    """Code, a second sentence, no sentence and no file at all."""
    files = {
        "wal_pipeline/__init__.py": f'{DOC}from typing import Final\n__version__: Final = "1"',
        "wal_pipeline/a/__init__.py": DOC,
        "wal_pipeline/b/__init__.py": f"{DOC}import os",
        "wal_pipeline/c/__init__.py": '"""Does one thing. Does another."""',
        "wal_pipeline/d/__init__.py": "",
        "wal_pipeline/e/module.py": "",
        "wal_pipeline/f/__init__.py": f'{DOC}__version__ = "1"',
    }
    assert rules.init_faults(tiny_checkout(tmp_path, files)) == [
        "wal_pipeline/e: no __init__.py",
        "wal_pipeline/b/__init__.py: holds code",
        "wal_pipeline/c/__init__.py: not one sentence: Does one thing. Does another.",
        "wal_pipeline/d/__init__.py: not one sentence: no docstring",
        "wal_pipeline/f/__init__.py: holds code",
    ]


def test_code_beside_the_version_is_found(tmp_path: Path) -> None:
    """The package's own ``__init__.py`` may define its version and nothing else."""
    checkout = tiny_checkout(tmp_path, {"wal_pipeline/__init__.py": f'{DOC}__version__ = "1"\nmore = 2'})
    assert rules.init_faults(checkout) == ["wal_pipeline/__init__.py: holds code"]


def test_a_class_name_with_two_meanings_is_found(tmp_path: Path) -> None:
    """Names that say too little are found even when they stand once; private ones are a module's own."""
    files = {
        "wal_pipeline/a.py": "class Drill: ...\nclass _Own: ...\nclass Job: ...",
        "wal_pipeline/b.py": "class Drill: ...\nclass _Own: ...",
    }
    assert rules.repeated_classes(tiny_checkout(tmp_path, files)) == [
        "Drill: wal_pipeline/a.py, wal_pipeline/b.py",
        "Job: wal_pipeline/a.py",
    ]


def test_a_function_name_with_two_meanings_is_found(tmp_path: Path) -> None:
    """Unless it is accepted; and what is accepted without need is found as well."""
    files = {"wal_pipeline/a.py": "def look(): ...\nasync def main(): ...", "wal_pipeline/b.py": "def main(): ..."}
    checkout = tiny_checkout(tmp_path, files)
    assert rules.repeated_functions(checkout, {}) == ["main: wal_pipeline/a.py, wal_pipeline/b.py"]
    assert rules.repeated_functions(checkout, {"main": "ways in", "look": "none"}) == [
        "look: the exception is not needed"
    ]


def test_a_test_that_imports_a_test_is_found(tmp_path: Path) -> None:
    """What two tests share lies in ``support``."""
    files = {
        "wal_pipeline_tests/test_a.py": "from wal_pipeline_tests.test_b import scene",
        "wal_pipeline_tests/test_b.py": "from wal_pipeline_tests.support.scenes import scene",
        "wal_pipeline_tests/support/scenes.py": "",
    }
    assert rules.tests_that_import_tests(tiny_checkout(tmp_path, files)) == [
        "wal_pipeline_tests.test_a -> wal_pipeline_tests.test_b"
    ]


@pytest.mark.parametrize("folder", ["wal_pipeline", "testbed", "chaos", "demo", "benchmarks", "scripts"])
def test_an_outsider_that_imports_tests_is_found(tmp_path: Path, folder: str) -> None:
    """Also in a function; the tests themselves may."""
    use = "def late():\n    from wal_pipeline_tests.support import ports"
    files = {"wal_pipeline_tests/support/ports.py": "", f"{folder}/a.py": use, "wal_pipeline_tests/test_a.py": use}
    assert rules.outsiders_that_import_tests(tiny_checkout(tmp_path, files)) == [
        f"{folder}.a -> wal_pipeline_tests.support.ports"
    ]


def test_a_module_without_a_test_of_its_own_is_found(tmp_path: Path) -> None:
    """Unless it is excused; an excuse for what has a test or is gone is found, and one that names no test."""
    files = {"wal_pipeline/a.py": "", "wal_pipeline/b/c.py": "", "wal_pipeline_tests/b/test_c.py": ""}
    checkout = tiny_checkout(tmp_path, files)
    assert rules.unmirrored_modules(checkout, {}) == ["a.py: no test of its own"]
    assert rules.unmirrored_modules(checkout, {"a.py": "tested in b/test_c.py"}) == []
    assert rules.unmirrored_modules(checkout, {"a.py": "x", "b/c.py": "x", "gone.py": "x"}) == [
        "b/c.py: the exception is not needed",
        "gone.py: the exception is not needed",
    ]
    assert rules.unmirrored_modules(checkout, {"a.py": "tested in b/test_gone.py"}) == [
        "a.py: there is no b/test_gone.py"
    ]


def test_a_circle_of_imports_is_found(tmp_path: Path) -> None:
    """A circle is found with its way around, also where one of the imports is inside a function."""
    files = {
        "wal_pipeline/commands/a.py": "import wal_pipeline.commands.b",
        "wal_pipeline/commands/b.py": "def late():\n    import wal_pipeline.commands.a",
    }
    checkout = tiny_checkout(tmp_path, files)
    assert rules.import_circles(checkout) == [
        "wal_pipeline.commands.a -> wal_pipeline.commands.b -> wal_pipeline.commands.a (among 2)"
    ]


def test_a_circle_of_rooms_is_found(tmp_path: Path) -> None:
    """Two rooms that need each other are one room, even where no module needs itself."""
    commands = "wal_pipeline/commands"
    files = {
        f"{commands}/a/one.py": "import wal_pipeline.commands.b.one",
        f"{commands}/b/one.py": "",
        f"{commands}/b/two.py": "import wal_pipeline.commands.a.two",
        f"{commands}/a/two.py": "",
    }
    checkout = tiny_checkout(tmp_path, files)
    assert rules.import_circles(checkout) == []
    assert rules.room_circles(checkout, "commands") == ["a -> b -> a (among 2)"]


@pytest.mark.parametrize(
    "line",
    [
        "_LOG = logging.getLogger(__name__)",
        "_log: Final = logging.getLogger(__name__)",
        "_log = logging.getLogger('wal')",
        "from logging import getLogger",
    ],
)
def test_a_logger_that_is_spelt_otherwise_is_found(tmp_path: Path, line: str) -> None:
    """One spelling, so that a reader knows it everywhere."""
    checkout = tiny_checkout(tmp_path, {"wal_pipeline/a.py": line})
    assert rules.odd_loggers(checkout) == [f"wal_pipeline/a.py:1: {line}"]


def test_the_one_spelling_of_a_logger_is_none(tmp_path: Path) -> None:
    """Another library's logger may be looked at; it is kept by no module."""
    text = "_log = logging.getLogger(__name__)\nlogging.getLogger('boto3').setLevel(30)"
    assert rules.odd_loggers(tiny_checkout(tmp_path, {"wal_pipeline/a.py": text})) == []


def test_an_assert_is_found(tmp_path: Path) -> None:
    """In the package alone: the tests are made of them."""
    files = {"wal_pipeline/a.py": "def a():\n    assert a  # noqa: S101", "wal_pipeline_tests/test_a.py": "assert True"}
    assert rules.asserts(tiny_checkout(tmp_path, files)) == ["wal_pipeline/a.py:2"]
