"""Shows a restore on the terminal: its plan, bytes with rate and time left, the recovery's segments, its result."""

import json
from types import TracebackType
from typing import Self

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from wal_pipeline.cli.printing import print_line, typed
from wal_pipeline.cli.progress_columns import BinarySpeedColumn
from wal_pipeline.cli.restore_text import plan_text, plan_values, result_text, result_values
from wal_pipeline.commands.restore.files.fetch import DownloadFault
from wal_pipeline.commands.restore.perform import RestoreEvents, RestoreResult
from wal_pipeline.commands.restore.prepare import PreparedRestore
from wal_pipeline.commands.restore.start import RecoveryResult
from wal_pipeline.postgres.replay_progress import RecoveryProgress


class RestoreScreen(RestoreEvents):
    """Prints the plan and the result on stdout, as text or one JSON object, and shows the progress on stderr."""

    def __init__(self, cluster: str, *, plan_only: bool, as_json: bool) -> None:
        self._cluster = cluster
        self.plan_only = plan_only
        self.as_json = as_json
        self._download_bytes = 0
        self._segments = 0
        self._bar: ProgressLine | None = None
        self._shows_steps = False

    def __enter__(self) -> Self:
        """Return the screen."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the progress as it is and the cursor below it."""
        self._show(None)

    def planned(self, prepared: PreparedRestore) -> None:
        """Print the plan; as JSON only where there is nothing more to come."""
        self.expect(prepared)
        if not self.as_json:
            print_line(plan_text(prepared, self._cluster))
        elif self.plan_only:
            click.echo(json.dumps(plan_values(prepared)))

    def expect(self, prepared: PreparedRestore) -> None:
        """Note how much will come."""
        self._download_bytes, self._segments = prepared.download_bytes, len(prepared.plan.wal)

    def phase(self, name: str) -> None:
        """Show the phase beside the bytes."""
        if self._bar is None:
            columns = (DownloadColumn(binary_units=True), BinarySpeedColumn(), TimeRemainingColumn())
            self._show(ProgressLine(name, self._download_bytes, *columns))
        else:
            self._bar.update(name)

    def will_fetch(self, count: int) -> None:
        """Show how much will come after all."""
        self._download_bytes = count
        if self._bar is not None:
            self._bar.update("download", total=count)

    def bytes_came(self, count: int) -> None:
        """Show the bytes."""
        if self._bar is not None:
            self._bar.advance(count)

    def fault(self, fault: DownloadFault) -> None:
        """Print what is wrong with the copy above the progress."""
        if self._bar is not None:
            self._bar.say(f"{fault.message}; another store is tried")

    def starting(self, prepared: PreparedRestore) -> None:
        """Show the files that recovery restores, of about as many as the plan has segments."""
        self._show(ProgressLine("recovery", len(prepared.plan.wal), MofNCompleteColumn(), TimeElapsedColumn()))

    def recovering(self, progress: RecoveryProgress) -> None:
        """Show how many files recovery has restored; where nothing happens, print what it waits for."""
        if progress.waits_for is not None and self._bar is not None:
            self._bar.say(f"recovery waits for {progress.waits_for}, for {progress.quiet_seconds:.0f} s now")
        if self._bar is not None:
            total = max(self._segments, progress.segments)
            self._bar.update(progress.state.value, completed=progress.segments, total=total)

    def ended(self, prepared: PreparedRestore, result: RestoreResult, recovery: RecoveryResult | None) -> None:
        """Print the result."""
        self._show(None)
        values = {**plan_values(prepared), **result_values(prepared, result, recovery)}
        if self.as_json:
            click.echo(json.dumps(values))
        else:
            print_line(result_text(prepared, result, recovery))

    def show_step(self, name: str) -> None:
        """Show a step whose length is not known, in place of what was shown; those that follow are on its line."""
        if not self._shows_steps:
            self._show(ProgressLine(name, None, TimeElapsedColumn()))
            self._shows_steps = True
        elif self._bar is not None:
            self._bar.update(name)

    def show_nothing(self) -> None:
        """Leave the progress as it is and the cursor below it."""
        self._show(None)

    def _show(self, bar: "ProgressLine | None") -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar = bar


class ProgressLine:
    """One line on stderr: a word, a bar, and numbers. Any thread may change it."""

    def __init__(self, word: str, total: int | None, *columns: ProgressColumn) -> None:
        self._progress = Progress(TextColumn("{task.description}"), BarColumn(), *columns, console=Console(stderr=True))
        self._task = self._progress.add_task(word, total=total)
        self._progress.start()

    def update(self, word: str, *, completed: int | None = None, total: int | None = None) -> None:
        """Change the word and, where they are given, the numbers."""
        self._progress.update(self._task, description=word, completed=completed, total=total)

    def advance(self, count: int) -> None:
        """Count more."""
        self._progress.advance(self._task, count)

    def say(self, text: str) -> None:
        """Print a line above it."""
        self._progress.console.print(typed(text), style="yellow", markup=False, highlight=False)

    def stop(self) -> None:
        """Leave it as it is, with the cursor below it."""
        self._progress.stop()
