"""Tests that a checkout's imports, circles and names are read from its text."""

import ast
from pathlib import Path

from testbed.source_tree import Import, circles, definitions, import_graph, imports, runtime_graph, shortest_circle
from wal_pipeline_tests.support.tiny_checkout import tiny_checkout

EVERY_IMPORT = """
import os
from typing import TYPE_CHECKING
from wal_pipeline.wal import lsn
from . import near
from ..wal.names import Name

if TYPE_CHECKING:
    import pandas
else:
    pandas = None

def late():
    import json
"""


def test_each_kind_of_import_is_read(tmp_path: Path) -> None:
    """Absolute and relative imports, those in functions, and those for type checkers alone."""
    module = tiny_checkout(tmp_path, {"wal_pipeline/a/b.py": EVERY_IMPORT}).modules[0]
    assert imports(module) == (
        Import("os", 2),
        Import("typing.TYPE_CHECKING", 3),
        Import("wal_pipeline.wal.lsn", 4),
        Import("wal_pipeline.a.near", 5),
        Import("wal_pipeline.wal.names.Name", 6),
        Import("pandas", 9, is_typing=True),
        Import("json", 14, is_local=True),
    )


def test_an_imported_name_counts_for_its_module(tmp_path: Path) -> None:
    """The graph has modules of the checkout alone: a module that is named, or the one that a name lies in."""
    files = {
        "wal_pipeline/__init__.py": "",
        "wal_pipeline/a.py": "import os\nfrom wal_pipeline import b\nfrom wal_pipeline.c import C",
        "wal_pipeline/b.py": "from wal_pipeline import __version__",
        "wal_pipeline/c.py": "",
    }
    assert import_graph(tiny_checkout(tmp_path, files).modules) == {
        "wal_pipeline": frozenset(),
        "wal_pipeline.a": {"wal_pipeline.b", "wal_pipeline.c"},
        "wal_pipeline.b": {"wal_pipeline"},
        "wal_pipeline.c": frozenset(),
    }


def test_imports_for_type_checkers_make_no_circle(tmp_path: Path) -> None:
    """A circle counts when the program runs; an import in a function runs too."""
    for_typing = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import wal_pipeline.a"
    files = {"wal_pipeline/a.py": "import wal_pipeline.b", "wal_pipeline/b.py": for_typing}
    checkout = tiny_checkout(tmp_path, files)
    assert circles(runtime_graph(checkout.modules)) == []
    assert circles(import_graph(checkout.modules)) == [["wal_pipeline.a", "wal_pipeline.b"]]
    local = tiny_checkout(tmp_path, {"wal_pipeline/b.py": "def late():\n    import wal_pipeline.a"})
    assert circles(runtime_graph(local.modules)) == [["wal_pipeline.a", "wal_pipeline.b"]]


def test_circles_are_apart_from_what_leads_to_them() -> None:
    """A node that a circle leads to, or that leads to one, is not in it."""
    arrows = {"a": "b", "b": "cd", "c": "b", "d": "ef", "e": "f", "f": "d"}
    graph = {name: frozenset(after) for name, after in arrows.items()}
    assert circles(graph) == [["d", "e", "f"], ["b", "c"]]
    assert shortest_circle(graph, "d") == ["d", "f", "d"]
    assert shortest_circle(graph, "a") == []


def test_only_public_names_at_the_top_are_definitions(tmp_path: Path) -> None:
    """Methods, private names and classes inside functions are none of the package's names."""
    text = "class A:\n    def method(self): ...\nclass _B: ...\ndef make():\n    class C: ..."
    modules = tiny_checkout(tmp_path, {"wal_pipeline/a.py": text, "wal_pipeline/b.py": "class A: ..."}).modules
    assert definitions(modules, (ast.ClassDef,)) == {"A": ["wal_pipeline/a.py", "wal_pipeline/b.py"]}
    assert definitions(modules, (ast.FunctionDef,)) == {"make": ["wal_pipeline/a.py"]}
