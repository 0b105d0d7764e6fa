"""Shows a group's commands by whole sentences, and suggests a command where one is misspelt."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Final

import click

_NEAR: Final = 0.8
_LONGEST: Final = 400  # no sentence is cut


class SpokenGroup(click.Group):
    """A group of commands. A subclass may put them under headings."""

    def headings(self) -> Mapping[str, Sequence[str]]:
        """Return the names of the commands by heading, in the order of the help."""
        return {"Commands": list(self.commands)}

    def sentence(self, ctx: click.Context, name: str) -> str:
        """Return what a command does: the first sentence of its help."""
        command = self.get_command(ctx, name)
        return "" if command is None else command.get_short_help_str(_LONGEST)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands under their headings."""
        width = max(len(name) for names in self.headings().values() for name in names)
        for heading, names in self.headings().items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), self.sentence(ctx, name)) for name in names])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is meant. Raises: click.NoSuchCommand with the commands of nearly that name."""
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand:
            raise click.exceptions.NoSuchCommand(args[0], possibilities=self._near(args[0]), ctx=ctx) from None

    def _near(self, given: str) -> list[str]:
        """Return the commands of nearly that name; click adds those that are only somewhat like it."""
        names = [name for names in self.headings().values() for name in names]
        return get_close_matches(given, names, cutoff=_NEAR) or names
