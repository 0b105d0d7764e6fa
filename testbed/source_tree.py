"""Reads a checkout's Python files: modules, their imports, the graph of imports and its circles.

It reads text only and imports nothing from the checkout, so it works on any state of the project.
"""

import ast
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

PACKAGE: Final = "wal_pipeline"
TESTS: Final = "wal_pipeline_tests"
FOLDERS: Final = (PACKAGE, TESTS, "testbed", "chaos", "demo", "benchmarks", "scripts")
_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)

Graph = Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True, eq=False)
class Module:
    """One Python file. ``path`` is relative to the checkout: ``wal_pipeline/wal/lsn.py``."""

    path: str
    text: str
    tree: ast.Module

    @property
    def stem(self) -> str:
        """The file's name without its suffix."""
        return Path(self.path).stem

    @property
    def folder(self) -> str:
        """The folder of the file: ``wal_pipeline/wal``."""
        return Path(self.path).parent.as_posix()

    @property
    def name(self) -> str:
        """The name by which it is imported; a folder's ``__init__.py`` has the folder's name."""
        return (self.folder if self.is_init else self.path.removesuffix(".py")).replace("/", ".")

    @property
    def is_init(self) -> bool:
        """Whether it is the ``__init__.py`` of a folder."""
        return self.stem == "__init__"

    @property
    def is_plain(self) -> bool:
        """Whether it counts as a module of its folder: neither ``__init__.py`` nor ``__main__.py``."""
        return self.stem not in {"__init__", "__main__"}

    @property
    def lines(self) -> list[str]:
        """The lines of the file."""
        return self.text.splitlines()


@dataclass(frozen=True, slots=True)
class Checkout:
    """The Python files of one checkout, sorted by path."""

    root: Path
    modules: tuple[Module, ...]

    def below(self, *folders: str) -> tuple[Module, ...]:
        """Return the modules in these folders and in the folders below them."""
        return tuple(module for module in self.modules if _is_below(module.path, folders))

    @property
    def package(self) -> tuple[Module, ...]:
        """The modules of the program itself."""
        return self.below(PACKAGE)


@dataclass(frozen=True, slots=True)
class Import:
    """One imported name. ``target`` is a module, or a module and a name in it, joined by a dot.

    ``is_local``: inside a function. ``is_typing``: only under ``if TYPE_CHECKING``.
    """

    target: str
    line: int
    is_local: bool = False
    is_typing: bool = False

    @property
    def is_runtime(self) -> bool:
        """Whether the program carries it out, at its start or later in a function."""
        return not self.is_typing


def read_checkout(root: Path, folders: Iterable[str] = FOLDERS) -> Checkout:
    """Read every Python file of the project's folders; folders that this checkout lacks are left out."""
    paths = sorted(path for folder in folders for path in (root / folder).rglob("*.py"))
    return Checkout(root, tuple(_read(path, root) for path in paths))


@lru_cache(maxsize=4096)
def imports(module: Module) -> tuple[Import, ...]:
    """Return everything that a module imports, also inside functions and under ``TYPE_CHECKING``."""
    return tuple(_imports_below(module.tree, module))


def import_graph(modules: Iterable[Module], counts: Callable[[Import], bool] = lambda _: True) -> Graph:
    """Return which of these modules each one imports, by name. Only imports count for which ``counts`` is true."""
    by_name = {module.name: module for module in modules}
    return {name: _imported(module, by_name, counts) for name, module in by_name.items()}


def runtime_graph(modules: Iterable[Module]) -> Graph:
    """Return the graph of the imports that the program carries out, without those under ``TYPE_CHECKING``."""
    return import_graph(modules, lambda found: found.is_runtime)


def circles(graph: Graph) -> list[list[str]]:
    """Return the strongly connected components with more than one node, each sorted, the largest first."""
    reached = {node: _reachable(graph, node) for node in graph}
    found = {frozenset(other for other in reached[node] if node in reached[other]) for node in graph}
    return sorted((sorted(circle) for circle in found if len(circle) > 1), key=lambda circle: (-len(circle), circle))


def shortest_circle(graph: Graph, start: str) -> list[str]:
    """Return the shortest way from a node back to itself, both ends included; empty where there is none."""
    ways = deque([[start]])
    seen: set[str] = set()
    while ways:
        way = ways.popleft()
        for after in sorted(graph[way[-1]] - seen):
            if after == start:
                return [*way, start]
            seen.add(after)
            ways.append([*way, after])
    return []


def definitions(modules: Iterable[Module], kinds: tuple[type[ast.AST], ...]) -> dict[str, list[str]]:
    """Return the public names that modules define at their top level, each with the modules' paths."""
    found: dict[str, set[str]] = {}
    for module in modules:
        for node in module.tree.body:
            name = getattr(node, "name", "_")
            if isinstance(node, kinds) and not name.startswith("_"):
                found.setdefault(name, set()).add(module.path)
    return {name: sorted(found[name]) for name in sorted(found)}


def _read(path: Path, root: Path) -> Module:
    text = path.read_text(encoding="utf-8")
    return Module(path.relative_to(root).as_posix(), text, ast.parse(text, filename=str(path)))


def _is_below(path: str, folders: Iterable[str]) -> bool:
    return any(path.startswith(f"{folder}/") for folder in folders)


def _imports_below(node: ast.AST, module: Module, *, local: bool = False, typing: bool = False) -> Iterator[Import]:
    """Walk the tree. ``local``: inside a function. ``typing``: under ``TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(node):
        only_typing = typing or (_asks_for_typing(node) and child in getattr(node, "body", ()))
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield from (Import(target, child.lineno, local, only_typing) for target in _targets(child, module))
        else:
            yield from _imports_below(child, module, local=local or isinstance(child, _FUNCTIONS), typing=only_typing)


def _targets(node: ast.Import | ast.ImportFrom, module: Module) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [".".join(filter(None, [_source(node, module), alias.name])) for alias in node.names]


def _source(node: ast.ImportFrom, module: Module) -> str:
    """Return the absolute name of the module after ``from``."""
    if node.level == 0:
        return node.module or ""
    package = Path(module.path).parent.parts
    return ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])


def _asks_for_typing(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def _imported(module: Module, known: Mapping[str, Module], counts: Callable[[Import], bool]) -> frozenset[str]:
    found = {_module_of(imported.target, known) for imported in imports(module) if counts(imported)}
    return frozenset(name for name in found if name is not None and name != module.name)


def _module_of(target: str, known: Mapping[str, Module]) -> str | None:
    """Return the module that an imported name is, or lies in."""
    return next((name for name in (target, target.rpartition(".")[0]) if name in known), None)


def _reachable(graph: Graph, start: str) -> set[str]:
    reached: set[str] = set()
    waiting = [start]
    while waiting:
        new = graph[waiting.pop()] - reached
        reached |= new
        waiting.extend(new)
    return reached
