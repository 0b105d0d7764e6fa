"""Names the module of each command, which is loaded when the command is typed."""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import click

# A command's module holds a function of the same name, with '_command' after it. The order is that of the help.
COMMANDS: Final = {
    "status": "wal_pipeline.cli.status",
    "check": "wal_pipeline.cli.check",
    "alerts": "wal_pipeline.cli.alerts",
    "list": "wal_pipeline.cli.list",
    "gaps": "wal_pipeline.cli.gaps",
    "report": "wal_pipeline.cli.report",
    "cost": "wal_pipeline.cli.cost",
    "backup": "wal_pipeline.cli.backup",
    "restore": "wal_pipeline.cli.restore",
    "clone": "wal_pipeline.cli.clone",
    "drill": "wal_pipeline.cli.drill",
    "relations": "wal_pipeline.cli.relations",
    "setup": "wal_pipeline.cli.setup",
    "dev": "wal_pipeline.cli.dev",
    "metrics": "wal_pipeline.cli.metrics",
    "archive": "wal_pipeline.cli.archive",
    "ship": "wal_pipeline.cli.ship",
    "slot": "wal_pipeline.cli.slot",
    "verify": "wal_pipeline.cli.verify",
    "expire": "wal_pipeline.cli.expire",
    "catalog": "wal_pipeline.cli.catalog",
    "pause": "wal_pipeline.cli.pause",
    "resume": "wal_pipeline.cli.pause",
}
ARCHIVE_GET: Final = "archive-get"  # started without click, by cli/main.py
HEADINGS: Final = {
    "Every day": ("status", "check", "alerts", "list", "gaps", "report", "cost"),
    "Recovery": ("backup", "restore", "clone", "drill", "relations", ARCHIVE_GET),
    "Set-up": ("setup", "slot", "dev", "metrics"),
    "Upkeep": ("archive", "ship", "verify", "expire", "catalog", "pause", "resume"),
}


def commands() -> dict[str, "click.Command"]:
    """Load every click command, by name."""
    return {name: load_command(name) for name in COMMANDS}


def load_command(name: str) -> "click.Command":
    """Load one click command: its module's function ``list_command``, since ``list`` is Python's own word."""
    command: click.Command = getattr(import_module(COMMANDS[name]), f"{name}_command")
    return command
