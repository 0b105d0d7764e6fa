"""Finds what breaks the rules of the layout: each function takes a checkout and returns the offenders.

An offender is one line of text that names the file. Exceptions are given as a mapping from the thing to its reason; an
exception that nothing needs any more is an offender too.
"""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from testbed.layout import MOST_IN_A_FOLDER, folder_sizes, rooms, without_own_test
from testbed.source_tree import (
    PACKAGE,
    TESTS,
    Checkout,
    Graph,
    Module,
    circles,
    definitions,
    import_graph,
    runtime_graph,
    shortest_circle,
)

LOGGER: Final = "_log = logging.getLogger(__name__)"
OUTSIDE_THE_TESTS: Final = (PACKAGE, "testbed", "chaos", "demo", "benchmarks", "scripts")
VAGUE_CLASS_NAMES: Final = frozenset({"Answer", "Job", "Path", "Status"})
_SHARED_BY: Final = 3
_SENTENCE_END: Final = re.compile(r"[.!?](?=\s|$)")
_OPENING: Final = re.compile(r"[A-Z]|``")
_RIDDLE: Final = re.compile(r"What |Whether |The one way")
_NAMED_TEST: Final = re.compile(r"[\w/]*test_\w+\.py")
_FEWEST_WORDS: Final = 3

Reasons = Mapping[str, str]


def crowded_folders(checkout: Checkout, roomy: Reasons) -> list[str]:
    """Find the folders with too many modules, apart from those that may have them."""
    return [
        f"{folder}: {size} modules, at most {MOST_IN_A_FOLDER}"
        for folder, size in folder_sizes(checkout.package).items()
        if size > MOST_IN_A_FOLDER and folder not in roomy
    ]


def names_that_repeat_their_folder(checkout: Checkout) -> list[str]:
    """Find the modules whose name begins with their folder's, such as ``assets/asset_keys.py``."""
    return [module.path for module in checkout.package if module.is_plain and _repeats_folder(module)]


def names_that_share_a_prefix(checkout: Checkout, accepted: Reasons) -> list[str]:
    """Find the first words that three or more modules of a folder share: such a word is a folder's name.

    ``accepted`` is by folder and word: ``wal_pipeline/cli/restore``.
    """
    sharing: dict[str, list[str]] = {}
    for module in checkout.package:
        if module.is_plain:
            sharing.setdefault(f"{module.folder}/{module.stem.split('_')[0]}", []).append(module.stem)
    groups = {prefix: ", ".join(stems) for prefix, stems in sharing.items() if len(stems) >= _SHARED_BY}
    return _but_for(groups, accepted)


def weak_openings(checkout: Checkout) -> list[str]:
    """Find the modules whose first line is no plain sentence."""
    faults = ((module, _fault_of_opening(_first_line(module))) for module in checkout.package)
    return [f"{module.path}: {fault}" for module, fault in faults if fault]


def init_faults(checkout: Checkout) -> list[str]:
    """Find the folders whose ``__init__.py`` is missing, holds code, or says more or less than one sentence."""
    folders = {module.folder: module for module in checkout.package}
    inits = {module.folder: module for module in checkout.package if module.is_init}
    missing = [f"{folder}: no __init__.py" for folder in folders if folder not in inits]
    return missing + [f"{init.path}: {fault}" for init in inits.values() for fault in _faults_of_init(init)]


def repeated_classes(checkout: Checkout) -> list[str]:
    """Find the public class names that several modules define, and those that say too little to be unique."""
    found = definitions(checkout.package, (ast.ClassDef,))
    repeated = [f"{name}: {', '.join(paths)}" for name, paths in found.items() if len(paths) > 1]
    return repeated + [f"{name}: {paths[0]}" for name, paths in found.items() if name in VAGUE_CLASS_NAMES]


def repeated_functions(checkout: Checkout, accepted: Reasons) -> list[str]:
    """Find the public function names that several modules define. ``accepted`` is by name."""
    found = definitions(checkout.package, (ast.FunctionDef, ast.AsyncFunctionDef))
    return _but_for({name: ", ".join(paths) for name, paths in found.items() if len(paths) > 1}, accepted)


def tests_that_import_tests(checkout: Checkout) -> list[str]:
    """Find the test modules that import another test module."""
    return [arrow for arrow in _arrows(checkout) if all(_is_test(name) for name in arrow.split(" -> "))]


def outsiders_that_import_tests(checkout: Checkout) -> list[str]:
    """Find the modules outside the tests that import from the tests."""
    return [
        arrow
        for arrow in _arrows(checkout)
        if arrow.split(".")[0] in OUTSIDE_THE_TESTS and arrow.split(" -> ")[1].split(".")[0] == TESTS
    ]


def unmirrored_modules(checkout: Checkout, excused: Reasons) -> list[str]:
    """Find the modules without a test of their own. ``excused`` is by path below the package: ``cli/list.py``.

    A test that a reason names, by its path below the tests, must be there.
    """
    found = {path.removeprefix(f"{PACKAGE}/"): "no test of its own" for path in without_own_test(checkout)}
    tests = {test.path.removeprefix(f"{TESTS}/") for test in checkout.below(TESTS)}
    named = {(path, test) for path, reason in excused.items() for test in _NAMED_TEST.findall(reason)}
    missing = [f"{path}: there is no {test}" for path, test in sorted(named) if test not in tests]
    return _but_for(found, excused) + missing


def import_circles(checkout: Checkout) -> list[str]:
    """Find the circles of imports that the program carries out, also those in functions."""
    return _told(runtime_graph(checkout.package))


def room_circles(checkout: Checkout, layer: str) -> list[str]:
    """Find the circles between the rooms of a layer."""
    return _told(rooms(checkout, layer))


def odd_loggers(checkout: Checkout) -> list[str]:
    """Find the loggers that are kept under another name, or are not their module's own."""
    return [
        f"{module.path}:{node.lineno}: {ast.unparse(node)}"
        for module in checkout.package
        for node in ast.walk(module.tree)
        if isinstance(node, ast.stmt) and _is_odd_logger(node)
    ]


def asserts(checkout: Checkout) -> list[str]:
    """Find the assert statements, which Python leaves out under ``-O`` and whose errors are not ours."""
    return [
        f"{module.path}:{node.lineno}"
        for module in checkout.package
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Assert)
    ]


def _but_for(found: Reasons, accepted: Reasons) -> list[str]:
    """Return the findings that are not accepted, and the accepted things that were not found."""
    new = [f"{thing}: {text}" for thing, text in found.items() if thing not in accepted]
    return new + [f"{thing}: the exception is not needed" for thing in accepted if thing not in found]


def _repeats_folder(module: Module) -> bool:
    folder = module.folder.rpartition("/")[2]
    singular = re.sub("ie$", "y", folder.removesuffix("s"))
    return module.stem.startswith((f"{folder}_", f"{singular}_"))


def _first_line(module: Module) -> str:
    return (ast.get_docstring(module.tree) or "").partition("\n")[0]


def _fault_of_opening(line: str) -> str | None:
    """Return the fault of a module's first line."""
    if not line:
        return "no docstring"
    faults = {
        f"does not end with a full stop: {line}": not line.endswith("."),
        f"begins with no capital letter and no ``code``: {line}": not _OPENING.match(line),
        f"has fewer than {_FEWEST_WORDS} words: {line}": len(line.split()) < _FEWEST_WORDS,
        f"is no sentence: {line}": bool(_RIDDLE.match(line)),
    }
    return next((fault for fault, is_so in faults.items() if is_so), None)


def _faults_of_init(init: Module) -> Iterator[str]:
    text = ast.get_docstring(init.tree) or ""
    if len(_SENTENCE_END.findall(text)) != 1:
        yield f"not one sentence: {text or 'no docstring'}"
    code = init.tree.body[1:] if text else init.tree.body
    if any(not (init.folder == PACKAGE and _is_version(node)) for node in code):
        yield "holds code"


def _is_version(node: ast.stmt) -> bool:
    """Whether a statement does nothing but define ``__version__``, or import what its annotation needs."""
    if isinstance(node, ast.ImportFrom):
        return node.module == "typing"
    targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
    return [getattr(target, "id", None) for target in targets] == ["__version__"]


def _arrows(checkout: Checkout) -> list[str]:
    graph = import_graph(checkout.modules)
    return [f"{name} -> {imported}" for name in graph for imported in sorted(graph[name])]


def _is_test(name: str) -> bool:
    return name.rpartition(".")[2].startswith("test_")


def _told(graph: Graph) -> list[str]:
    """Return the shortest way around in each circle."""
    return [" -> ".join(shortest_circle(graph, circle[0])) + _size(circle) for circle in circles(graph)]


def _size(circle: Iterable[str]) -> str:
    return f" (among {len(list(circle))})"


def _is_odd_logger(node: ast.stmt) -> bool:
    if isinstance(node, ast.ImportFrom):
        return node.module == "logging" and any(alias.name == "getLogger" for alias in node.names)
    kept = getattr(node, "value", None) if isinstance(node, ast.Assign | ast.AnnAssign) else None
    is_logger = isinstance(kept, ast.Call) and ast.unparse(kept.func).endswith("getLogger")
    return is_logger and ast.unparse(node) != LOGGER
