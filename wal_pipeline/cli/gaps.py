"""``wal-pipeline gaps`` lists the gaps of each store's archive, and accepts one."""

import json
from typing import TYPE_CHECKING, Any

import click

from wal_pipeline.cli.group import Context, pass_context
from wal_pipeline.cli.printing import print_line
from wal_pipeline.cli.spoken_group import SpokenGroup
from wal_pipeline.text import moment_json, shown_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wal_pipeline.archive.recovery.gaps import Break, LedgerEntry
    from wal_pipeline.commands.health.windows import CurrentWindows


@click.group("gaps", cls=SpokenGroup, invoke_without_command=True)
@click.pass_context
def gaps_command(ctx: click.Context) -> int:
    """Show the gaps of each store's archive, or accept one."""
    return ctx.invoke(list_gaps) if ctx.invoked_subcommand is None else 0


@gaps_command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@pass_context
def list_gaps(context: Context, as_json: bool = False) -> int:
    """List the gaps of each store and of any store, and the segments that continue nothing.

    By this host's records: no store is asked. Exit code 1 where one is open, or where there are no records.
    """
    from wal_pipeline.archive.recovery.gaps import GapState

    windows = _windows(context)
    ledger = _entries(windows)
    if as_json:
        click.echo(json.dumps([*map(_values, ledger), *map(_break_values, windows.breaks)], indent=1))
    else:
        _print(ledger, windows.breaks)
        for note in windows.notes:
            print_line(f"note: {note}")
    return 1 if windows.open_breaks or any(entry.state is GapState.OPEN for entry in ledger) else 0


def _print(ledger: "Sequence[LedgerEntry]", breaks: "Sequence[Break]") -> None:
    for entry in ledger:
        _tell(entry)
    for one in breaks:
        closed = f"closed by base backup {one.closed_by}" if one.closed_by else "open"
        print_line(f"{'any store':<9} {closed}: no recovery passes into {one.segment}: {one.reason}")
    if not ledger and not breaks:
        print_line("no gaps by this host's records")


@gaps_command.command("ack")
@click.argument("first_missing")
@click.option("--reason", required=True, help="Why it is accepted: others read it.")
@click.option("--by", help="Who accepts it; by default your user name.")
@pass_context
def acknowledge(context: Context, first_missing: str, reason: str, by: str | None) -> int:
    """Accept the gap that begins with this segment, on every store. Its moments cannot be restored."""
    from wal_pipeline.catalog.gaps import GapAcknowledgement
    from wal_pipeline.commands.audit import running_user
    from wal_pipeline.errors import RecoveryTargetError

    reason = shown_name(reason)
    gaps = {
        entry.gap.last_missing: entry.gap
        for entry in _entries(_windows(context))
        if entry.gap.first_missing == first_missing
    }
    if not gaps:
        raise RecoveryTargetError(
            f"no gap begins with segment '{first_missing}'", hint="'wal-pipeline gaps' lists them with their segments."
        )
    pipeline, who = context.pipeline, by or running_user()
    for gap in gaps.values():
        accepted = GapAcknowledgement(
            system_identifier=gap.system_identifier,
            timeline=gap.timeline,
            first_missing=gap.first_missing,
            last_missing=gap.last_missing,
            acknowledged_by=who,
            reason=reason,
            acknowledged_at=pipeline.clock(),
        )
        pipeline.catalog.gaps.acknowledge(accepted)
        subject = f"gap {gap.first_missing} to {gap.last_missing}"
        pipeline.audit.write("acknowledge", subject, "acknowledged", by=by, reason=reason)
    print_line(f"the gap from {first_missing} on is accepted by {who}")
    return 0


def _windows(context: Context) -> "CurrentWindows":
    from wal_pipeline.commands.health.facts import look_at_everything
    from wal_pipeline.wiring.health import fact_sources

    context.require_records()
    return look_at_everything(fact_sources(context.pipeline, ask_server=False)).windows


def _entries(windows: "CurrentWindows") -> "list[LedgerEntry]":
    return [entry for entries in windows.gaps.values() for entry in entries]


def _break_values(one: "Break") -> dict[str, Any]:
    state = "closed" if one.closed_by else "open"
    return {"store": "all", "state": state, "break": one.segment, "reason": one.reason, "closed_by": one.closed_by}


def _values(entry: "LedgerEntry") -> dict[str, Any]:
    gap = entry.gap
    return {
        "store": gap.store or "all",
        "state": entry.state.value,
        "timeline": gap.timeline,
        "first_missing": gap.first_missing,
        "last_missing": gap.last_missing,
        "segments": gap.segments,
        "held_elsewhere": gap.held_elsewhere,
        "last_commit_before_at": moment_json(gap.last_commit_before_at),
        "first_commit_after_at": moment_json(gap.first_commit_after_at),
        "closed_by": entry.closed_by,
    }


def _tell(entry: "LedgerEntry") -> None:
    from wal_pipeline.commands.health.answer import gap_text, store_name

    gap = entry.gap
    closed = f" by base backup {entry.closed_by}" if entry.closed_by else ""
    state = entry.state.value.replace("_", " ")
    print_line(
        f"{store_name(gap.store):<9} {state}{closed}: {gap.first_missing} to {gap.last_missing}; {gap_text(gap)}"
    )
