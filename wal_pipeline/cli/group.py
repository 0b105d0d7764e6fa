"""Runs a command line: loads the command that was typed, and turns errors into messages and exit codes."""

import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from wal_pipeline import __version__
from wal_pipeline.cli.printing import print_line
from wal_pipeline.cli.registry import ARCHIVE_GET, COMMANDS, HEADINGS, load_command
from wal_pipeline.cli.spoken_group import SpokenGroup
from wal_pipeline.errors import WalPipelineError
from wal_pipeline.host.output import accept_any_text
from wal_pipeline.wiring.pipeline import Pipeline, open_pipeline

_INTERRUPTED = 130
_STRICT = ("check", "status")


class LazyGroup(SpokenGroup):
    """A group that imports a command when it is typed, and prints our errors with their hints."""

    def headings(self) -> Mapping[str, Sequence[str]]:
        """Return the names of the commands by heading."""
        return HEADINGS

    def sentence(self, ctx: click.Context, name: str) -> str:
        """Return what a command does. ``archive-get`` is none of click's."""
        if name != ARCHIVE_GET:
            return super().sentence(ctx, name)
        return "Fetch one file of the WAL archive, as PostgreSQL's restore_command."

    def invoke(self, ctx: click.Context) -> object:
        """Run the command that was typed. An error of ours is printed while it is known how this program is typed."""
        try:
            return super().invoke(ctx)
        except WalPipelineError as error:
            text = str(error).encode("utf-8", "backslashreplace").decode()  # a name may hold bytes that are no text
            print_line(f"ERROR: {text}", err=True)
            return 1

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the commands in the order in which a person needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command; return None where there is none of that name."""
        return load_command(cmd_name) if cmd_name in COMMANDS else None


class Context:
    """The group's gift to a command. The settings are read when the command asks for the pipeline, not before."""

    def __init__(self, env_file: Path | None, *, strict: bool = False) -> None:
        """``strict``: refuse also faulty settings that only Dagster's schedules and runs use."""
        self._env_file = env_file
        self._strict = strict
        self._pipeline: Pipeline | None = None

    def for_file(self, env_file: Path) -> "Context":
        """Return the same for another settings file."""
        return Context(env_file, strict=self._strict)

    @property
    def pipeline(self) -> Pipeline:
        """The objects that the settings describe. Raises: SettingsError."""
        if self._pipeline is None:
            opened = open_pipeline(self._env_file)
            if self._strict:
                from wal_pipeline.wiring.settings_check import check_settings

                check_settings(opened.settings)
            self._pipeline = opened
        return self._pipeline

    def missing_settings(self) -> list[str]:
        """Return the variables without which a configured store cannot be asked. Raises: SettingsError."""
        from wal_pipeline.wiring.stores import missing_of

        return missing_of(self.pipeline.settings, self.pipeline.settings.stores)

    def require_records(self) -> None:
        """Refuse to tell of an archive of which this host has no records. Raises: CatalogError, SettingsError."""
        from wal_pipeline.commands.health.no_records import require_records

        require_records(self.pipeline.catalog, self.pipeline.settings.cluster, self.missing_settings())

    def close(self) -> None:
        """Add the command's requests to the stores to the catalog's counts."""
        if self._pipeline is not None:
            self._pipeline.record_requests()


pass_context = click.make_pass_decorator(Context)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--env-file",
    type=click.Path(path_type=Path, dir_okay=False, readable=False),  # we say which folder or line is wrong
    help="Read settings from this file instead of .env.",
)
@click.version_option(__version__, prog_name="wal-pipeline")
@click.pass_context
def cli(ctx: click.Context, env_file: Path | None) -> None:
    """Continuous WAL archiving and point-in-time recovery for PostgreSQL."""
    ctx.obj = Context(env_file, strict=ctx.invoked_subcommand in _STRICT)
    ctx.call_on_close(ctx.obj.close)


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code."""
    accept_any_text()
    try:
        code = cli.main(list(arguments), prog_name="wal-pipeline", standalone_mode=False)
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.ClickException as error:
        error.show(text := io.StringIO())
        print_line(text.getvalue().rstrip("\n"), err=True)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        print_line("interrupted", err=True)
        return _INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    return code if isinstance(code, int) else 0
