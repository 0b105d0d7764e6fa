"""What a restore shows while it works: bytes, rate and time left, then the recovery's segments."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

if TYPE_CHECKING:
    from wal_pipeline.commands.restore.download import DownloadFault
    from wal_pipeline.commands.restore.perform import RestoreEvents
    from wal_pipeline.postgres.recovery_server import RecoveryProgress


@contextmanager
def shown(total_bytes: int) -> Iterator["RestoreEvents"]:
    """Show a restore's phases and bytes on stderr."""
    from wal_pipeline.commands.restore.perform import RestoreEvents

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("download", total=total_bytes)

        def fault(found: "DownloadFault") -> None:
            progress.console.print(f"[yellow]{found.message}; another store is tried[/yellow]", highlight=False)

        yield RestoreEvents(
            phase=lambda name: progress.update(task, description=name),
            bytes_came=lambda count: progress.advance(task, count),
            fault=fault,
        )


@contextmanager
def recovery_shown(segments: int) -> Iterator[Callable[["RecoveryProgress"], None]]:
    """Show how many files recovery has restored, of about ``segments``, on stderr."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("recovery", total=segments)

        def update(found: "RecoveryProgress") -> None:
            total = max(segments, found.segments)
            progress.update(task, completed=found.segments, total=total, description=found.state.value)

        yield update
