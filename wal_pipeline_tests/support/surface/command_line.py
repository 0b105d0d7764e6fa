"""Reads a command line as plain values: click's commands and argparse's parser, whatever file they are in."""

import argparse
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any

import click

_PLAIN = (str, int, float, bool)


def click_command(name: str, command: click.Command | None) -> dict[str, Any]:
    """Return what a person sees of a command: its parameters and its subcommands, each in their order."""
    assert command is not None, f"'{name}' is in the help and is no command"
    found = {
        "name": name,
        "hidden": command.hidden,
        "parameters": [_click_parameter(one) for one in command.params],
    }
    return said(found | (_group(command) if isinstance(command, click.Group) else {}))


def _group(group: click.Group) -> dict[str, Any]:
    context = click.Context(group)
    names = group.list_commands(context)
    return {
        "runs_without_subcommand": group.invoke_without_command,
        "commands": [click_command(name, group.get_command(context, name)) for name in names],
    }


def argparse_parser(parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Return what a person sees of a parser: its name and its arguments, in their order."""
    return {
        "name": parser.prog,
        "allows_abbreviations": parser.allow_abbrev,
        "parameters": [_argparse_argument(action) for action in parser._actions],
    }


def _click_parameter(one: click.Parameter) -> dict[str, Any]:
    found = {
        "kind": one.param_type_name,
        "options": [*one.opts, *one.secondary_opts],
        "type": _click_type(one.type),
        "default": plain(one.default),
        "required": one.required,
        "values": one.nargs if one.nargs != 1 else None,
        "repeated": one.multiple,
        "environment": plain(one.envvar),
        "metavar": one.metavar,
    }
    return said(found | (_option(one) if isinstance(one, click.Option) else {}))


def _option(one: click.Option) -> dict[str, Any]:
    return {
        "flag": one.is_flag,
        "hidden": one.hidden,
        "shows_default": bool(one.show_default),
        "count": one.count,
    }


def _click_type(kind: click.ParamType) -> dict[str, Any]:
    limits = ("choices", "min", "max", "min_open", "max_open", "clamp", "exists", "file_okay", "dir_okay")
    return said({"name": kind.name, **{limit: plain(getattr(kind, limit, None)) for limit in limits}})


def _argparse_argument(action: argparse.Action) -> dict[str, Any]:
    found = {
        "options": action.option_strings or [action.dest],
        "kind": type(action).__name__.strip("_"),
        "type": getattr(action.type, "__name__", None),
        "default": plain(action.default),
        "required": action.required,
        "values": plain(action.nargs),
        "choices": _choices(action.choices),
        "metavar": plain(action.metavar),
    }
    return said(found)


def _choices(choices: Iterable[Any] | None) -> Any:
    if isinstance(choices, range):
        return f"{choices.start} to {choices.stop - 1}"
    return None if choices is None else [plain(one) for one in choices]


def said(values: dict[str, Any]) -> dict[str, Any]:
    """Leave out what says nothing: no value, no, an empty text or list."""
    return {name: value for name, value in values.items() if value is not False and value not in (None, "", [], {})}


def plain(value: object) -> Any:
    """Return a value that JSON has; None for the marks by which a library says that there is no value."""
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return str(value) if isinstance(value, PurePath) else value if isinstance(value, _PLAIN) else None
