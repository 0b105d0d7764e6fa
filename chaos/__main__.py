"""Runs ``make chaos``: breaks things on purpose, and proves that nothing was lost."""

import argparse
import json
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from chaos.runner import Report, run_all
from chaos.schedule import LONGEST_LATENCY_SECONDS, draw
from chaos.stage import can_mount, start_stage


def main() -> int:
    """Run the schedules and return 0 only where nothing was lost."""
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing stays mounted
    report = Report(full_disks=can_mount(), slack_seconds=options.slack)
    schedules = [
        draw(
            seed,
            seconds=options.seconds,
            max_latency_seconds=LONGEST_LATENCY_SECONDS * options.latency_scale,
            full_disks=report.full_disks,
            damaged_wholes=options.damaged_wholes,
        )
        for seed in options.seeds or range(options.seed, options.seed + options.schedules)
    ]
    folder = Path(tempfile.mkdtemp(prefix="wal-pipeline-chaos-"))
    try:
        with start_stage(folder) as stage:
            for outcome in run_all(stage, schedules, report):
                _tell(f"{len(report.outcomes)}/{len(schedules)} {outcome.describe()}")
                if options.output is not None:  # after each schedule, because a run of hours may be cut off
                    options.output.write_text(json.dumps(report.as_json(), indent=2) + "\n")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(report.as_json()) if options.json else _text(report))  # noqa: T201 - the answer
    return 0 if report.holds else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("make chaos", description=__doc__)
    parser.add_argument("--schedules", type=int, default=20, help="how many schedules (default: 20)")
    parser.add_argument("--seed", type=int, default=1, help="the first seed; each further schedule has the next number")
    parser.add_argument("--seeds", type=int, nargs="+", help="run these seeds instead, such as those that failed")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each schedule runs under load and faults")
    parser.add_argument("--latency-scale", type=float, default=0.05, help="1: answers are up to 30 s late")
    parser.add_argument(
        "--slack", type=float, default=0.0, help="seconds to add to what the loss of a host may cost, on a busy machine"
    )
    parser.add_argument(
        "--damaged-wholes",
        action="store_true",
        help="when the host is lost, let one store have half stored the next whole segment beside the other's pieces",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--output", type=Path, help="also write the JSON object to this file")
    return parser


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - progress


def _text(report: Report) -> str:
    found = report.as_json()
    return "\n".join(
        f"{name}: {found[name]}"
        for name in (
            *("schedules", "files_checked", "lost", "gaps", "hosts_lost", "commits_late", "commits_never_made"),
            *("recoveries_started_again", "rpo_seconds_max_without_excuse", "failed_seeds"),
        )
    )


if __name__ == "__main__":
    sys.exit(main())
