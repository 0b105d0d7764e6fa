"""Runs ``python -m benchmarks``: measures, and writes the results as JSON and as a table."""

import importlib
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import click

from benchmarks.bench import HOME, Bench
from benchmarks.figures import Figure
from benchmarks.ours import BenchError
from benchmarks.report import write_documents, write_results
from testbed.processes import ServerError

# In this order: comparisons with the peers come first.
MEASURES: Final = (
    "archive",
    "codecs",
    "cpu",
    "growth",
    "dagster",
    "lag",
    "lag_warm",
    "ship",
    "distance",
    "records",
    "ops",
    "wal_fetch",
    "base_backup",
    "restore_time",
    "rescue",
)
_REPEATS: Final = 5
_QUICK_REPEATS: Final = 2


@click.command("bench", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", multiple=True, type=click.Choice(MEASURES), help="Measure only this; may be repeated.")
@click.option(
    "--quick", is_flag=True, help="Fewer and smaller measurements, to see that they work. Not for the record."
)
@click.option("--repeats", type=click.IntRange(1, 50), help=f"Rounds of each comparison (default: {_REPEATS}).")
@click.option("--document", is_flag=True, help="Write the results so far into docs/performance.md, and stop.")
def main(only: tuple[str, ...], quick: bool, repeats: int | None, document: bool) -> None:
    """Measure the program against its alternatives. The results are written to benchmarks/results."""
    if document:
        write_documents()
        return
    HOME.mkdir(exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=HOME, prefix="run-")))
        folder.chmod(0o711)  # PostgreSQL may run as another user, who must reach the folders below
        bench = Bench(quick, repeats or (_QUICK_REPEATS if quick else _REPEATS), folder, stack)
        for name in only or MEASURES:
            figures = _measure(name, bench)
            write_results(name, figures, quick=quick, repeats=bench.repeats)
            for figure in figures:
                bench.say(
                    f"{figure.key} = {figure.value if figure.value is None else round(figure.value, 3)} {figure.note}"
                )
        bench.say("the results are in benchmarks/results")


def _measure(name: str, bench: Bench) -> list[Figure]:
    """Measure one thing. Where that fails, say so and continue with the others."""
    measure = importlib.import_module(f"benchmarks.measures.{name}")
    try:
        return list(measure.measure(bench))
    except (BenchError, ServerError) as error:
        bench.say(f"{name} cannot be measured: {error}")
        return [Figure(key, key, None, note=str(error)[:500]) for key in getattr(measure, "KEYS", ())]


if __name__ == "__main__":
    main()
