"""``wal-pipeline relations`` shows the kept lists of the cluster's relations, or keeps one now."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from wal_pipeline.cli.group import Context, pass_context
from wal_pipeline.cli.printing import make_console, print_line
from wal_pipeline.text import counted, moment_json, moment_text, size

if TYPE_CHECKING:
    from rich.table import Table

    from wal_pipeline.commands.relations.keep import KeptList
    from wal_pipeline.commands.relations.stored_list import StoredList

_Lists = Mapping[int, Mapping[str, "Sequence[StoredList]"]]


@click.command("relations")
@click.option("--keep", is_flag=True, help="Ask the server now, and keep a list on every store.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@pass_context
def relations_command(context: Context, keep: bool, as_json: bool) -> int:
    """Show the kept lists of relations, by which WAL and files are given the names of tables.

    A list is kept with each base backup and once a day. Exit code 1 where a store did not answer, or lacks the list
    that --keep made.
    """
    from wal_pipeline.wiring.relations import relation_keeper, stored_relation_lists

    pipeline = context.pipeline
    if keep:
        with pipeline.audit.work("relations", pipeline.settings.cluster) as told:
            kept = relation_keeper(pipeline).keep()
            told.update({"result": kept.describe(), "subject": kept.moment})
        print_line(json.dumps(kept_as_json(kept)) if as_json else _kept_text(kept))
        for note in kept.notes:
            print_line(f"WARNING: {note}", err=True)
        return 1 if kept.failures else 0
    found, silent = stored_relation_lists(pipeline)
    if as_json:
        click.echo(json.dumps({"lists": _lists_as_json(found), "silent": silent}, indent=1))
    elif silent.keys() < pipeline.stores.keys():
        make_console().print(_table(found, list(pipeline.settings.stores), silent))
    for name, reason in silent.items():
        print_line(f"WARNING: {name} is left out: {reason}", err=True)
    return 1 if silent else 0


def kept_as_json(kept: "KeptList") -> dict[str, Any]:
    """Return a list that was kept as JSON values."""
    return {
        "moment": kept.moment,
        "databases": kept.databases,
        "relations": kept.relations,
        "size_bytes": kept.size_bytes,
        "stored_size_bytes": kept.stored_size_bytes,
        "stores": list(kept.stored_on),
        "failures": dict(kept.failures),
        "unread": dict(kept.unread),
        "seconds": round(kept.seconds, 3),
    }


def _kept_text(kept: "KeptList") -> str:
    return f"{kept.describe()}: {size(kept.stored_size_bytes)} stored, {kept.seconds:.1f} s"


def _lists_as_json(found: _Lists) -> list[dict[str, Any]]:
    return [
        {
            "system_identifier": str(identifier),
            "taken_at": moment_json(copies[0].taken_at),
            "copies": {one.store: {"object_key": one.key, "stored_size_bytes": one.size_bytes} for one in copies},
        }
        for identifier, lists in found.items()
        for copies in lists.values()
    ]


def _table(found: _Lists, stores: "Sequence[str]", silent: Mapping[str, str]) -> "Table":
    from rich.table import Table

    rows = [(identifier, copies) for identifier, lists in found.items() for copies in lists.values()]
    caption = counted(len(rows), "list") + " of relations"
    table = Table(box=None, pad_edge=False, caption=caption, caption_justify="left")
    for title in ("taken (UTC)", "system identifier", *stores):
        table.add_column(title, overflow="fold")
    for identifier, copies in rows:
        sizes = {one.store: size(one.size_bytes) for one in copies}
        shown = (sizes.get(store, "not known" if store in silent else "-") for store in stores)
        table.add_row(moment_text(copies[0].taken_at), str(identifier), *shown)
    return table
