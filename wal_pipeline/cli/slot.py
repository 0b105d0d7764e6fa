"""``wal-pipeline slot`` makes, checks and drops the replication slot that pg_receivewal needs."""

import json
from typing import TYPE_CHECKING

import click

from wal_pipeline.cli.group import Context, pass_context
from wal_pipeline.cli.printing import print_line
from wal_pipeline.cli.spoken_group import SpokenGroup
from wal_pipeline.text import size

if TYPE_CHECKING:
    from wal_pipeline.postgres.slots import SlotState


@click.group("slot", cls=SpokenGroup)
def slot_command() -> None:
    """Make, check or drop the replication slot from which pg_receivewal receives (WAL_PIPELINE_SHIP_SLOT).

    A server keeps WAL for a slot until it is received: drop a slot that is not used any more.
    """


@slot_command.command("make")
@pass_context
def make_slot_command(context: Context) -> None:
    """Make the slot. The server keeps its WAL from now on until pg_receivewal has received it."""
    from wal_pipeline.wiring.slot import make_slot

    print_line(_describe(make_slot(context.pipeline)))


@slot_command.command("check")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@pass_context
def check_slot_command(context: Context, as_json: bool) -> None:
    """Say whether the slot can be received from, and how much WAL the server keeps for it."""
    from wal_pipeline.wiring.slot import check_slot

    state = check_slot(context.pipeline)
    if as_json:
        values = {
            "slot": state.name,
            "active": state.active,
            "wal_status": state.wal_status,
            "restart_lsn": None if state.restart_lsn is None else str(state.restart_lsn),
            "held_bytes": state.held_bytes,
            "safe_wal_size_bytes": state.safe_wal_size_bytes,
        }
        click.echo(json.dumps(values))
    else:
        print_line(_describe(state))


@slot_command.command("drop")
@pass_context
def drop_slot_command(context: Context) -> None:
    """Drop the slot. One that is in use, logical, or not made by this command is never dropped."""
    from wal_pipeline.wiring.slot import drop_slot

    drop_slot(context.pipeline)
    print_line(f"slot '{context.pipeline.settings.ship_slot}' is dropped")


def _describe(state: "SlotState") -> str:
    held = "no WAL" if not state.held_bytes else size(state.held_bytes)
    use = f"in use by process {state.active_pid}" if state.active else "not in use"
    limit = (
        "nothing limits how much it may hold back (max_slot_wal_keep_size)"
        if state.safe_wal_size_bytes is None
        else f"lost after {size(state.safe_wal_size_bytes)} more"
    )
    return f"slot '{state.name}' is {state.wal_status or 'made'}, {use}: it holds back {held}, {limit}"
