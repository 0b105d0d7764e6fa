"""``wal-pipeline catalog`` makes the backup records again from the stores."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from wal_pipeline.cli.group import Context, pass_context
from wal_pipeline.cli.printing import print_line
from wal_pipeline.cli.spoken_group import SpokenGroup

if TYPE_CHECKING:
    from wal_pipeline.commands.rebuild_catalog import RebuiltStore

_SHOWN = 20


@click.group("catalog", cls=SpokenGroup)
def catalog_command() -> None:
    """The backup records: an index of the stores that can be made again from them."""


@catalog_command.command("rebuild")
@click.option("--workers", default=16, show_default=True, type=click.IntRange(1, 128), help="Objects asked at once.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@pass_context
def rebuild_command(context: Context, workers: int, as_json: bool) -> int:
    """Make the records of files, copies and base backups again from the stores alone. Nothing in a store is changed.

    Object sizes are compared, content is not read: 'wal-pipeline verify --deep' does that. A catalog that is damaged
    or of another version is set aside first. Exit code 1 where a store could not be read or an object is not as it
    should be.
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from wal_pipeline.catalog.migrate import set_aside
    from wal_pipeline.commands.rebuild_catalog import rebuild

    pipeline = context.pipeline
    stores = list(pipeline.stores.values())
    aside = set_aside(pipeline.settings.catalog(), pipeline.clock())
    if aside is not None:
        print_line(f"the old catalog was set aside: {aside}", err=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}: {task.completed:.0f} objects"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        tasks = {store.name: progress.add_task(store.name, total=None) for store in stores}
        result = rebuild(
            stores,
            pipeline.catalog,
            pipeline.settings.prefix,
            pipeline.settings.cluster,
            workers=workers,
            on_object=lambda store: progress.advance(tasks[store]),
        )
    if as_json:
        identifiers = [str(identifier) for identifier in result.system_identifiers]
        click.echo(
            json.dumps({"stores": [asdict(store) for store in result.stores], "system_identifiers": identifiers})
        )
    else:
        for store in result.stores:
            _tell(store)
    return 0 if all(not (store.error or store.damaged or store.faults) for store in result.stores) else 1


def _tell(store: "RebuiltStore") -> None:
    if store.error is None:
        print_line(f"{store.store}: copies {store.copies}, base backups {store.base_backups}")
    else:
        read = f", copies {store.copies} and base backups {store.base_backups} of it were read" if store.copies else ""
        print_line(f"{store.store}: not read to its end{read}")
        print_line(f"ERROR: {store.error}; the records of the unread part stay as they were")
    for title, lines in (
        ("not as it should be", store.damaged),
        ("could not be read", store.faults),
        ("not ours, left alone", store.foreign),
        ("base backups without a manifest, which do not exist", store.unfinished),
        ("recorded, not there any more, now forgotten", store.forgotten),
    ):
        if lines:
            print_line(f"  {title} ({len(lines)}):")
        for line in lines[:_SHOWN]:
            print_line(f"    {line}")
        if len(lines) > _SHOWN:
            print_line(f"    and {len(lines) - _SHOWN} more: see --json")
