"""``wal-pipeline report`` writes one HTML page about the archive."""

from pathlib import Path

import click

from wal_pipeline.cli.group import Context, pass_context
from wal_pipeline.cli.printing import print_line
from wal_pipeline.text import size


@click.command("report")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("report.html"),
    show_default=True,
    help="The page's file.",
)
@click.option("--days", type=click.IntRange(1, 3650), default=30, show_default=True, help="How far back it looks.")
@pass_context
def report_command(context: Context, output: Path, days: int) -> int:
    """Write a page with the recovery windows, lag, storage, compression, failures and cost. It needs no network."""
    from wal_pipeline.commands.health.facts import look_at_everything
    from wal_pipeline.commands.report.page import render_report, write_report
    from wal_pipeline.commands.status.status import judge
    from wal_pipeline.wiring.health import fact_sources, health_limits

    pipeline = context.pipeline
    context.require_records()
    limits = health_limits(pipeline)
    status = judge(look_at_everything(fact_sources(pipeline)), limits)
    write_report(output, render_report(status, pipeline.catalog, limits, pipeline.settings.prices(), days=days))
    print_line(f"{output.absolute()}: {size(output.stat().st_size)}")
    return 0
