"""Runs ``python -m demo``: shows PostgreSQL's WAL arrive on two stores, or proves it once and reports."""

import json
import signal
import sys
from pathlib import Path
from types import FrameType

import click

from demo.folder import open_folder
from demo.once import Report, run_once
from demo.scene import PROVE, WATCH, start_scene
from demo.screen import watch
from testbed.processes import ServerError
from wal_pipeline.errors import WalPipelineError

_INTERRUPTED = 130


@click.command("demo", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--once", is_flag=True, help="Without a screen: prove that it works, report and end.")
@click.option("--json", "as_json", is_flag=True, help="With --once: print one JSON object on stdout.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the data here (default: .demo/1 in the project, or the next number that no demo uses).",
)
def main(once: bool, as_json: bool, folder: Path | None) -> None:
    """Start PostgreSQL 18, two S3 servers that stand for R2 and B2, and Dagster, and archive WAL for real.

    Everything runs on loopback and is stopped at the end.
    """
    if as_json and not once:
        raise click.UsageError("--json needs --once")
    for interrupting in (signal.SIGINT, signal.SIGTERM):  # a command that a script starts with '&' ignores SIGINT
        signal.signal(interrupting, _interrupt)
    try:
        sys.exit(_run(folder, once=once, as_json=as_json))
    except (WalPipelineError, ServerError) as error:
        tell(f"ERROR: {error}")
        sys.exit(1)


def tell(line: str) -> None:
    """Print a line of progress on stderr, because stdout is for the result."""
    click.echo(line, err=True)


def _run(chosen: Path | None, *, once: bool, as_json: bool) -> int:
    with open_folder(chosen) as folder:
        try:
            with start_scene(folder, tell, PROVE if once else WATCH) as scene:
                tell(f"Dagster's UI is at {scene.dagster.url}")
                if not once:
                    watch(scene, tell)
                report = run_once(scene, tell)
        except KeyboardInterrupt:
            tell("interrupted")
            return _INTERRUPTED if once else 0
        finally:
            tell(f"everything is stopped; the data lies in {folder}")
    click.echo(json.dumps(report.as_json()) if as_json else _text(report))
    return 0 if report.holds else 1


def _text(report: Report) -> str:
    return "\n".join(f"{name:<30} {value}" for name, value in report.as_json().items())


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
