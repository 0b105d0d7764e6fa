"""``wal-pipeline pause`` stops archiving for a while, ``wal-pipeline resume`` ends the pause."""

from datetime import timedelta

import click

from wal_pipeline.cli.group import Context, pass_context
from wal_pipeline.cli.printing import print_line
from wal_pipeline.errors import SettingsError
from wal_pipeline.text import shown_name


class Length(click.ParamType[timedelta]):
    """A length of time such as ``90s``, ``30m``, ``2h`` or ``1d``."""

    name = "length"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Read the text."""
        if isinstance(value, timedelta):
            return value
        from wal_pipeline.commands.pause import length_from_text

        try:
            return length_from_text(str(value))
        except SettingsError as error:
            self.fail(f"{error.message}: {error.hint}", param, ctx)


@click.command("pause")
@click.option("--for", "length", type=Length(), default="1h", show_default=True, help="Such as 30m, 2h, 1d.")
@click.option("--reason", default="", help="Shown in status, in the alert and in the audit log.")
@pass_context
def pause_command(context: Context, length: timedelta, reason: str) -> None:
    """Stop archiving for a while. The spool keeps everything; the pause ends by itself."""
    from wal_pipeline.commands.audit import running_user
    from wal_pipeline.commands.pause import pause

    pipeline, reason = context.pipeline, shown_name(reason)
    made = pause(pipeline.catalog, pipeline.clock(), length=length, reason=reason, by=running_user())
    pipeline.audit.write("pause", pipeline.settings.cluster, "paused", until=made.until_at, reason=reason)
    print_line(made.describe())


@click.command("resume")
@pass_context
def resume_command(context: Context) -> None:
    """End a pause now."""
    from wal_pipeline.commands.pause import resume

    pipeline = context.pipeline
    ended = resume(pipeline.catalog, pipeline.clock())
    pipeline.audit.write("resume", pipeline.settings.cluster, "resumed" if ended is not None else "was not paused")
    print_line("archiving goes on" if ended is not None else "archiving was not paused")
