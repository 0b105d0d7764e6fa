"""Prints text for a person: commands as they are typed here, in any encoding, and as wide as the terminal is."""

import sys
from typing import TYPE_CHECKING

import click

from wal_pipeline.host.own_command import typeable

if TYPE_CHECKING:
    from rich.console import Console

_PIPE_WIDTH = 200


def typed(text: str) -> str:
    """Return a text in which each command of this program is written with its path and ``--env-file`` where needed."""
    context = click.get_current_context(silent=True)
    return typeable(text, None if context is None else context.find_root().params.get("env_file"))


def print_line(text: str = "", *, err: bool = False) -> None:
    """Print a line. The stream is handed over: click writes UTF-8 where it finds one whose encoding is ASCII."""
    click.echo(typed(text), file=sys.stderr if err else sys.stdout)


def make_console() -> "Console":
    """Return a console on stdout. A pipe has no width: nothing is cut off or broken in it."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, _PIPE_WIDTH)
    return console
