"""Shows a search on the terminal: its progress on stderr, then what it found on stdout."""

from types import TracebackType
from typing import Self

from rich.progress import DownloadColumn, TimeRemainingColumn
from rich.text import Text

from wal_pipeline.cli.found_text import heading, summary_lines, transaction_lines
from wal_pipeline.cli.printing import make_console, typed
from wal_pipeline.cli.progress_columns import BinarySpeedColumn
from wal_pipeline.cli.restore_progress import ProgressLine
from wal_pipeline.commands.find.found import FindResult
from wal_pipeline.commands.find.search import FindEvents
from wal_pipeline.text import shown_name


class FindScreen(FindEvents):
    """Shows how much of the WAL was read, and the result."""

    def __init__(self) -> None:
        self._bar: ProgressLine | None = None
        self._total = self._came = 0

    def __enter__(self) -> Self:
        """Return the screen."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the progress as it is and the cursor below it."""
        self._stop()

    def planned(self, window_bytes: int) -> None:
        """Begin the progress."""
        self._total = window_bytes
        columns = (DownloadColumn(binary_units=True), BinarySpeedColumn(), TimeRemainingColumn())
        self._bar = ProgressLine("read WAL", window_bytes, *columns)

    def came(self, size_bytes: int) -> None:
        """Show the bytes, which may be some more than were planned."""
        self._came += size_bytes
        if self._bar is not None:
            self._total = max(self._total, self._came)
            self._bar.update("read WAL", completed=self._came, total=self._total)

    def show(self, result: FindResult, timeline: int | None) -> None:
        """Print the transactions, and what follows them."""
        self._stop()
        console = make_console()
        if result.transactions:
            console.print(Text(heading(), style="dim"), soft_wrap=True)
        for one in result.transactions:
            first, *others = transaction_lines(one)
            console.print(Text(first, style="bold"), soft_wrap=True)
            gone = bool(one.fates or one.dropped_databases)
            for line in others:
                console.print(Text(shown_name(line), style="red" if gone else ""), soft_wrap=True)
        if result.transactions:
            console.print()
        for line in summary_lines(result, timeline):
            style = "bold red" if line.startswith("NOT SEARCHED") else ""
            console.print(Text(_unquoted(typed(shown_name(line))), style=style), soft_wrap=True)

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _unquoted(line: str) -> str:
    """Take the quotes off a line that is there to be typed."""
    return f"  {line[3:-1]}" if line.startswith("  '") and line.endswith("'") else line
