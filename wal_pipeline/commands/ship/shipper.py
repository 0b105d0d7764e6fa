"""Ships the open segment to every store: looks at the server, and lets each store follow at its own pace."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Final

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.codec.encoder import Encoder
from wal_pipeline.commands.ship.events import ShipEvent, ShippingEnded, ShippingFailed, ShippingRecovered
from wal_pipeline.commands.ship.looks import Look, WalLooks
from wal_pipeline.commands.ship.make_piece import PieceMaker
from wal_pipeline.commands.ship.pace import ShipOptions, StoreShipper
from wal_pipeline.commands.ship.recorder import ShippingRecorder
from wal_pipeline.commands.ship.records import Shipping
from wal_pipeline.commands.ship.source import OpenWal
from wal_pipeline.commands.ship.store_tail import StoreTail
from wal_pipeline.commands.ship.upkeep import TailUpkeep
from wal_pipeline.commands.shipper_lock import ShipLock
from wal_pipeline.errors import PostgresError, WalPipelineError
from wal_pipeline.postgres.flushed_wal import FlushedWal
from wal_pipeline.postgres.piece_commits import PieceCommitReader
from wal_pipeline.stores.base import Store

_POLL_SECONDS: Final = 0.1
_FIRST_WORD_SECONDS: Final = 5.0  # for the catalog to say whether there is a pause
_FINAL_SECONDS: Final = 25.0  # for what was flushed until the end
_JOIN_SECONDS: Final = 20.0
_MOST_EVENTS: Final = 10_000
_RETRY_SECONDS: Final = 5.0
_log = logging.getLogger(__name__)


class Shipper:
    """Ships one cluster's tail until it is stopped."""

    def __init__(
        self,
        *,
        source: OpenWal,
        source_name: str,
        stores: Mapping[str, Store],
        layout: Callable[[int], Layout],
        encoder: Encoder,
        commits: PieceCommitReader,
        catalog: Callable[[], Catalog],
        lock: ShipLock,
        clock: Callable[[], datetime],
        options: ShipOptions,
        fixed_identifier: int | None = None,
        heed_pause: bool = True,
    ) -> None:
        """``source_name`` is the setting's word for it. ``fixed_identifier``: the only cluster that is shipped."""
        self._source = source
        self._source_name = source_name
        self._lock = lock
        self._clock = clock
        self._options = options
        self._fixed_identifier = fixed_identifier
        self._heed_pause = heed_pause
        self.looks = WalLooks()
        self._events: queue.Queue[ShipEvent] = queue.Queue(_MOST_EVENTS)
        self._ending = threading.Event()
        self._errors: dict[str, WalPipelineError] = {}
        self._errors_lock = threading.Lock()
        self._failing_since: datetime | None = None
        self._watcher = threading.Thread(target=self._watch, name="ship-watch", daemon=True)
        maker = PieceMaker(source, encoder, commits)
        self.tails = [StoreTail(name, self.looks, clock) for name in stores]
        self._recorder = ShippingRecorder(catalog, clock, shipping=self.state, tails=self.tails)
        self._shippers: list[StoreShipper] = []
        self._upkeeps: list[TailUpkeep] = []
        for tail in self.tails:
            self._add_store(stores[tail.store], tail, layout, maker)

    def run(self, stop: Callable[[], bool]) -> Iterator[ShipEvent]:
        """Ship until ``stop`` says so, and yield what happens. At the end it ships what was flushed until then.

        Raises: ShipperBusyError where another shipper is at work for the cluster, ShippingError.
        """
        with self._lock.held():
            try:
                self._start()
                while not stop():
                    yield from self._happened(_POLL_SECONDS)
                self._finish()
            finally:
                self._end()
            yield from self._happened(0)
            yield ShippingEnded(self.state(), tuple(state for tail in self.tails if (state := tail.state())))

    def state(self) -> Shipping:
        """Return its state, as it is recorded."""
        last = self.looks.last
        seen = None if last is None else last.seen
        with self._errors_lock:
            error = next(iter(self._errors.values()), None)
            return Shipping(
                seen_at=self._clock(),
                source=self._source_name,
                interval_seconds=self._options.interval_seconds,
                system_identifier=None if seen is None else seen.system_identifier,
                timeline=None if seen is None else seen.timeline,
                flushed_lsn=None if seen is None else seen.lsn,
                error=None if error is None else error.message,
                failing_since=self._failing_since,
            )

    def _add_store(self, store: Store, tail: StoreTail, layout: Callable[[int], Layout], maker: PieceMaker) -> None:
        upkeep = TailUpkeep(
            tail,
            maker=maker,
            looks=self.looks,
            is_archived=self._recorder.is_archived,
            read_back=self._options.read_back,
            tell=self._tell,
        )
        shipper = StoreShipper(
            store,
            tail,
            layout=layout,
            maker=maker,
            looks=self.looks,
            options=self._options,
            tell=self._tell,
            wake_upkeep=upkeep.wake,
            on_source=lambda error: self._note_source("read", error),
        )
        self._shippers.append(shipper)
        self._upkeeps.append(upkeep)

    def _start(self) -> None:
        self._recorder.start(_FIRST_WORD_SECONDS)
        for shipper, upkeep in zip(self._shippers, self._upkeeps, strict=True):
            shipper.start()
            upkeep.start()
        self._watcher.start()

    def _watch(self) -> None:
        """Look at the server at each interval. A clock that jumps does not matter: it is the monotonic one."""
        due = time.monotonic()
        while not self._ending.wait(max(0.0, due - time.monotonic())):
            due = max(due + self._options.interval_seconds, time.monotonic())
            if self._is_paused():
                continue
            if not self._look():
                due = min(due, time.monotonic() + _RETRY_SECONDS)

    def _is_paused(self) -> bool:
        return self._heed_pause and self._recorder.paused

    def _look(self) -> bool:
        begun = time.monotonic()
        try:
            seen = self._source.look()
            self._require_cluster(seen)
        except WalPipelineError as error:
            self._note_source("look", error)
            return False
        except Exception as error:  # noqa: BLE001 - it must go on, and say so
            _log.exception("the server cannot be asked")
            self._note_source("look", PostgresError(f"the server cannot be asked: {type(error).__name__}: {error}"))
            return False
        self._note_source("look", None)
        self.looks.add(Look(seen, begun))
        return True

    def _require_cluster(self, seen: FlushedWal) -> None:
        if self._fixed_identifier not in (None, seen.system_identifier):
            raise PostgresError(
                f"the server has system identifier {seen.system_identifier}, expected {self._fixed_identifier} of "
                "WAL_PIPELINE_SYSTEM_IDENTIFIER",
                hint="Set WAL_PIPELINE_CONNINFO to that cluster's server, or correct WAL_PIPELINE_SYSTEM_IDENTIFIER.",
            )

    def _note_source(self, what: str, error: WalPipelineError | None) -> None:
        """Keep why nothing can be read, and tell what is news."""
        with self._errors_lock:
            before = self._errors.get(what)
            if error is None:
                self._errors.pop(what, None)
            else:
                self._errors[what] = error
            has_recovered = before is not None and not self._errors
            if has_recovered:
                self._failing_since = None
            elif self._errors and self._failing_since is None:
                self._failing_since = self._clock()
        if error is not None and (before is None or before.message != error.message):
            _log.warning("%s", error)
            self._tell(ShippingFailed(None, error.message, error.hint))
        elif has_recovered:
            self._tell(ShippingRecovered(None))

    def _tell(self, event: ShipEvent) -> None:
        try:
            self._events.put_nowait(event)
        except queue.Full:
            _log.debug("nobody takes the events: %s", event)

    def _happened(self, wait_seconds: float) -> Iterator[ShipEvent]:
        """Yield what happened, and wait so long for something."""
        try:
            yield self._events.get(timeout=wait_seconds) if wait_seconds else self._events.get_nowait()
            while True:
                yield self._events.get_nowait()
        except queue.Empty:
            return

    def _finish(self) -> None:
        """Look a last time, and let each store have it that can."""
        self._ending.set()
        deadline = time.monotonic() + _FINAL_SECONDS
        self._watcher.join(_FINAL_SECONDS)
        if self._watcher.is_alive() or self._is_paused() or not self._look():
            return
        last = self.looks.last
        while last is not None and time.monotonic() < deadline:
            if all(one.is_done_with(last) for one in self._shippers):
                return
            time.sleep(_POLL_SECONDS / 2)

    def _end(self) -> None:
        """End the threads; what they have on their way is finished, or found again by the next shipper."""
        self._ending.set()
        for shipper, upkeep in zip(self._shippers, self._upkeeps, strict=True):
            shipper.stop()
            upkeep.stop()
        self.looks.wake()
        deadline = time.monotonic() + _JOIN_SECONDS
        for shipper, upkeep in zip(self._shippers, self._upkeeps, strict=True):
            shipper.join(max(0.0, deadline - time.monotonic()))
            upkeep.join(max(0.0, deadline - time.monotonic()))
        self._recorder.stop(_FIRST_WORD_SECONDS)
        if not self._watcher.is_alive():
            self._source.close()
