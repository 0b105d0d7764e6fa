"""``wal-pipeline cost`` shows the cost of a month, or a forecast of it."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from wal_pipeline.cli.group import Context, pass_context
from wal_pipeline.cli.printing import make_console
from wal_pipeline.text import billed_size

if TYPE_CHECKING:
    from wal_pipeline.archive.cost import Cost, Usage
    from wal_pipeline.commands.cost.cost import ShippingCost


@click.command("cost")
@click.option("--wal-per-day", metavar="SIZE", help="Forecast for this much WAL a day, such as 1GB or 500MiB.")
@click.option("--reduction", default=0.8, show_default=True, help="The share that compression takes away, 0 to 1.")
@click.option("--retention-days", type=int, help="For how many days WAL is kept; by default the setting.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@pass_context
def cost_command(
    context: Context, wal_per_day: str | None, reduction: float, retention_days: int | None, as_json: bool
) -> int:
    """Show storage, requests and one full restore in US dollars per store, from the stored bytes and the requests.

    With --wal-per-day it is a forecast of a WAL archive that is full, without base backups: its storage, and the
    requests of a server that writes all day, by WAL_PIPELINE_ARCHIVE_TIMEOUT_SECONDS and segments of 16 MiB. Where the
    open segment is shipped, its requests are estimated apart, for a server that never rests.
    """
    from wal_pipeline.commands.cost.cost import cost_as_json, cost_of_shipping, current_cost, shipping_as_json

    pipeline = context.pipeline
    settings = pipeline.settings
    piece_bytes: Mapping[str, int] = {}
    usage: Mapping[str, Usage] | None = None
    if wal_per_day is not None:
        days = pipeline.settings.retention_days if retention_days is None else retention_days
        cost = _forecast(context, wal_per_day, reduction, days)
    else:
        context.require_records()
        report = current_cost(pipeline.catalog, pipeline.settings.prices(), pipeline.clock())
        cost, usage, piece_bytes = report.cost, report.usage, report.piece_bytes
    interval, shipping = settings.ship_interval_seconds, None
    if interval is not None:
        shipping = cost_of_shipping(interval, settings.prices(), piece_bytes)
    if as_json:
        told = {} if shipping is None else {"shipping": shipping_as_json(shipping)}
        click.echo(json.dumps(cost_as_json(cost, usage) | told))
    else:
        _print(cost, usage)
        if shipping is not None:
            _print_shipping(shipping)
    return 0


def _forecast(context: Context, wal_per_day: str, reduction: float, days: int) -> "Cost":
    from wal_pipeline.archive.cost import FileRate, forecast
    from wal_pipeline.commands.cost.cost import parse_size
    from wal_pipeline.errors import SettingsError

    settings = context.pipeline.settings
    rate = FileRate(
        archive_timeout_seconds=settings.archive_timeout_seconds,
        read_back=settings.read_back,
        deep_share=settings.deep_verify_share,
    )
    try:
        return forecast(parse_size(wal_per_day), reduction, days, settings.prices(), rate)
    except ValueError as error:
        raise SettingsError(str(error), hint="The reduction lies between 0 and 1: 0.8 leaves a fifth.") from error


def _print(cost: "Cost", usage: "Mapping[str, Usage] | None") -> None:
    from rich.table import Table

    from wal_pipeline.archive.cost import dollars

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("store", "stored", "storage", "requests", "a month", "one restore"):
        table.add_column(title, justify="left" if title == "store" else "right", overflow="fold")
    for store, one in cost.stores.items():
        money = (dollars(value) for value in (one.storage_usd, one.requests_usd, one.month_usd, one.restore_usd))
        table.add_row(store, billed_size(one.stored_bytes), *money)
    console = make_console()
    console.print(table)
    console.print(f"together {dollars(cost.month_usd)} a month, of which {dollars(cost.storage_usd)} is storage")
    for store, done in (usage or {}).items():
        console.print(
            f"{store}: {done.class_a_requests} class A and {done.class_b_requests} class B requests in 30 days; "
            f"a restore downloads {billed_size(done.restore_bytes)}",
            style="dim",
        )


def _print_shipping(shipping: "ShippingCost") -> None:
    from wal_pipeline.archive.cost import dollars

    console = make_console()
    for store, size_bytes in shipping.piece_bytes.items():
        console.print(
            f"{store}: {billed_size(size_bytes)} of the stored bytes are pieces of open segments", style="dim"
        )
    console.print("shipping the open segment, for a server that writes all the time; requests of a month:")
    for seconds, cost in shipping.by_interval.items():
        each = ", ".join(f"{store} {dollars(one.requests_usd)}" for store, one in cost.stores.items())
        mine = " (as set)" if seconds == shipping.interval_seconds else ""
        console.print(f"  every {seconds:g} s{mine}: {each}")
