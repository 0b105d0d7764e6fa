"""Runs a shipper in a process that kills itself before or after a given request to a store, as a power cut would."""

import multiprocessing
from dataclasses import dataclass
from pathlib import Path

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline_tests.support.killed_archiver import Fuse, Moment
from wal_pipeline_tests.support.ship_scene import ShipScene

_CONTEXT = multiprocessing.get_context("forkserver")
_PIECES = 40


@dataclass(frozen=True)
class ShipPlace:
    """A scene's folder, and how its running server is reached. ``shipped`` has the LSN that every store had."""

    folder: Path
    install: PostgresInstall
    pgdata: Path
    port: int

    def scene(self) -> ShipScene:
        """Return the scene that a new process finds there."""
        cluster = PostgresCluster(self.install, self.folder, pgdata=self.pgdata)
        cluster.port = self.port
        return ShipScene(self.folder / "scene", cluster, interval_seconds=0.02)

    @property
    def shipped(self) -> Lsn:
        """The furthest LSN that every store was seen to have."""
        return Lsn.parse((self.folder / "shipped").read_text())


def die_while_shipping(place: ShipPlace, moment: Moment) -> int:
    """Write and ship in a child process that dies at a moment; return the child's exit code."""
    child = _CONTEXT.Process(target=_ship, args=(place, moment))
    child.start()
    child.join(120)
    child.kill()
    child.join()
    assert child.exitcode is not None
    return child.exitcode


def _ship(place: ShipPlace, moment: Moment) -> None:
    fuse = Fuse(moment)
    scene = place.scene()
    for name, store in scene.stores.items():
        store.before = lambda call, _key, name=name: fuse.reach(f"{call} {name}", "before")  # type: ignore[misc]
        store.after = lambda call, _key, name=name: fuse.reach(f"{call} {name}", "after")  # type: ignore[misc]
    with scene.shipping() as running:
        for _ in range(_PIECES):
            scene.write()
            flushed = scene.flushed
            running.wait_until(lambda: all((scene.tail_end(one) or 0) >= flushed for one in scene.stores))  # noqa: B023
            (place.folder / "shipped").write_text(str(flushed))
