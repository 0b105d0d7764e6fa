"""Prints the figures of the package's layout, of one checkout or of two side by side.

``python scripts/house_figures.py [ROOT] [NEW_ROOT] [--json]``. It reads text only and needs only Python, so it works on
any state of the project. Without ROOT it reads the checkout in which it lies.
"""

import argparse
import ast
import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

_HERE: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_HERE))  # Python looks for a script's modules in the script's folder alone

from testbed.layout import (  # noqa: E402
    MOST_IMPORTS,
    MOST_IN_A_FOLDER,
    WITH_ROOMS,
    folder_sizes,
    leaf_folders,
    rooms,
    without_own_test,
)
from testbed.source_tree import (  # noqa: E402
    PACKAGE,
    Checkout,
    Graph,
    Module,
    circles,
    definitions,
    import_graph,
    imports,
    read_checkout,
    runtime_graph,
)

Function = ast.FunctionDef | ast.AsyncFunctionDef
_DOCUMENTED: Final = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table. ``items`` are the things that were counted, where a person wants to see them."""

    name: str
    value: int | float | str
    items: tuple[str, ...] = ()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures of the checkouts that were asked for."""
    parser = argparse.ArgumentParser(description="Print the figures of the package's layout.")
    parser.add_argument("roots", nargs="*", type=Path, help="a checkout, or two: before and after", metavar="ROOT")
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    asked = parser.parse_args(arguments)
    for root in asked.roots:
        if not (root / PACKAGE).is_dir():
            parser.error(f"'{root}' is no checkout: it has no folder {PACKAGE}")
    measured = {str(root): figures(read_checkout(root)) for root in asked.roots or [_HERE]}
    sys.stdout.write((as_json if asked.json else as_markdown)(measured) + "\n")
    return 0


def figures(checkout: Checkout) -> list[Figure]:
    """Return every figure of one checkout, in the order of the table."""
    package = checkout.package
    return [
        *_sizes(package),
        *_folders(package),
        *_functions(package),
        *_imports(package),
        *_circles(package),
        *_rooms(checkout),
        *_names(package),
        *_texts(package),
        _counted("modules without a mirrored test", without_own_test(checkout)),
    ]


def as_json(measured: dict[str, list[Figure]]) -> str:
    """Return the figures as JSON, by checkout and name."""
    values = {root: {row.name: asdict(row) for row in rows} for root, rows in measured.items()}
    return json.dumps(values, indent=2)


def as_markdown(measured: dict[str, list[Figure]]) -> str:
    """Return one table with a column for each checkout, and below it what was counted."""
    heads = ["before", "after"] if len(measured) == 2 else ["value"] * len(measured)
    lines = ["| " + " | ".join(["figure", *heads]) + " |", "|---|" + "---:|" * len(measured)]
    for row in zip(*measured.values(), strict=True):
        lines.append("| " + " | ".join([row[0].name, *(str(figure.value) for figure in row)]) + " |")
    for head, rows in zip(heads, measured.values(), strict=True):
        lines += _lists(rows, f" ({head})" if len(measured) > 1 else "")
    return "\n".join(lines)


def _lists(rows: Iterable[Figure], of: str) -> list[str]:
    lines = []
    for row in rows:
        if row.items:
            lines += ["", f"### {row.name[0].upper()}{row.name[1:]}{of}", "", *(f"- {item}" for item in row.items)]
    return lines


def _sizes(package: Iterable[Module]) -> list[Figure]:
    lengths = {module.path: len(module.lines) for module in package}
    return [
        Figure("modules, with __init__.py", len(lengths)),
        Figure("lines", sum(lengths.values())),
        Figure("median module, lines", _percentile(lengths.values(), 50)),
        Figure("longest module, lines", _longest(lengths)),
    ]


def _folders(package: Sequence[Module]) -> list[Figure]:
    crowded = {folder: size for folder, size in folder_sizes(package).items() if size > MOST_IN_A_FOLDER}
    return [
        Figure("largest folder without sub-folders, modules", _longest(leaf_folders(package))),
        _counted(f"folders with more than {MOST_IN_A_FOLDER} modules", _weighed(crowded)),
    ]


def _functions(package: Iterable[Module]) -> list[Figure]:
    lengths = {
        f"{module.path}:{node.lineno} {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for module in package
        for node in ast.walk(module.tree)
        if isinstance(node, Function)
    }
    return [
        Figure("functions and methods", len(lengths)),
        Figure("median function, lines", _percentile(lengths.values(), 50)),
        Figure("95th percentile of functions, lines", _percentile(lengths.values(), 95)),
        Figure("longest function, lines", _longest(lengths)),
    ]


def _imports(package: Sequence[Module]) -> list[Figure]:
    graph = runtime_graph(package)
    many = {name: len(imported) for name, imported in graph.items() if len(imported) > MOST_IMPORTS}
    local = {(module.path, found.line) for module in package for found in imports(module) if found.is_local}
    return [
        Figure("imports between modules", sum(len(imported) for imported in graph.values())),
        _counted(f"modules that import more than {MOST_IMPORTS} others", _weighed(many)),
        Figure("import statements inside functions", len(local)),
    ]


def _circles(package: Sequence[Module]) -> list[Figure]:
    """Count circles at run time, and apart from them those that exist only with the imports for type checkers."""
    runtime = circles(runtime_graph(package))
    typing = [circle for circle in circles(import_graph(package)) if circle not in runtime]
    return [
        _counted("import circles at run time", map(", ".join, runtime)),
        _counted("import circles only with TYPE_CHECKING imports", map(", ".join, typing)),
    ]


def _rooms(checkout: Checkout) -> list[Figure]:
    found = []
    for layer in WITH_ROOMS:
        graph: Graph = rooms(checkout, layer)
        found += [
            Figure(f"{layer}: rooms", len(graph)),
            Figure(f"{layer}: arrows between rooms", sum(len(others) for others in graph.values())),
            _counted(f"{layer}: circles of rooms", map(", ".join, circles(graph))),
        ]
    return found


def _names(package: Sequence[Module]) -> list[Figure]:
    classes = definitions(package, (ast.ClassDef,))
    functions = definitions(package, (ast.FunctionDef, ast.AsyncFunctionDef))
    return [
        _counted("public class names with several meanings", _repeated(classes)),
        _counted("public function names with several meanings", _repeated(functions)),
    ]


def _texts(package: Sequence[Module]) -> list[Figure]:
    nodes = [node for module in package for node in ast.walk(module.tree)]
    openings = Counter(text.splitlines()[0] for node in nodes if (text := _docstring(node)))
    repeated = {opening: times for opening, times in openings.items() if times > 1}
    excused = [line for module in package for line in module.lines if "# noqa: S101" in line]
    return [
        Figure("assert statements", sum(isinstance(node, ast.Assert) for node in nodes)),
        Figure("assert statements with # noqa: S101", len(excused)),
        _counted("first lines of docstrings that stand in several places", _weighed(repeated)),
    ]


def _docstring(node: ast.AST) -> str | None:
    return ast.get_docstring(node) if isinstance(node, _DOCUMENTED) else None


def _counted(name: str, items: Iterable[str]) -> Figure:
    listed = tuple(items)
    return Figure(name, len(listed), listed)


def _repeated(places: dict[str, list[str]]) -> list[str]:
    return [f"{name}: {', '.join(paths)}" for name, paths in places.items() if len(paths) > 1]


def _weighed(sizes: dict[str, int]) -> list[str]:
    return [f"{name}: {size}" for name, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0]))]


def _percentile(values: Iterable[int], percent: int) -> int:
    """Return the smallest value that at least ``percent`` of the values do not exceed; 0 where there are none."""
    ordered = sorted(values)
    return ordered[math.ceil(len(ordered) * percent / 100) - 1] if ordered else 0


def _longest(sizes: dict[str, int]) -> str:
    """Return the largest size with the name that has it."""
    if not sizes:
        return "0"
    name = max(sizes, key=lambda name: sizes[name])
    return f"{sizes[name]} ({name})"


if __name__ == "__main__":
    sys.exit(main())
