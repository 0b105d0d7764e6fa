"""Ships a real server's WAL to folder stores, and looks at what lies there."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from testbed.postgres import PostgresCluster
from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.format.piece import Piece, piece_from_metadata
from wal_pipeline.archive.records import Codec
from wal_pipeline.catalog.catalog import Catalog, open_catalog
from wal_pipeline.codec.decoder import open_stored
from wal_pipeline.codec.encoder import Encoder
from wal_pipeline.commands.ship.events import ShipEvent, ShippingEnded
from wal_pipeline.commands.ship.held_pieces import longest_chain
from wal_pipeline.commands.ship.host_wal import HostWal
from wal_pipeline.commands.ship.pace import ShipOptions
from wal_pipeline.commands.ship.records import RecordedPiece
from wal_pipeline.commands.ship.shipper import Shipper
from wal_pipeline.commands.ship.source import OpenWal
from wal_pipeline.commands.shipper_lock import ShipLock
from wal_pipeline.errors import ObjectMissingError
from wal_pipeline.postgres.flushed_wal import FlushWatch
from wal_pipeline.postgres.piece_commits import PieceCommitReader
from wal_pipeline.postgres.server import PostgresServer
from wal_pipeline.postgres.waldump import PgWaldump
from wal_pipeline.stores.base import Store
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import WalFileName
from wal_pipeline_tests.support.archive_scene import WatchedStore, folder_store

PATIENCE_SECONDS = 60.0
T = TypeVar("T")


@dataclass
class ShipScene:
    """One server, two stores, a state folder with a catalog. Each ``shipper`` is a new one, as after a restart."""

    folder: Path
    cluster: PostgresCluster
    stores: dict[str, WatchedStore] = field(default_factory=dict)
    interval_seconds: float = 0.05
    codec: Codec = Codec.ZSTD
    recipients: tuple[str, ...] = ()
    fixed_identifier: int | None = None
    most_piece_bytes: int = 8 * 2**20
    max_backoff_seconds: float = 0.2

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.stores:
            self.stores = {name: WatchedStore(folder_store(name, self.folder / name)) for name in ("r2", "b2")}
        self.catalog: Catalog = open_catalog(f"sqlite:///{self.folder}/catalog.sqlite", "main")
        self.source: Callable[[], OpenWal] = self.host_wal

    def host_wal(self) -> OpenWal:
        return HostWal(FlushWatch(PostgresServer(self.cluster.conninfo)), self.cluster.pgdata)

    def layout(self, system_identifier: int) -> Layout:
        return Layout("", "main", system_identifier)

    def shipper(self, **changed: Any) -> Shipper:
        """Return a new shipper; ``changed`` replaces its parts."""
        stores: Mapping[str, Store] = self.stores
        parts: dict[str, Any] = {
            "source": self.source(),
            "source_name": "host",
            "stores": stores,
            "layout": self.layout,
            "encoder": Encoder(self.codec, recipients=self.recipients),
            "commits": PieceCommitReader(PgWaldump(bindir=self.cluster.install.program("pg_waldump").parent)),
            "catalog": lambda: self.catalog,
            "lock": ShipLock(self.folder / "state", "main"),
            "clock": lambda: datetime.now(UTC),
            "options": ShipOptions(
                self.interval_seconds,
                max_backoff_seconds=self.max_backoff_seconds,
                most_piece_bytes=self.most_piece_bytes,
            ),
            "fixed_identifier": self.fixed_identifier,
        }
        return Shipper(**parts | changed)

    def ship(self, shipper: Shipper | None = None) -> list[ShipEvent]:
        """Ship what the server has flushed now, end, and return the events."""
        return list((shipper or self.shipper()).run(lambda: True))

    @contextmanager
    def shipping(self, shipper: Shipper | None = None) -> Iterator["RunningShipper"]:
        """Ship in another thread meanwhile."""
        running = RunningShipper(shipper or self.shipper())
        running.thread.start()
        try:
            yield running
        finally:
            running.stop()

    @property
    def flushed(self) -> Lsn:
        """The server's flushed LSN."""
        return Lsn.parse(self.cluster.value("SELECT pg_current_wal_flush_lsn()"))

    def write(self, kilobytes: int = 1) -> None:
        """Commit so much WAL."""
        self.cluster.psql(f"SELECT pg_logical_emit_message(true, 't', repeat('x', {kilobytes * 1000})) \\gset")

    def pieces(self, store: str, *, identities: list[Any] | None = None) -> dict[str, list[RecordedPiece]]:
        """Return the pieces on a store by segment, opened and proved by the digests in their metadata."""
        found: dict[str, list[RecordedPiece]] = {}
        inner = self.stores[store].inner
        for listed in inner.list(""):
            if "/tail/" not in listed.key:
                continue
            try:
                with inner.open_described(listed.key) as (described, stream):
                    stored = stream.read()
            except ObjectMissingError:
                continue  # it was merged or archived meanwhile
            piece, encoding = piece_from_metadata(listed.key, described.metadata)
            assert hashlib.sha256(stored).hexdigest() == encoding.sha256, listed.key
            content = open_stored(
                stored,
                encoding.codec,
                encrypted=encoding.encrypted,
                identities=identities or [],
                max_size_bytes=piece.size_bytes,
            )
            assert hashlib.sha256(content).hexdigest() == piece.sha256, listed.key
            found.setdefault(piece.segment.name, []).append(RecordedPiece(piece, encoding))
        return found

    def tail_end(self, store: str) -> Lsn | None:
        """Return where the chain of the newest segment's pieces on a store ends; None where it has none."""
        found = self.pieces(store)
        if not found:
            return None
        chain = longest_chain(found[max(found)])
        return chain[-1].piece.end_lsn if chain else None

    def chain(self, store: str, segment: WalFileName) -> list[Piece]:
        """Return the pieces of a segment's chain on a store."""
        return [one.piece for one in longest_chain(self.pieces(store).get(segment.name, []))]


class RunningShipper:
    """A shipper at work in a thread, and its events so far."""

    def __init__(self, shipper: Shipper) -> None:
        self.shipper = shipper
        self.events: list[ShipEvent] = []
        self.error: Exception | None = None
        self._stopped = threading.Event()
        self.thread = threading.Thread(target=self._run, name="test-shipper")

    def stop(self) -> None:
        """Stop it and wait for its end."""
        self._stopped.set()
        self.thread.join(PATIENCE_SECONDS)
        assert not self.thread.is_alive(), "the shipper does not end"
        if self.error is not None:
            raise self.error

    def wait_until(self, holds: Callable[[], T], *, what: str = "it") -> T:
        """Wait until something holds, and return it."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (found := holds()):
            assert time.monotonic() < deadline, f"{what} did not come; the events: {self.events[-10:]}"
            assert self.thread.is_alive(), f"the shipper ended: {self.error}"
            time.sleep(0.02)
        return found

    def wait_for_look(self) -> None:
        """Wait for a look at the server that begins from now on, and another one."""
        begun = time.monotonic()
        looks = self.shipper.looks
        self.wait_until(lambda: (last := looks.last) is not None and last.monotonic > begun, what="a look")

    def of(self, kind: type[T]) -> list[T]:
        """Return the events of one kind."""
        return [event for event in tuple(self.events) if isinstance(event, kind)]

    def _run(self) -> None:
        try:
            for event in self.shipper.run(self._stopped.is_set):
                self.events.append(event)
        except Exception as error:  # noqa: BLE001 - it is raised in the test's thread
            self.error = error


def ended(events: list[ShipEvent]) -> ShippingEnded:
    """Return the last word of a shipper."""
    last = events[-1]
    assert isinstance(last, ShippingEnded)
    return last
