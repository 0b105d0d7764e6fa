"""Tests that folders, rooms and mirrored tests are read from a checkout."""

from pathlib import Path

import pytest

from testbed.layout import folder_sizes, leaf_folders, rooms, without_own_test
from wal_pipeline_tests.support.tiny_checkout import tiny_checkout


def test_folders_are_counted_without_their_own_files(tmp_path: Path) -> None:
    """``__init__.py`` and ``__main__.py`` are no modules of a folder; a folder with folders below is no leaf."""
    names = ["__init__", "a", "b/__init__", "b/__main__", "b/c", "b/d", "b_more/e"]
    modules = tiny_checkout(tmp_path, {f"wal_pipeline/{name}.py": "" for name in names}).modules
    assert folder_sizes(modules) == {"wal_pipeline": 1, "wal_pipeline/b": 2, "wal_pipeline/b_more": 1}
    assert leaf_folders(modules) == {"wal_pipeline/b": 2, "wal_pipeline/b_more": 1}


def test_a_room_is_a_sub_package_or_a_module_beside_them(tmp_path: Path) -> None:
    """Imports inside a room are no arrows, several between two rooms are one, and those for type checkers count."""
    commands = "wal_pipeline/commands"
    use_audit = "from wal_pipeline.commands import audit"
    files = {
        f"{commands}/__init__.py": "",
        f"{commands}/audit.py": "",
        f"{commands}/drill/__init__.py": "",
        f"{commands}/drill/run.py": "import wal_pipeline.commands.drill.records",
        f"{commands}/drill/records.py": f"if TYPE_CHECKING:\n    {use_audit}",
    }
    assert rooms(tiny_checkout(tmp_path, files), "commands") == {"audit": frozenset(), "drill": {"audit"}}


@pytest.mark.parametrize(
    ("test", "untested"),
    [
        ("a/test_archive.py", ["archive_get"]),
        ("a/test_archive_full_disk.py", ["archive_get"]),
        ("a/test_archive_get.py", ["archive"]),
        ("a/test_archive_get_slow.py", ["archive"]),
        ("a/test_archived.py", ["archive", "archive_get"]),
        ("integration/test_archive.py", ["archive", "archive_get"]),
        ("test_archive.py", ["archive", "archive_get"]),
    ],
)
def test_a_test_mirrors_the_longest_module_name_that_it_begins_with(
    tmp_path: Path, test: str, untested: list[str]
) -> None:
    """``test_archive_get.py`` is no test of ``archive.py``; a test in another folder mirrors nothing."""
    names = ["wal_pipeline/a/archive.py", "wal_pipeline/a/archive_get.py", f"wal_pipeline_tests/{test}"]
    checkout = tiny_checkout(tmp_path, dict.fromkeys(names, ""))
    assert without_own_test(checkout) == [f"wal_pipeline/a/{name}.py" for name in untested]
