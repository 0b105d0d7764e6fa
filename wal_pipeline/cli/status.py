"""``wal-pipeline status`` shows how the archive stands: as a screen, a line for Nagios, or JSON."""

import json
from typing import TYPE_CHECKING

import click

from wal_pipeline.cli.group import Context, pass_context

if TYPE_CHECKING:
    from wal_pipeline.commands.status.status import ArchiveStatus


@click.command("status")
@click.option("--check", is_flag=True, help="Print one line; exit code 0 ok, 1 warning, 2 critical, 3 unknown.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; with --check too.")
@click.option("--no-server", is_flag=True, help="Do not ask PostgreSQL.")
@pass_context
def status_command(context: Context, check: bool, as_json: bool, no_server: bool) -> int:
    """Show what can be recovered, how archiving goes, and what needs a person."""
    if check:
        return _check(context, ask_server=not no_server, as_json=as_json)
    status = _status(context, ask_server=not no_server)
    if as_json:
        from wal_pipeline.commands.status.as_json import status_as_json

        click.echo(json.dumps(status_as_json(status), indent=1))
    else:
        from wal_pipeline.cli.status_screen import print_screen

        print_screen(status)
    return 0


def _status(context: Context, *, ask_server: bool) -> "ArchiveStatus":
    from wal_pipeline.commands.health.facts import look_at_everything
    from wal_pipeline.commands.status.status import judge
    from wal_pipeline.wiring.health import fact_sources, health_limits

    pipeline = context.pipeline
    return judge(look_at_everything(fact_sources(pipeline, ask_server=ask_server)), health_limits(pipeline))


def _check(context: Context, *, ask_server: bool, as_json: bool) -> int:
    """Print the line of a Nagios plugin, which must not guess: any error of ours is UNKNOWN, not WARNING."""
    from wal_pipeline.commands.status.as_json import check_line, status_as_json
    from wal_pipeline.commands.status.status import Rating
    from wal_pipeline.errors import WalPipelineError

    try:
        status = _status(context, ask_server=ask_server)
    except WalPipelineError as error:
        said = " ".join(error.message.replace("|", "/").split())
        unknown = {"verdict": Rating.UNKNOWN.value, "error": error.message}
        click.echo(json.dumps(unknown, indent=1) if as_json else f"WAL-PIPELINE UNKNOWN - {said}")
        return Rating.UNKNOWN.exit_code
    click.echo(json.dumps(status_as_json(status), indent=1) if as_json else check_line(status))
    return status.verdict.exit_code
