"""Reads names out of a package's source, wherever a module lies and whatever a class is called."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

UNKNOWN = "{}"  # the part of a name that only a run knows
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef)
_VALUES_METHODS = {"get", "put", "remove", "claim"}


@dataclass(frozen=True)
class Module:
    """One module's tree, and what each of its names is assigned or imported from."""

    tree: ast.Module
    constants: dict[str, list[ast.expr]] = field(default_factory=dict)
    imported: dict[str, tuple[str, str]] = field(default_factory=dict)


class PackageSource:
    """The source of all modules of a package."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def modules(self) -> dict[str, Module]:
        """Every module by its dotted name."""
        return {_dotted(self._folder, path): _module(path) for path in sorted(self._folder.rglob("*.py"))}

    def words(self, pattern: str) -> list[str]:
        """Return the string constants that match, without the docstrings."""
        found = (text for module in self.modules.values() for text in _strings(module.tree))
        return sorted({text for text in found if re.match(pattern, text)})

    def enumerations(self) -> list[list[str]]:
        """Return the values of each StrEnum of the records and alerts, which are stored; no user sees its name."""
        stored = [self.modules[name] for name in ("wal_pipeline.archive.records", "wal_pipeline.archive.alerts")]
        classes = (node for module in stored for node in ast.walk(module.tree))
        return sorted(_enum_values(node) for node in classes if isinstance(node, ast.ClassDef) and _is_str_enum(node))

    def environment(self) -> list[str]:
        """Return the environment variables that the code asks for by name."""
        return sorted(self._texts(_environment_names))

    def value_keys(self) -> list[str]:
        """Return the keys under which the catalog keeps single values."""
        return sorted(self._texts(_value_keys))

    def audit_records(self) -> list[dict[str, Any]]:
        """Return each kind of line in the audit log: its action, the names of its details, its results."""
        found: dict[tuple[str, tuple[str, ...]], set[str]] = {}
        for module, scope, node in self._nodes():
            for action, details, results in self._audit_calls(module, scope, node):
                found.setdefault((action, details), set()).update(results)
        return [
            {"action": action, "details": list(details), "results": sorted(results)}
            for (action, details), results in sorted(found.items())
        ]

    def audit_lines(self) -> list[dict[str, Any]]:
        """Return the dictionaries that hold a line's subject and result: their names, and the results."""
        found = []
        for module, scope, node in self._nodes():
            values = _named_values(node)
            if {"subject", "result"} <= values.keys():
                found.append({"names": list(values), "results": sorted(self.texts(module, scope, values["result"]))})
        return sorted(found, key=repr)

    def metadata(self) -> list[str]:
        """Return the names of Dagster's metadata with the type of each, as far as the source spells them."""
        found = set()
        for module, scope, node in self._nodes():
            for key, kind in _metadata(node):
                found |= {f"{text}: {kind}" for text in self.texts(module, scope, key)}
        return sorted(found)

    def texts(self, module: Module, scope: ast.AST, node: ast.expr | None) -> set[str]:
        """Return the texts that an expression may have; UNKNOWN stands for what only a run knows."""
        match node:
            case ast.Constant(value=str(text)):
                return {text}
            case ast.FormattedValue(value=value):
                return self.texts(module, scope, value)
            case ast.JoinedStr() | ast.BinOp(op=ast.Add()):
                return _joined([self.texts(module, scope, part) for part in _parts(node)])
            case ast.IfExp(body=body, orelse=other):
                return self.texts(module, scope, body) | self.texts(module, scope, other)
            case ast.Name(id=name):
                return self._texts_of_name(module, scope, name)
        return {UNKNOWN}

    def _texts_of_name(self, module: Module, scope: ast.AST, name: str) -> set[str]:
        values = _assigned(scope).get(name) or module.constants.get(name)
        if values:
            return {text for value in values for text in self.texts(module, module.tree, value)}
        origin, original = module.imported.get(name, ("", ""))
        source = self.modules.get(origin)
        return {UNKNOWN} if source is None else self._texts_of_name(source, source.tree, original)

    def _nodes(self) -> Iterator[tuple[Module, ast.AST, ast.AST]]:
        """Yield each node with its module and the function around it."""
        for module in self.modules.values():
            yield from ((module, scope, node) for scope, node in _scoped(module.tree, module.tree))

    def _texts(self, expressions: Any) -> set[str]:
        """Return the texts of what ``expressions`` finds in any node."""
        found: set[str] = set()
        for module, scope, node in self._nodes():
            for expression in expressions(node):
                found |= self.texts(module, scope, expression)
        return found - {UNKNOWN}

    def _audit_calls(
        self, module: Module, scope: ast.AST, node: ast.AST
    ) -> Iterator[tuple[str, tuple[str, ...], set[str]]]:
        """Find ``write(action, subject, result, …)`` and ``work(action, subject, …)``: no other calls look like these.

        Work that raises is written down as failed.
        """
        match node:
            case ast.Call(func=ast.Attribute(attr="write"), args=[action, _, result]):
                results = self.texts(module, scope, result)
            case ast.Call(func=ast.Attribute(attr="work"), args=[action, _]):
                told = [self.texts(module, scope, result) for result in _told_results(scope)]
                results = {"failed"}.union(*told)
            case _:
                return
        for text in self.texts(module, scope, action) - {UNKNOWN}:
            yield text, tuple(sorted(_details(scope, node))), results


def _dotted(folder: Path, path: Path) -> str:
    parts = path.relative_to(folder.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _module(path: Path) -> Module:
    tree = ast.parse(path.read_text())
    imported = {
        alias.asname or alias.name: (str(node.module), alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    return Module(tree, _assigned(tree), imported)


def _assigned(scope: ast.AST) -> dict[str, list[ast.expr]]:
    """Return what the names of a module or a function are assigned."""
    found: dict[str, list[ast.expr]] = {}
    for inner, node in _scoped(scope, scope):
        if inner is scope and isinstance(node, ast.Assign):
            for name, value in _pairs(node.targets[0], node.value):
                found.setdefault(name, []).append(value)
        elif inner is scope and isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            found.setdefault(node.target.id, []).append(node.value)
    return found


def _pairs(target: ast.expr, value: ast.expr) -> list[tuple[str, ast.expr]]:
    if isinstance(target, ast.Name):
        return [(target.id, value)]
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        return [pair for parts in zip(target.elts, value.elts, strict=False) for pair in _pairs(*parts)]
    return []


def _scoped(scope: ast.AST, node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    for child in ast.iter_child_nodes(node):
        yield scope, child
        yield from _scoped(child if isinstance(child, _SCOPES) else scope, child)


def _parts(node: ast.JoinedStr | ast.BinOp) -> list[ast.expr]:
    return node.values if isinstance(node, ast.JoinedStr) else [node.left, node.right]


def _joined(parts: list[set[str]]) -> set[str]:
    return {"".join(choice) for choice in product(*parts)}


def _strings(tree: ast.AST) -> Iterator[str]:
    documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
            yield node.value


def _is_str_enum(node: ast.ClassDef) -> bool:
    return any(isinstance(base, ast.Name) and base.id == "StrEnum" for base in node.bases)


def _enum_values(node: ast.ClassDef) -> list[str]:
    return [ast.literal_eval(member.value) for member in node.body if isinstance(member, ast.Assign)]


def _environment_names(node: ast.AST) -> Iterator[ast.expr]:
    """Yield X of ``os.environ.get(X)``, ``os.environ[X]`` and ``X in os.environ``."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Attribute(attr="environ"), attr="get"), args=[name, *_]):
            yield name
        case ast.Subscript(value=ast.Attribute(attr="environ"), slice=name):
            yield name


def _value_keys(node: ast.AST) -> Iterator[ast.expr]:
    """Yield X of ``catalog.values.put(X, …)`` and its like."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Attribute(attr="values"), attr=method), args=[key, *_]):
            if method in _VALUES_METHODS:
                yield key


def _named_values(node: ast.AST) -> dict[str, ast.expr]:
    """Return the values of a dictionary whose keys are words."""
    if not isinstance(node, ast.Dict):
        return {}
    pairs = zip(node.keys, node.values, strict=True)
    return {str(key.value): value for key, value in pairs if isinstance(key, ast.Constant)}


def _told_results(scope: ast.AST) -> Iterator[ast.expr]:
    """Yield X of ``told["result"] = X``, by which a piece of work says how it ended."""
    for node in ast.walk(scope):
        match node:
            case ast.Assign(targets=[ast.Subscript(slice=ast.Constant(value="result"))], value=value):
                yield value


def _details(scope: ast.AST, call: ast.Call) -> Iterator[str]:
    """Yield the names of a call's keywords, also of ``**values`` where the function spells its dictionary."""
    for word in call.keywords:
        if word.arg is not None and word.arg != "by":
            yield word.arg
        elif word.arg is None and isinstance(word.value, ast.Name):
            for value in _assigned(scope).get(word.value.id, []):
                yield from (ast.unparse(key).strip("'") for key in getattr(value, "keys", []) if key)


def _metadata(node: ast.AST) -> Iterator[tuple[ast.expr, str]]:
    """Yield the name and the type of what is made into metadata."""
    match node:
        case ast.Dict(keys=keys, values=values):
            yield from ((key, _kind(value)) for key, value in zip(keys, values, strict=True) if key and _kind(value))
        case ast.DictComp(key=key, value=value) if _kind(value):
            yield key, _kind(value)
        case ast.Assign(targets=[ast.Subscript(slice=key)], value=value) if _kind(value):
            yield key, _kind(value)
        case ast.Call(func=ast.Attribute(attr="setdefault"), args=[key, value]) if _kind(value):
            yield key, _kind(value)
        case ast.Call(func=ast.Attribute(attr="add_output_metadata"), args=[ast.Dict(keys=keys)]):
            yield from ((key, "of its value") for key in keys if key)
        case ast.keyword(arg="metadata", value=ast.Dict(keys=keys, values=values)):
            plain = zip(keys, values, strict=True)
            yield from ((key, "of its value") for key, value in plain if key and not _kind(value))


def _kind(value: ast.expr) -> str:
    """Return ``int`` of ``dg.MetadataValue.int(…)``, ``table`` of ``text_table(…)``; nothing for other expressions."""
    match value:
        case ast.Call(func=ast.Attribute(value=ast.Attribute(attr="MetadataValue"), attr=kind)):
            return kind
        case ast.Call(func=ast.Name(id="text_table")):
            return "table"
    return ""
