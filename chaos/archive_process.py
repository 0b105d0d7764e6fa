"""Runs ``wal-pipeline archive`` in a process of its own, with a clock that a file steps."""

import sys
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

from wal_pipeline.cli.archive import archive_command
from wal_pipeline.cli.group import Context
from wal_pipeline.settings import load_settings
from wal_pipeline.wiring.pipeline import Pipeline


class SteppedClock:
    """A clock that is wrong by the seconds that a file holds."""

    def __init__(self, offset_file: Path) -> None:
        self._offset_file = offset_file

    def __call__(self) -> datetime:
        """Return the moment that the wrong clock shows."""
        try:
            offset_seconds = float(self._offset_file.read_text() or 0)
        except FileNotFoundError:
            offset_seconds = 0.0
        return datetime.now(UTC) + timedelta(seconds=offset_seconds)


class SteppedContext(Context):
    """A command's context whose pipeline has the stepped clock."""

    def __init__(self, offset_file: Path) -> None:
        super().__init__(None)
        self._clock = SteppedClock(offset_file)

    @cached_property
    def pipeline(self) -> Pipeline:
        """Everything that the settings describe."""
        return Pipeline(load_settings(), clock=self._clock)


def main() -> int:
    """Run the command and return its exit code."""
    offset_file, linger_seconds = sys.argv[1:]
    words = ["--linger", linger_seconds, "--json"]
    code = archive_command.main(words, obj=SteppedContext(Path(offset_file)), standalone_mode=False)
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    sys.exit(main())
