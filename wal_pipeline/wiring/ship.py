"""Wires the shipping of the open segment."""

import time
from collections.abc import Callable, Iterator

from wal_pipeline.commands.ship.events import ShipEvent, ShippingEnded, ShippingFailed, ShippingRecovered
from wal_pipeline.commands.ship.pace import ShipOptions
from wal_pipeline.commands.ship.shipper import Shipper
from wal_pipeline.commands.shipper_lock import ShipLock
from wal_pipeline.errors import SettingsError
from wal_pipeline.postgres.piece_commits import PieceCommitReader
from wal_pipeline.postgres.waldump import PgWaldump
from wal_pipeline.wiring.pipeline import Pipeline
from wal_pipeline.wiring.ship_source import open_wal

INTERVAL_VARIABLE = "WAL_PIPELINE_SHIP_INTERVAL_SECONDS"


def ship_lock(pipeline: Pipeline) -> ShipLock:
    """Return the lock of the cluster's shipper; ``is_held`` says whether one is at work."""
    return ShipLock(pipeline.settings.state_folder, pipeline.settings.cluster)


def require_shipping(pipeline: Pipeline) -> float:
    """Return the interval in seconds. Raises: SettingsError where shipping is off."""
    interval = pipeline.settings.ship_interval_seconds
    if interval is None:
        raise SettingsError(
            f"the open segment is not shipped: {INTERVAL_VARIABLE} is 'off'",
            hint=f"Set {INTERVAL_VARIABLE} to a number of seconds, such as 5.",
        )
    return interval


def ship_now(
    pipeline: Pipeline,
    *,
    max_seconds: float | None = None,
    stop: Callable[[], bool] = lambda: False,
    by: str | None = None,
    heed_pause: bool = True,
) -> Iterator[ShipEvent]:
    """Ship the open segment until ``stop`` says so or ``max_seconds`` passed; yield each event, ShippingEnded last.

    At the end what was flushed until then is shipped, where the stores take it within seconds. ``by`` stands in the
    audit log as who or what runs it; by default the user.

    Raises: ShipperBusyError where another shipper is at work, ShippingError, SettingsError where shipping is off.
    """
    settings = pipeline.settings
    options = ShipOptions(
        interval_seconds=require_shipping(pipeline),
        read_back=settings.read_back,
        max_backoff_seconds=settings.max_backoff_seconds,
    )
    shipper = Shipper(
        source=open_wal(pipeline),
        source_name=settings.ship_from,
        stores=pipeline.stores,
        layout=pipeline.layout,
        encoder=pipeline.encoder,
        commits=PieceCommitReader(PgWaldump(bindir=settings.pgbindir)),
        catalog=lambda: pipeline.catalog,
        lock=ship_lock(pipeline),
        clock=pipeline.clock,
        options=options,
        fixed_identifier=settings.system_identifier,
        heed_pause=heed_pause,
    )
    end = None if max_seconds is None else time.monotonic() + max_seconds
    for event in shipper.run(lambda: stop() or (end is not None and time.monotonic() >= end)):
        _audit(pipeline, event, by)
        yield event


def _audit(pipeline: Pipeline, event: ShipEvent, by: str | None) -> None:
    """Write what changes: not each piece, of which there are thousands a day."""
    cluster = pipeline.settings.cluster
    match event:
        case ShippingFailed(store=store, message=message):
            pipeline.audit.write("ship", cluster, "failed", by=by, store=store, message=message)
        case ShippingRecovered(store=store):
            pipeline.audit.write("ship", cluster, "recovered", by=by, store=store)
        case ShippingEnded(shipping=shipping):
            pipeline.audit.write("ship", cluster, "ended", by=by, flushed_lsn=shipping.flushed_lsn)
