"""Writes plain values as JSON that a person can compare: a value that fits on a line is on one."""

import json
from typing import Any

_WIDTH = 120


def pretty(value: Any, indent: str = "", before: str = "") -> str:
    """Return a value as JSON, indented by one space a level. ``before`` stands before it on its line."""
    line = json.dumps(value, ensure_ascii=False, default=str)
    if not isinstance(value, (dict, list)) or not value or len(indent + before + line) < _WIDTH:
        return before + line
    if isinstance(value, list):
        return _block(f"{before}[", [pretty(one, f"{indent} ") for one in value], "]", indent)
    items = [pretty(one, f"{indent} ", f"{json.dumps(str(name))}: ") for name, one in value.items()]
    return _block(f"{before}{{", items, "}", indent)


def _block(begin: str, items: list[str], end: str, indent: str) -> str:
    separator = f",\n{indent} "
    return f"{begin}\n{indent} {separator.join(items)}\n{indent}{end}"


def as_read(value: Any) -> Any:
    """Return a value as it comes back from JSON: enumerations and paths as text, tuples as lists."""
    return json.loads(pretty(value))
