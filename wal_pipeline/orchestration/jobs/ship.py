"""Defines the run that ships the open segment: one op, which ships until its time is over, a pause, or its end."""

import time
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Final

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError

from wal_pipeline.errors import CatalogError, ShipperBusyError
from wal_pipeline.orchestration.keys import SHIP_JOB, Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.failures import with_plain_errors
from wal_pipeline.text import counted, length, size
from wal_pipeline.wiring.pipeline import Pipeline

if TYPE_CHECKING:
    from wal_pipeline.commands.ship.events import ShipEvent

_HANDOVER_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.2


def handover_seconds(max_seconds: float) -> float:
    """Return how long before a run's end the next one is started: it is ready, and waits for the lock."""
    return min(_HANDOVER_SECONDS, max_seconds / 2)


def build_ship_job(keys: Keys) -> dg.JobDefinition:
    """Return the shipping run of one cluster. It materializes nothing: the tails are observed once a minute."""

    @dg.op(
        out=dg.Out(dg.Nothing),
        description="Ship the WAL of the open segment to every store, each at its own pace, and go on where the tail "
        "ends there. Ends after WAL_PIPELINE_MAX_RUN_AGE_SECONDS, when the next run takes over, and while archiving is "
        "paused. What goes wrong is logged once, and tried again.",
    )
    @with_plain_errors
    def ship_open_segment(context: dg.OpExecutionContext, wal_pipeline: WalPipelineResource):  # type: ignore[no-untyped-def]
        shipped = Shipped(context)
        ship(context, wal_pipeline.open(), shipped)
        context.add_output_metadata({"answer": dg.MetadataValue.text(shipped.sentence())})
        yield dg.Output(None)

    @dg.job(
        name=SHIP_JOB,
        executor_def=dg.in_process_executor,
        tags=keys.tags,
        description=keys.described(
            "Ship the open segment to every store, so that a lost host costs seconds. The ship sensor keeps one such "
            "run at work; 'wal-pipeline ship' does the same without Dagster."
        ),
    )
    def ship_wal() -> None:
        ship_open_segment()

    return ship_wal


def ship(context: dg.OpExecutionContext, pipeline: Pipeline, shipped: "Shipped") -> None:
    """Ship until the run's time is over; wait first for a shipper that is about to end.

    A run that is told to end has done its work: each piece is proved when it is shipped, and the next run goes on
    where the tail ends. So it is no failure.
    """
    max_seconds = pipeline.settings.max_run_age_seconds
    patience_ends = time.monotonic() + 2 * handover_seconds(max_seconds)
    try:
        while True:
            try:
                _ship_once(context, pipeline, shipped, max_seconds)
            except ShipperBusyError as error:
                if time.monotonic() >= patience_ends:
                    context.log.info(f"{error.message}; this run is not needed")
                    return
                time.sleep(_LOOK_SECONDS)
            else:
                return
    except DagsterExecutionInterruptedError:
        context.log.info("the run was told to end")


def _ship_once(context: dg.OpExecutionContext, pipeline: Pipeline, shipped: "Shipped", max_seconds: float) -> None:
    from wal_pipeline.commands.pause import PauseWatch
    from wal_pipeline.wiring.ship import ship_now

    watch: list[PauseWatch] = []  # made when the catalog can be opened

    def is_paused() -> bool:
        """Whether to end. A catalog that does not answer stops nothing: the stores are the truth."""
        try:
            watch.extend([] if watch else [PauseWatch(pipeline.catalog, pipeline.clock)])
            return watch[0]()
        except CatalogError:
            return False

    by = f"run {context.run_id}"
    with closing(ship_now(pipeline, max_seconds=max_seconds, stop=is_paused, by=by)) as events:  # type: ignore[type-var]
        for event in events:
            shipped.note(event)


class Shipped:
    """Logs what goes wrong and right in a shipping run, and counts the pieces for its end."""

    def __init__(self, context: dg.OpExecutionContext) -> None:
        self._context = context
        self._pieces: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._worst_seconds = 0.0

    def note(self, event: "ShipEvent") -> None:
        """Count a piece and log an error or its end. A line for each piece would be thousands in each run."""
        from wal_pipeline.commands.ship import events

        match event:
            case events.PieceShipped():
                self._pieces[event.store] += 1
                self._bytes[event.store] += event.encoding.size_bytes
                self._worst_seconds = max(self._worst_seconds, event.behind_seconds or 0.0)
            case events.ShippingFailed():
                hint = "" if event.hint is None else f"\nHINT: {event.hint}"
                where = "nothing is shipped" if event.store is None else f"{event.store} gets no WAL"
                self._context.log.error(f"{where}: {event.message}{hint}")
            case events.ShippingRecovered():
                self._context.log.info(
                    f"{event.store or 'the open segment'} is shipped {'to ' * bool(event.store)}again"
                )
            case _:
                return

    def sentence(self) -> str:
        """Say what the run shipped."""
        if not self._pieces:
            return "nothing was shipped: nothing was written, or nothing could be shipped"
        stores = ", ".join(
            f"{store} {counted(count, 'piece')} ({size(self._bytes[store])})"
            for store, count in sorted(self._pieces.items())
        )
        return f"shipped {stores}; the slowest piece was verified {length(self._worst_seconds)} after its commit"
