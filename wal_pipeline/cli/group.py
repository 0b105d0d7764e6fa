"""The click group over all commands, and how errors leave it."""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import click

from wal_pipeline import __version__
from wal_pipeline.cli.registry import COMMANDS, attribute
from wal_pipeline.errors import WalPipelineError
from wal_pipeline.wiring.pipeline import Pipeline, open_pipeline

_INTERRUPTED = 130
_STRICT = ("check", "status")


class LazyGroup(click.Group):
    """A group that imports a command when it is typed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the commands in the order in which a person needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(COMMANDS[cmd_name]), attribute(cmd_name))
        assert isinstance(command, click.Command)  # noqa: S101
        return command


class Context:
    """What a command gets from the group: the settings are read when it asks for the pipeline, not before."""

    def __init__(self, env_file: Path | None, *, strict: bool = False) -> None:
        """``strict``: refuse also settings that only Dagster's schedules and runs need."""
        self._env_file = env_file
        self._strict = strict
        self._pipeline: Pipeline | None = None

    @property
    def pipeline(self) -> Pipeline:
        """Everything that the settings describe. Raises: SettingsError."""
        if self._pipeline is None:
            opened = open_pipeline(self._env_file)
            if self._strict:
                from wal_pipeline.wiring.settings_check import check_settings

                check_settings(opened.settings)
            self._pipeline = opened
        return self._pipeline

    def close(self) -> None:
        """Count what the command asked of the stores."""
        if self._pipeline is not None:
            self._pipeline.record_requests()


pass_context = click.make_pass_decorator(Context)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--env-file", type=click.Path(path_type=Path, dir_okay=False), help="Read settings from this file instead of .env."
)
@click.version_option(__version__, prog_name="wal-pipeline")
@click.pass_context
def cli(ctx: click.Context, env_file: Path | None) -> None:
    """Continuous WAL archiving and point-in-time recovery for PostgreSQL."""
    ctx.obj = Context(env_file, strict=ctx.invoked_subcommand in _STRICT)
    ctx.call_on_close(ctx.obj.close)


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code."""
    try:
        code = cli.main(list(arguments), prog_name="wal-pipeline", standalone_mode=False)
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except WalPipelineError as error:
        text = str(error).encode("utf-8", "backslashreplace").decode()  # a name may hold bytes that are no text
        click.echo(f"ERROR: {text}", err=True)
        return 1
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return _INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    return code if isinstance(code, int) else 0
