"""``wal-pipeline drill``: a recovery drill now."""

import json
from typing import TYPE_CHECKING, Any

import click

from wal_pipeline.cli.group import Context, pass_context
from wal_pipeline.cli.leaving import leaving_in_order
from wal_pipeline.cli.printing import print_line

if TYPE_CHECKING:
    from wal_pipeline.commands.drill.result import DrillResult


@click.command("drill")
@click.option("--store", "stores", multiple=True, metavar="NAME", help="Only from this store (default: each in turn).")
@click.option("--seed", type=int, help="Draw the same moments again.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@pass_context
def drill_command(context: Context, stores: tuple[str, ...], seed: int | None, as_json: bool) -> int:
    """Restore into a scratch cluster from each store alone, start it, check it, measure it, remove it.

    Exit code 0 where every drill passed.
    """
    from wal_pipeline.commands.drill.records import run_drills
    from wal_pipeline.wiring.drill import drills_of

    pipeline = context.pipeline
    results = []
    chosen = stores or pipeline.settings.stores
    with leaving_in_order():
        for result in run_drills(drills_of(pipeline, seed=seed), chosen, pipeline.catalog, pipeline.audit):
            results.append(result)
            if not as_json:
                print_line(_text(result))
    if as_json:
        click.echo(json.dumps({"drills": [_values(result) for result in results]}))
    return 0 if results and all(result.ok for result in results) else 1


def _values(result: "DrillResult") -> dict[str, Any]:
    from wal_pipeline.commands.drill.records import drill_values

    return {"store": result.store, "target": result.target, "ok": result.ok, **drill_values(result)}


def _text(result: "DrillResult") -> str:
    if not result.ok:
        return f"{result.store}: FAILED at {result.target or 'the choice of a moment'}: {result.error}"
    reached = result.reached_commit_at.isoformat(" ") if result.reached_commit_at else "none"
    foretold = ", as foretold" if result.predicted_commit_at else ""
    line = (
        f"{result.store}: restored {result.target} from base backup {result.base_backup} "
        f"in {result.rto_seconds:.1f} s; last commit {reached}{foretold}"
    )
    from wal_pipeline.archive.restore_time.words import comparison_text

    more = []
    if result.measured is not None and result.measured.predicted_seconds is not None:
        more.append(f"  {comparison_text(result.measured.predicted_seconds, result.measured.took_seconds)}")
    more += [f"  not proven: {text}" for text in result.not_proven]
    return "\n".join([line, *more, *(f"  WARNING: {text}" for text in result.warnings)])
