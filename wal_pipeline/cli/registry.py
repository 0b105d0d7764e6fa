"""Names the module of each command, which is loaded when the command is typed."""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import click

# A command's module holds a function of the same name, with '_command' after it. The order is that of the help.
COMMANDS: Final = {
    "setup": "wal_pipeline.cli.setup",
    "check": "wal_pipeline.cli.check",
    "dev": "wal_pipeline.cli.dev",
    "archive": "wal_pipeline.cli.archive",
    "list": "wal_pipeline.cli.list",
    "catalog": "wal_pipeline.cli.catalog",
    "backup": "wal_pipeline.cli.backup",
    "restore": "wal_pipeline.cli.restore",
    "verify": "wal_pipeline.cli.verify",
    "expire": "wal_pipeline.cli.expire",
    "pause": "wal_pipeline.cli.pause",
    "resume": "wal_pipeline.cli.pause",
    "drill": "wal_pipeline.cli.drill",
    "gaps": "wal_pipeline.cli.gaps",
    "alerts": "wal_pipeline.cli.alerts",
    "status": "wal_pipeline.cli.status",
    "metrics": "wal_pipeline.cli.metrics",
    "report": "wal_pipeline.cli.report",
    "cost": "wal_pipeline.cli.cost",
}


def commands() -> dict[str, "click.Command"]:
    """Load every click command, by name."""
    return {name: load_command(name) for name in COMMANDS}


def load_command(name: str) -> "click.Command":
    """Load one click command: its module's function ``list_command``, since ``list`` is Python's own word."""
    command: click.Command = getattr(import_module(COMMANDS[name]), f"{name}_command")
    return command
