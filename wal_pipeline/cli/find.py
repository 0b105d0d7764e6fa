"""``wal-pipeline find`` finds what transactions did between two moments, in the archived WAL."""

import json
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import click

from wal_pipeline.cli.group import Context, pass_context

if TYPE_CHECKING:
    from wal_pipeline.commands.find.found import FoundTransaction

_SHOWN = 30
_LINES_AT_ONCE: Final = 500  # to write and flush line by line takes a fifth of the time of a search


@click.command("find")
@click.option("--from", "from_time", metavar="TIME", help="From this moment on, with its zone (default: an hour).")
@click.option("--to", "to_time", metavar="TIME", help="Up to this moment (default: the end of the archive).")
@click.option("--database", metavar="NAME", help="Only transactions that changed this database.")
@click.option("--relation", metavar="NAME", help="Only those that changed this relation: schema.table, or 5/16384.")
@click.option("--dropping", is_flag=True, help="Only those that dropped, truncated or wrote anew a relation.")
@click.option("--min-deletes", type=int, default=0, metavar="N", help="Only those that deleted so many rows.")
@click.option("--min-rows", type=int, default=0, metavar="N", help="Only those that changed so many rows.")
@click.option("--biggest", "biggest_first", is_flag=True, help="Those with most WAL first, not in commit order.")
@click.option(
    "--limit", type=int, metavar="N", help=f"Show so many: those that did most harm (default: {_SHOWN}; JSON: all)."
)
@click.option("--timeline", default="latest", metavar="latest|N", show_default=True, help="Along this timeline.")
@click.option("--store", default="any", metavar="any|r2|b2", show_default=True, help="Use only this store.")
@click.option("--system-identifier", type=int, help="Which cluster, where the stores know several under one name.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line: transactions, then a summary.")
@pass_context
def find_command(context: Context, /, *, as_json: bool, **options: Any) -> int:
    """Find what transactions did: rows inserted, updated and deleted, relations dropped.

    Reads the archived WAL between two moments, and needs only the stores' credentials and the cluster's name. It ends
    with the lines to type for the transaction that did most harm. Nothing is written. Exit code 1: some WAL of that
    time could not be read.
    """
    from wal_pipeline.cli.find_screen import FindScreen
    from wal_pipeline.cli.found_text import summary_values
    from wal_pipeline.cli.time_readings import refuse_ambiguous
    from wal_pipeline.commands.find.options import FindOptions
    from wal_pipeline.wiring.find import find_of

    for option, name in (("--from", "from_time"), ("--to", "to_time")):
        if options[name] is not None:
            refuse_ambiguous(option, options[name], context.pipeline.clock(), what="the moment")
    asked = FindOptions(**options)
    if not as_json:
        asked = replace(asked, limit=asked.limit or _SHOWN)
    find = find_of(context.pipeline, asked)
    with FindScreen() as screen:
        if not as_json:
            result = find.run(screen)
            screen.show(result, find.request.timeline)
        elif asked.limit is not None or asked.biggest_first:
            result = find.run(screen)
            _print_lines(result.transactions)
        else:
            _print_lines(find.transactions(screen))
            result = find.result()
    if as_json:
        click.echo(json.dumps(summary_values(result, find.request.timeline)))
    return 1 if result.holes else 0


def _print_lines(found: "Iterable[FoundTransaction]") -> None:
    """Print transactions as JSON, one a line, while they are found."""
    from wal_pipeline.cli.found_text import transaction_values

    left = iter(found)
    while lines := [json.dumps(transaction_values(one)) for one in islice(left, _LINES_AT_ONCE)]:
        click.echo("\n".join(lines))
