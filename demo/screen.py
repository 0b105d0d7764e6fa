"""Shows on a live screen which file is on which store, how many wait, and the UI's address."""

import time
from typing import Final, NoReturn

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from demo.load import write_load
from demo.once import spool_files
from demo.recorded import sensor_runs
from demo.scene import Scene, Tell
from wal_pipeline.archive.records import Copy, CopyStatus
from wal_pipeline.catalog.files import CopyFilter
from wal_pipeline.commands.list_files import ListedFile, list_files
from wal_pipeline.commands.ship.records import read_tails
from wal_pipeline.wiring.pipeline import Pipeline

_ROWS: Final = 15
_REFRESH_SECONDS: Final = 1.0
_RUNS_EVERY: Final = 5


def watch(scene: Scene, tell: Tell) -> NoReturn:
    """Write, and show which files are on which stores, until a person presses Ctrl-C."""
    console, pipeline = Console(), scene.pipeline
    tell("writing with pgbench, and starting a base backup")
    with write_load(scene.cluster), Live(console=console, auto_refresh=False) as live:
        scene.dagster.launch_job("take_base_backup")
        runs: dict[str, str] = {}
        turn = 0
        while True:
            if turn % _RUNS_EVERY == 0:
                runs = sensor_runs(scene.dagster)
            live.update(_screen(scene, pipeline, len(runs)), refresh=True)
            turn += 1
            time.sleep(_REFRESH_SECONDS)


def _screen(scene: Scene, pipeline: Pipeline, runs: int) -> Group:
    files = list_files(pipeline.catalog, CopyFilter())
    return Group(_table(files), _status(files, len(spool_files(scene)), runs), _tails(pipeline), _address(scene))


def _table(files: list[ListedFile]) -> Table:
    table = Table(box=None, pad_edge=False, title_justify="left")
    for title in ("file", "last commit", "r2", "b2"):
        table.add_column(title, no_wrap=True)
    for item in files[-_ROWS:]:
        last = item.file.last_commit_at
        copies = (_copy(item.copies.get(store)) for store in ("r2", "b2"))
        table.add_row(item.file.name, f"{last:%H:%M:%S.%f}"[:-3] if last else "-", *copies)
    return table


def _copy(copy: Copy | None) -> Text:
    if copy is None:
        return Text("-", style="dim")
    if copy.status is not CopyStatus.VERIFIED or copy.encoding is None:
        return Text(copy.status.value, style="red")
    lag = "" if copy.lag_seconds is None else f", {copy.lag_seconds:.2f} s"
    return Text(f"{copy.encoding.size_bytes / 1024:,.0f} KiB{lag}", style="green")


def _status(files: list[ListedFile], waiting: int, runs: int) -> Text:
    read = sum(item.file.size_bytes for item in files)
    stored = sum(copy.encoding.size_bytes for item in files for copy in item.copies.values() if copy.encoding)
    return Text(
        f"\n{len(files)} files archived by {runs} runs of the sensor; {waiting} in the spool\n"
        f"{read / 2**20:,.0f} MiB of WAL are {stored / 2**20:,.1f} MiB on both stores together\n"
    )


def _tails(pipeline: Pipeline) -> Text:
    """Say how far each store is behind the server with the open segment."""
    tails = read_tails(pipeline.catalog.values, ("r2", "b2")).values()
    words = [f"{tail.store} {len(tail.pieces)} pieces, {_seconds(tail.behind_seconds)} behind" for tail in tails]
    return Text(f"the open segment: {'; '.join(words) or 'not shipped yet'}\n")


def _seconds(behind: float | None) -> str:
    return "unknown how far" if behind is None else f"{behind:.1f} s"


def _address(scene: Scene) -> Text:
    return Text.assemble(
        "Dagster: ",
        (scene.dagster.url, "bold cyan underline"),
        "\nTry:     ",
        scene.typed("list"),
        "\nCtrl-C stops everything.",
    )
