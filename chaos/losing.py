"""Loses the host with its disk: all on it dies at once, and what the stores have is restored on another machine.

Afterwards the host comes back, for the checks of the archive that need PostgreSQL's own files.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chaos.play import Player
from chaos.restoring import restore_after_loss
from chaos.shipping import INTERVAL_SECONDS
from chaos.troubles import either_store
from chaos.world import World
from testbed.ledger import Loss, loss_of
from wal_pipeline.wal.names import FileKind, parse_file_name

PROMISED_SECONDS: Final = INTERVAL_SECONDS + 1.0
_SEGMENTS_IN_PIECES: Final = 32  # so many finished segments of 1 MiB lie on the stores in pieces: see docs/adr/0011
_CALM_SECONDS: Final = 60.0
_START_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class HostLoss:
    """The loss of a host. ``owed_seconds``: each commit acknowledged so long before it must be there.

    ``excuse`` says why that is more than the promise. ``late_seconds``: how much older the oldest missing commit is.
    """

    loss: Loss
    owed_seconds: float
    excuse: str | None

    @property
    def late_seconds(self) -> float:
        """How much older the oldest missing commit is than what may be missing; 0 where it is not."""
        return max(0.0, self.loss.oldest_age_seconds - self.owed_seconds)

    def problems(self) -> Iterator[str]:
        """Yield what must not be."""
        loss = self.loss
        if loss.never_made:
            yield f"after the loss of the host, commits are there that nobody made: {loss.never_made[:5]}"
        if not loss.is_suffix:
            yield f"after the loss of the host, commit {loss.missing[0]} is missing and later ones are there"
        if self.late_seconds:
            yield (
                f"after the loss of the host, {len(loss.missing)} acknowledged commits are missing, the oldest "
                f"{loss.oldest_age_seconds:.2f} s old, expected at most {self.owed_seconds:.2f} s"
            )


def wait_until_calm(world: World) -> None:
    """Wait until shipping has had no trouble for twice as long as it needs, or for a minute."""
    world.shipping.wait_until_it_runs(_START_SECONDS)
    deadline = time.monotonic() + _CALM_SECONDS
    while time.monotonic() < min(deadline, world.shipping.troubles.last_end() + 2 * PROMISED_SECONDS):
        time.sleep(0.1)


def lose_host(world: World, player: Player, slack_seconds: float) -> HostLoss:
    """Lose the host, restore elsewhere, and bring the host back. Raises: RestoreFailedError.

    ``slack_seconds`` is added to the promise, for a machine that does other things at the same time.
    """
    lost_at = time.monotonic()
    with _host_is_gone(world, player) as disk:
        acknowledged, attempted = dict(world.load.acknowledged), world.load.attempted
        player.calm()
        begun_at = min(acknowledged.values(), default=lost_at)
        owed_before = world.shipping.troubles.owed_before(
            lost_at,
            PROMISED_SECONDS + slack_seconds,
            begun_at=begun_at,
            usable=either_store(world.schedule.lying_pieces),
        )
        excuse = "troubles of shipping" if lost_at - owed_before > PROMISED_SECONDS + slack_seconds + 0.01 else None
        reachable_before = _reachable_before(world, disk / world.pg_wal.relative_to(world.folder))
        if reachable_before is not None and reachable_before < owed_before:
            owed_before, excuse = reachable_before, "archiving was behind"
        found = restore_after_loss(world, player.second.main_timeline)
    return HostLoss(loss_of(acknowledged, attempted, found, lost_at), lost_at - owed_before, excuse)


@contextmanager
def _host_is_gone(world: World, player: Player) -> Iterator[Path]:
    """Kill all processes of the host and hide its disk, and yield where it is hidden."""
    with ExitStack() as stack:
        stack.enter_context(world.shipping.standing_still())
        stack.enter_context(world.archiving.standing_still())
        world.cluster.kill()  # last, so that nothing leaves the host for what it still acknowledges
        player.backups.die()
        player.damage.die()
        disk = world.folder.rename(world.folder.with_name(f"{world.folder.name}-lost"))
        try:
            yield disk
        finally:
            disk.rename(world.folder)
            world.cluster.start()


def _reachable_before(world: World, pg_wal: Path) -> float | None:
    """Return the moment after which commits lie beyond what archiving left to the tail; None where none does.

    A tail continues the archived segments: while more finished segments wait than the shipper keeps in pieces, or a
    timeline's history file, nothing that comes after them can be reached.
    """
    status = pg_wal / "archive_status"
    finished = {path.stem for ending in ("done", "ready") for path in status.glob(f"*.{ending}")}
    waiting = sorted(name for name in finished - _stored(world) if _is_for_recovery(name))
    histories = [name for name in waiting if name.endswith(".history")]
    segments = [name for name in waiting if not name.endswith(".history")]
    blocking = histories + (segments[:1] if len(segments) > _SEGMENTS_IN_PIECES else [])
    to_monotonic = time.monotonic() - time.time()
    return min(((pg_wal / name).stat().st_mtime + to_monotonic for name in blocking), default=None)


def _stored(world: World) -> set[str]:
    """Return the names of all files that either store has."""
    stage = world.stage
    keys = [
        key
        for server, bucket in ((stage.pair.r2, stage.buckets.r2), (stage.pair.b2, stage.buckets.b2))
        for key in server.keys(bucket, f"{world.prefix}/")
        if "/wal/" in key
    ]
    return {key.rpartition("/")[2].removesuffix(".gz") for key in keys}


def _is_for_recovery(name: str) -> bool:
    parsed = parse_file_name(name)
    return parsed is not None and parsed.kind in {FileKind.SEGMENT, FileKind.HISTORY}
