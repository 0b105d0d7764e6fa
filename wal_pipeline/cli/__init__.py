"""The command line: one file per command, loaded when it is typed."""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    import click

# Each command's module holds a click command of the same name. The order is the help's.
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
    "resume": "wal_pipeline.cli.resume",
    "drill": "wal_pipeline.cli.drill",
    "gaps": "wal_pipeline.cli.gaps",
    "alerts": "wal_pipeline.cli.alerts",
    "status": "wal_pipeline.cli.status",
    "metrics": "wal_pipeline.cli.metrics",
    "report": "wal_pipeline.cli.report",
    "cost": "wal_pipeline.cli.cost",
}
_NOT_CLICK: Final = {"archive-get": "wal_pipeline.cli.archive_get"}


def main() -> NoReturn:
    """Run the command line and leave with its exit code.

    0: done. 1: an error of ours, with its hint. 2: the command line was not understood. 130: interrupted.
    ``archive-get`` has exit codes of its own, which PostgreSQL reads.
    """
    if len(sys.argv) > 1 and sys.argv[1] in _NOT_CLICK:
        import_module(_NOT_CLICK[sys.argv[1]]).main(sys.argv[2:])
    from wal_pipeline.cli.group import run

    sys.exit(run(sys.argv[1:]))


def commands() -> dict[str, "click.Command"]:
    """Load every click command, by name."""
    return {name: getattr(import_module(module), attribute(name)) for name, module in COMMANDS.items()}


def attribute(name: str) -> str:
    """Return what a command's function is called in its module: ``list`` is Python's own word."""
    return name.replace("-", "_") + "_command"
