"""``wal-pipeline status`` shows how the archive stands: as a screen, a line for Nagios, or JSON."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wal_pipeline.cli.group import Context, pass_context
from wal_pipeline.cli.printing import print_line
from wal_pipeline.errors import WalPipelineError

if TYPE_CHECKING:
    from wal_pipeline.commands.status.status import ArchiveStatus


@click.command("status")
@click.option("--check", is_flag=True, help="Print one line; exit code 0 ok, 1 warning, 2 critical, 3 unknown.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; with --check too.")
@click.option("--no-server", is_flag=True, help="Do not ask PostgreSQL.")
@click.option(
    "--env-file",
    "env_files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Look at the cluster of this settings file. Give it several times for a line for each cluster.",
)
@pass_context
@click.pass_context
def status_command(
    ctx: click.Context, context: Context, /, *, check: bool, as_json: bool, no_server: bool, env_files: tuple[Path, ...]
) -> int:
    """Show what can be recovered, how archiving goes, and what needs a person.

    It looks at this host's records, the spool and the server, and asks no store what it holds. Exit code 1 where this
    host has no records. With several settings files it prints one line for each cluster, the worst first, from those
    files alone and not from the environment; the exit code is that of the worst: 2 critical, 3 unknown, 1 warning, 0.
    """
    if env_files and ctx.find_root().params.get("env_file") is not None:
        raise click.UsageError("Give --env-file before 'status' or after it, not both.")
    if len(env_files) > 1:
        return _clusters(env_files, check=check, as_json=as_json, ask_server=not no_server)
    if env_files:
        ctx.find_root().params["env_file"] = env_files[0]  # commands that are printed name it
        context = ctx.obj = context.for_file(env_files[0])
    if check:
        return _check(context, ask_server=not no_server, as_json=as_json)
    return _screen(context, ask_server=not no_server, as_json=as_json)


def _clusters(env_files: tuple[Path, ...], *, check: bool, as_json: bool, ask_server: bool) -> int:
    from wal_pipeline.cli.clusters import look_at_clusters, print_clusters

    looks = look_at_clusters(env_files, ask_server=ask_server)
    if as_json:
        click.echo(json.dumps([look.values for look in looks], indent=1))
    elif check:
        for look in looks:
            print_line(look.check_line)
    else:
        print_clusters(looks)
    return looks[0].rating.exit_code


def _screen(context: Context, *, ask_server: bool, as_json: bool) -> int:
    from wal_pipeline.cli.clusters import not_known
    from wal_pipeline.cli.status_screen import print_screen

    status = _status(context, ask_server=ask_server)
    unknown = not_known(context.pipeline, status)
    if as_json:
        click.echo(json.dumps(_values(status, unknown), indent=1))
    elif unknown is not None:
        _print_unknown(status, unknown)
    else:
        print_screen(status)
        _print_clones(context)
        if missing := context.missing_settings():
            print_line(f"not set: {', '.join(missing)}; what is shown of such a store is what this host has recorded")
    return 0 if unknown is None else 1


def _print_clones(context: Context) -> None:
    """Print a line for each clone that stands."""
    from wal_pipeline.errors import RestoreError
    from wal_pipeline.text import moment_utc

    settings = context.pipeline.settings
    if not settings.folder_of_clones(settings.state_folder).is_dir():
        return  # most hosts have none, and need not load what lists them
    from wal_pipeline.wiring.clone import list_clones

    try:
        for one in list_clones(context.pipeline):
            ends = "" if one.ends_at is None else f", ends at {moment_utc(one.ends_at)}"
            print_line(f"clone '{one.name}': {one.state.value}, as of {one.target or 'an unknown moment'}{ends}")
    except RestoreError as error:
        print_line(f"clones: {error.message}")


def _print_unknown(status: "ArchiveStatus", unknown: WalPipelineError) -> None:
    """Print what was looked at where there are no records: the spool, the server, and what is wrong with them."""
    from wal_pipeline.text import moment_text

    facts = status.facts
    print_line(f"{facts.cluster}  UNKNOWN  {moment_text(facts.at)} UTC")
    print_line(f"{unknown.message}\nHINT: {unknown.hint}")
    if facts.spool is not None:
        print_line(f"spool: {facts.spool.error or f'{facts.spool.files} files wait'}")
    if facts.server.error is not None:
        print_line(f"server: {facts.server.error}")
    for problem in status.problems:
        print_line(f"{problem.severity.value}: {problem.kind.value} {problem.subject}: {problem.message}")


def _values(status: "ArchiveStatus", unknown: WalPipelineError | None) -> dict[str, Any]:
    from wal_pipeline.commands.status.as_json import status_as_json

    said = {} if unknown is None else {"verdict": "unknown", "can_recover": None, "error": unknown.message}
    return {**status_as_json(status), **said}


def _status(context: Context, *, ask_server: bool) -> "ArchiveStatus":
    from wal_pipeline.commands.health.facts import look_at_everything
    from wal_pipeline.commands.status.status import judge
    from wal_pipeline.wiring.health import fact_sources, health_limits

    pipeline = context.pipeline
    return judge(look_at_everything(fact_sources(pipeline, ask_server=ask_server)), health_limits(pipeline))


def _check(context: Context, *, ask_server: bool, as_json: bool) -> int:
    """Print the line of a Nagios plugin, which must not guess: any error of ours is UNKNOWN, not WARNING."""
    from wal_pipeline.cli.clusters import not_known
    from wal_pipeline.commands.status.as_json import check_line, status_as_json
    from wal_pipeline.commands.status.status import Rating

    try:
        status = _status(context, ask_server=ask_server)
        unknown = not_known(context.pipeline, status)
        if unknown is not None and status.verdict is not Rating.CRITICAL:
            raise unknown
    except WalPipelineError as error:
        said = " ".join(error.message.replace("|", "/").split())
        values = {"verdict": Rating.UNKNOWN.value, "error": error.message}
        click.echo(json.dumps(values, indent=1)) if as_json else print_line(f"WAL-PIPELINE UNKNOWN - {said}")
        return Rating.UNKNOWN.exit_code
    click.echo(json.dumps(status_as_json(status), indent=1)) if as_json else print_line(check_line(status))
    return status.verdict.exit_code
