"""``wal-pipeline archive`` drains the spool now, without Dagster."""

import json
import time
from collections import Counter
from typing import TYPE_CHECKING

import click

from wal_pipeline.cli.group import Context, pass_context
from wal_pipeline.cli.printing import print_line, typed

if TYPE_CHECKING:
    from rich.progress import Progress

    from wal_pipeline.commands.archive_push.events import ArchiveEvent


@click.command("archive")
@click.option("--linger", default=0.0, show_default=True, metavar="SECONDS", help="Wait so long for new files.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
@pass_context
def archive_command(context: Context, linger: float, as_json: bool) -> int:
    """Archive every file that waits in the spool to every store.

    Exit code 0 where the spool's files are on every store, 1 where something is left or was quarantined.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from wal_pipeline.commands.pause import refuse_if_paused
    from wal_pipeline.wiring.archive_push import archive_now

    pipeline = context.pipeline
    refuse_if_paused(pipeline.catalog, pipeline.clock())
    waiting = len(pipeline.spool.scan(pipeline.clock()).ready)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    counts: Counter[str] = Counter()
    begun = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), transient=as_json) as progress:
        task = progress.add_task("archiving", total=waiting)
        for event in archive_now(pipeline, linger_seconds=linger):
            counts[type(event).__name__] += 1
            progress.update(task, completed=counts["FileReleased"], total=max(waiting, counts["FileReleased"]))
            _tell(event, progress)
    seconds = time.monotonic() - begun
    left = len(pipeline.spool.scan(pipeline.clock()).ready)
    summary = {
        "released": counts["FileReleased"],
        "copies_failed": counts["CopyFailed"],
        "quarantined": counts["FileQuarantined"],
        "spool_left": left,
        "seconds": round(seconds, 3),
    }
    print_line(
        json.dumps(summary) if as_json else "{released} archived, {spool_left} left in the spool".format(**summary)
    )
    return 1 if left or counts["FileQuarantined"] else 0


def _tell(event: "ArchiveEvent", progress: "Progress") -> None:
    from wal_pipeline.commands.archive_push.events import CopyFailed, FileQuarantined, FileSkipped

    if isinstance(event, CopyFailed):
        text, style = f"{event.name}: {event.message}", "red"
    elif isinstance(event, FileQuarantined):
        text, style = f"{event.message}; moved to {event.path}", "red"
    elif isinstance(event, FileSkipped):
        text, style = f"{event.name} left in the spool: {event.message}", "red" if event.needs_help else "yellow"
    else:
        return
    # Printed as it is: a store's message holds no markup of ours, and a line of a log must not be broken.
    progress.console.print(typed(text), style=style, markup=False, highlight=False, soft_wrap=True)
