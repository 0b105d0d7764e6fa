"""Describes where the package's modules lie: folders, rooms, and the test that belongs to each module."""

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import Final

from testbed.source_tree import PACKAGE, TESTS, Checkout, Graph, Module, import_graph

MOST_IN_A_FOLDER: Final = 14
MOST_IMPORTS: Final = 15
WITH_ROOMS: Final = ("commands", "orchestration")


def folder_sizes(modules: Iterable[Module]) -> dict[str, int]:
    """Return how many plain modules lie directly in each folder."""
    return dict(sorted(Counter(module.folder for module in modules if module.is_plain).items()))


def leaf_folders(modules: Iterable[Module]) -> dict[str, int]:
    """Return the sizes of the folders that have no folder with modules below them."""
    sizes = folder_sizes(modules)
    # A folder's first sub-folder follows it where the names are sorted by their parts.
    ordered = sorted(sizes, key=lambda folder: folder.split("/"))
    parents = {first for first, second in pairwise(ordered) if second.startswith(f"{first}/")}
    return {folder: size for folder, size in sizes.items() if folder not in parents}


def rooms(checkout: Checkout, layer: str) -> Graph:
    """Return which rooms of a layer import which: a room is a sub-package, or a module that lies in no sub-package.

    Imports for type checkers alone count too, because a room that needs another room's types depends on it.
    """
    modules = [
        module for module in checkout.below(f"{PACKAGE}/{layer}") if module.path.count("/") > 2 or module.is_plain
    ]
    room_of = {module.name: module.name.split(".")[2] for module in modules}
    arrows: dict[str, set[str]] = {room: set() for room in room_of.values()}
    for name, imported in import_graph(modules).items():
        arrows[room_of[name]].update(room_of[other] for other in imported)
    return {room: frozenset(others - {room}) for room, others in sorted(arrows.items())}


def without_own_test(checkout: Checkout) -> list[str]:
    """Return the paths of the plain modules that no test module mirrors.

    ``wal_pipeline/a/b.py`` is mirrored by ``wal_pipeline_tests/a/test_b.py`` and by ``test_b_<more>.py`` beside it. A
    test belongs to the longest module name that its own begins with: ``test_archive_get.py`` is a test of
    ``archive_get.py`` where that exists, and only elsewhere one of ``archive.py``. Tests in other folders, such as
    ``integration``, mirror nothing.
    """
    plain = [module for module in checkout.package if module.is_plain]
    stems: dict[str, list[str]] = {}
    for module in plain:
        stems.setdefault(module.folder, []).append(module.stem)
    tested = {_tested_by(test, stems) for test in checkout.below(TESTS) if test.stem.startswith("test_")}
    return [module.path for module in plain if module.path not in tested]


def _tested_by(test: Module, stems: dict[str, list[str]]) -> str | None:
    """Return the path of the module that a test mirrors."""
    folder = PACKAGE + test.folder.removeprefix(TESTS)
    about = test.stem.removeprefix("test_")
    fitting = [stem for stem in stems.get(folder, []) if about == stem or about.startswith(f"{stem}_")]
    return f"{folder}/{max(fitting, key=len)}.py" if fitting else None
