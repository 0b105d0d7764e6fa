"""``wal-pipeline check`` says whether archiving works now."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from wal_pipeline.cli.group import Context, pass_context
from wal_pipeline.cli.printing import make_console, print_line, typed

if TYPE_CHECKING:
    from wal_pipeline.commands.check.item import CheckReport


@click.command("check")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@pass_context
def check_command(context: Context, as_json: bool) -> int:
    """Check the server, the spool, all that the settings name, and every store: write, read back, delete.

    Exit code 0 where archiving works now, 1 where an item failed. Every item runs, also after one that failed.
    """
    from wal_pipeline.archive.format.keys import cluster_prefix
    from wal_pipeline.commands.check.check import check
    from wal_pipeline.commands.setup.findings import Level
    from wal_pipeline.wiring.check import also_for, named_things, wanted_archiving

    pipeline = context.pipeline
    settings = pipeline.settings
    report = check(
        pipeline.server,
        pipeline.spool,
        pipeline.stores,
        cluster_prefix=cluster_prefix(settings.prefix, settings.cluster),
        wanted=wanted_archiving(pipeline),
        now=pipeline.clock,
        open_catalog=lambda: pipeline.catalog,
        named=named_things(pipeline),
        also=also_for(pipeline, with_stores=False, shipping_fault=Level.PROBLEM),
    )
    if as_json:
        click.echo(json.dumps({"ok": report.ok, "items": [asdict(item) for item in report.items]}))
    else:
        _print(report)
    return 0 if report.ok else 1


def _print(report: "CheckReport") -> None:
    from rich.table import Table
    from rich.text import Text

    console = make_console()
    table = Table(box=None, pad_edge=False)
    for heading in ("", "what", "found"):
        table.add_column(heading, overflow="fold")
    for item in report.items:
        verdict = Text("ok", style="green") if item.ok else Text("failed", style="red")
        table.add_row(verdict, item.name, Text(typed(item.message)))
    console.print(table)
    told: set[tuple[str, str]] = set()
    for item in report.items:
        if item.hint and (item.message, item.hint) not in told:
            told.add((item.message, item.hint))
            print_line(f"\n{item.name}: {item.message}\nHINT: {item.hint}")
