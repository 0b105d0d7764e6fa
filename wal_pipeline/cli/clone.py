"""``wal-pipeline clone``: a running copy of the cluster as of a moment, beside the original, for a while."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wal_pipeline.cli.group import Context, pass_context
from wal_pipeline.cli.printing import print_line
from wal_pipeline.cli.spoken_group import SpokenGroup
from wal_pipeline.text import moment_utc

if TYPE_CHECKING:
    from wal_pipeline.commands.clone.record import CloneState

_MOMENT = (
    click.option("--to-time", metavar="TIME", help="As of this moment, with its zone: '2026-11-22 17:45:00+00'."),
    click.option("--to-xid", type=int, metavar="XID", help="As of this transaction."),
    click.option("--to-lsn", metavar="LSN", help="As of this LSN."),
    click.option("--to-name", metavar="NAME", help="As of this named restore point."),
    click.option("--inclusive/--exclusive", default=True, help="Just after the moment (default), or just before it."),
    click.option(
        "--timeline", default="latest", metavar="latest|current|N", show_default=True, help="Along this timeline."
    ),
    click.option("--store", default="any", metavar="any|r2|b2", show_default=True, help="Use only this store."),
    click.option("--base-backup", metavar="ID", help="Begin from this base backup (default: the newest that will do)."),
    click.option("--system-identifier", type=int, help="Which cluster, where the stores know several under one name."),
    click.option("--owner", metavar="USER", help="As root: the user who runs the server (default: the cluster's)."),
)


def _with_moment(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_MOMENT):
        command = option(command)
    return command


@click.group("clone", cls=SpokenGroup, invoke_without_command=True)
@_with_moment
@click.option("--name", metavar="NAME", help="What the clone is called (default: clone-1, clone-2 …).")
@click.option(
    "--port",
    type=int,
    metavar="N",
    help="Listen on 127.0.0.1 too, on this port: a role gets in with its password (default: only on a socket).",
)
@click.option("--for", "keep_for", metavar="TIME", help="End and remove it after this time: 30m, 2h (default), 1d12h.")
@click.option("--read-only", is_flag=True, help="Pause at the moment, so that 'move' goes onwards without a download.")
@click.option(
    "--only-database",
    "only_databases",
    multiple=True,
    metavar="NAME",
    help="Bring back only this database, several times for several; the others are neither fetched nor kept.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@pass_context
@click.pass_context
def clone_command(ctx: click.Context, context: Context, /, *, as_json: bool, **options: Any) -> int | None:
    """Make a running copy of the cluster as of a moment, by default the end of the archive; the cluster stays as it is.

    The copy archives nothing, follows no publisher and starts no job. It ends and is removed by itself after --for.
    """
    from wal_pipeline.wiring.clone import make_clone

    if ctx.invoked_subcommand is not None:
        given = [one for one in options if ctx.get_parameter_source(one) is not click.core.ParameterSource.DEFAULT]
        if given or as_json:
            raise click.UsageError(f"Write the options after '{ctx.invoked_subcommand}'.")
        return None
    options["keep_for"] = options["keep_for"] or "2h"
    return _stand(ctx, context, make_clone, options, as_json=as_json)


@clone_command.command("move")
@click.argument("name")
@_with_moment
@click.option("--for", "keep_for", metavar="TIME", help="End it so long from now on (default: its end stays).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@pass_context
@click.pass_context
def move_clone_command(ctx: click.Context, context: Context, /, *, as_json: bool, **options: Any) -> int:
    """Take a clone to another moment: a read-only one goes onwards without a download, else it is made anew."""
    from wal_pipeline.wiring.clone import move_clone

    return _stand(ctx, context, move_clone, options, as_json=as_json)


@clone_command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@pass_context
@click.pass_context
def list_clones_command(ctx: click.Context, context: Context, /, *, as_json: bool) -> None:
    """List the clones that stand. What is over, or was left by a restart, is removed first."""
    from wal_pipeline.wiring.clone import clear_clones, list_clones

    removed = clear_clones(context.pipeline, env_file=_env_file(ctx))
    states = list_clones(context.pipeline)
    if as_json:
        values = {"clones": [state.values() for state in states], "removed": list(removed)}
        click.echo(json.dumps(values))
        return
    for words in removed:
        print_line(f"NOTE: {words}", err=True)
    if not states:
        print_line("no clones")
        return
    _print_table(states)


@clone_command.command("stop")
@click.argument("name")
@pass_context
def stop_clone_command(context: Context, name: str) -> None:
    """End a clone now and remove it."""
    from wal_pipeline.commands.restore.options import RestoreOptionError
    from wal_pipeline.wiring.clone import stop_clone

    try:
        stop_clone(context.pipeline, name)
    except RestoreOptionError as error:
        raise click.UsageError(str(error)) from None
    print_line(f"clone '{name}' is ended and removed")


@clone_command.command("keep", hidden=True)
@click.argument("name")
@pass_context
def keep_clone_command(context: Context, name: str) -> None:
    """Wait until a clone's time is over, and end it: 'wal-pipeline clone' starts this in the background."""
    from wal_pipeline.commands.clone.keeper import READY
    from wal_pipeline.wiring.clone import keep

    keep(context.pipeline, name, lambda: _tell(READY))


def _tell(word: bytes) -> None:
    """Tell whoever started us, who then closes the pipe."""
    os.write(1, word)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _stand(
    ctx: click.Context, context: Context, make: Callable[..., "CloneState"], options: dict[str, Any], *, as_json: bool
) -> int:
    """Make or move a clone and print how it stands."""
    from wal_pipeline.archive.recovery.target_text import TargetTextError
    from wal_pipeline.cli.clone_screen import CloneScreen
    from wal_pipeline.cli.leaving import leaving_in_order
    from wal_pipeline.cli.time_readings import refuse_ambiguous
    from wal_pipeline.commands.clone.options import CloneOptions
    from wal_pipeline.commands.restore.options import RestoreOptionError

    pipeline = context.pipeline
    if options["to_time"] is not None:
        refuse_ambiguous("--to-time", options["to_time"], pipeline.clock())
    screen = CloneScreen(pipeline.settings.cluster, as_json=as_json)
    try:
        with leaving_in_order(), screen:
            state = make(pipeline, CloneOptions(**options), screen, env_file=_env_file(ctx))
    except (RestoreOptionError, TargetTextError) as error:
        raise click.UsageError(str(error)) from None
    if as_json:
        click.echo(json.dumps(state.values()))
    else:
        print_line("\n".join(_lines(state)))
    return 0


def _env_file(ctx: click.Context) -> Path | None:
    found: Path | None = ctx.find_root().params.get("env_file")
    return found


def _lines(state: "CloneState") -> list[str]:
    reached = "" if state.reached_commit_at is None else f", last commit {state.reached_commit_at.isoformat(' ')}"
    address = f", and 127.0.0.1, port {state.port}" if state.listens else ""
    ends = "-" if state.ends_at is None else moment_utc(state.ends_at)
    return [
        f"Clone '{state.name}' stands as of {state.target}{reached}",
        f"  {state.state.value}, in '{state.folder}'{address}",
        f"  ends and is removed at {ends}, or with 'wal-pipeline clone stop {state.name}'",
        f"  {state.connect}",
    ]


def _print_table(states: tuple["CloneState", ...]) -> None:
    from rich.table import Table

    from wal_pipeline.cli.printing import make_console

    table = Table("name", "state", "as of", "ends at", "connect with", box=None, pad_edge=False)
    for one in states:
        ends = "-" if one.ends_at is None else moment_utc(one.ends_at)
        table.add_row(one.name, one.state.value, one.target or "-", ends, one.connect or "; ".join(one.notes) or "-")
    make_console().print(table)
