"""Loses the host with its disk: all on it dies at once, and what the stores have is restored on another machine.

Afterwards the host comes back, for the checks of the archive that need PostgreSQL's own files.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chaos.after_loss import counted_stores, restore_after_loss
from chaos.checks import poke
from chaos.half_whole import half_whole
from chaos.play import Player
from chaos.shipping import INTERVAL_SECONDS
from chaos.world import World
from testbed.ledger import Loss, loss_of
from wal_pipeline.wal.names import FileKind, parse_file_name

PROMISED_SECONDS: Final = INTERVAL_SECONDS + 1.0
_SEGMENTS_IN_PIECES: Final = 32  # so many finished segments of 1 MiB lie on the stores in pieces: see docs/adr/0011
_CALM_SECONDS: Final = 60.0
_START_SECONDS: Final = 30.0
_FEW_FILES: Final = 2
_LOOK_SECONDS: Final = 0.2
_END_SECONDS: Final = 0.25  # the shipper's own end can be seen a look before the moment of the loss


@dataclass(frozen=True, slots=True)
class HostLoss:
    """The loss of a host. ``owed_seconds``: each commit acknowledged so long before it must be there.

    ``excuse`` says why that is more than the promise. ``late_seconds``: how much older the oldest missing commit is.
    ``started_again``: recovery stopped for a fault, and was started again without it. ``had_half_whole``: a damaged
    whole segment lay on one store beside the other one's good pieces.
    """

    loss: Loss
    owed_seconds: float
    excuse: str | None
    started_again: bool = False
    had_half_whole: bool = False

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
    """Wait until shipping has had no trouble for twice as long as it needs and archiving is not behind, or a minute."""
    world.shipping.wait_until_it_runs(_START_SECONDS)
    deadline = time.monotonic() + _CALM_SECONDS
    while time.monotonic() < deadline:
        is_behind = len({*world.spooled(), *world.unarchived()}) > _FEW_FILES
        if not is_behind and time.monotonic() > world.shipping.troubles.last_end() + 2 * PROMISED_SECONDS:
            return
        poke(world)
        time.sleep(_LOOK_SECONDS)


def lose_host(world: World, player: Player, slack_seconds: float) -> HostLoss:
    """Lose the host, restore elsewhere, and bring the host back. Raises: RestoreFailedError.

    ``slack_seconds`` is added to the promise, for a machine that does other things at the same time.
    """
    lost_at = time.monotonic()
    with _host_is_gone(world, player) as disk:
        acknowledged, attempted = dict(world.load.acknowledged), world.load.attempted
        begun_at = min(acknowledged.values(), default=lost_at)
        owed_before = world.shipping.troubles.owed_before(
            lost_at,
            PROMISED_SECONDS + slack_seconds,
            begun_at=begun_at,
            usable=counted_stores(world.schedule),
        )
        promised_before = lost_at - PROMISED_SECONDS - slack_seconds
        excuse = "troubles of shipping" if owed_before < promised_before - _END_SECONDS else None
        blocked = _blocked(world, disk / world.pg_wal.relative_to(world.folder))
        if blocked is not None and blocked[0] < owed_before:
            owed_before, excuse = blocked
        with half_whole(world) as planted:
            recovered = restore_after_loss(world, player.second.main_timeline)
    loss = loss_of(acknowledged, attempted, recovered.commits, lost_at)
    return HostLoss(loss, lost_at - owed_before, excuse, recovered.started_again, planted is not None)


@contextmanager
def _host_is_gone(world: World, player: Player) -> Iterator[Path]:
    """Kill all processes of the host and hide its disk, and yield where it is hidden."""
    with ExitStack() as stack:
        stack.enter_context(world.shipping.standing_still())
        stack.enter_context(world.archiving.standing_still())
        world.cluster.kill()  # last, so that nothing leaves the host for what it still acknowledges
        player.backups.die()
        player.calm()  # while its files can be found: a filled disk is emptied, and the stores are up for the others
        player.damage.die()
        disk = world.folder.rename(world.folder.with_name(f"{world.folder.name}-lost"))
        try:
            yield disk
        finally:
            disk.rename(world.folder)
            world.cluster.start()


def _blocked(world: World, pg_wal: Path) -> tuple[float, str] | None:
    """Return the moment after which commits lie beyond what archiving left to the tail, and why; None where none does.

    A tail continues the archived segments: while more finished segments wait than the shipper keeps in pieces, or a
    timeline's history file, nothing that comes after them can be reached.
    """
    status = pg_wal / "archive_status"
    finished = {path.stem for ending in ("done", "ready") for path in status.glob(f"*.{ending}")}
    names = sorted(name for name in finished if _is_for_recovery(name))
    stored = _stored(world)
    waiting = [name for name in names if name not in stored]
    found: list[tuple[float, str]] = []
    for history in (name for name in waiting if name.endswith(".history")):
        found.append((_written_at(pg_wal / history), "a timeline's history file was not archived yet"))
    segments = [name for name in waiting if not name.endswith(".history")]
    if len(segments) > _SEGMENTS_IN_PIECES:
        before = [_written_at(pg_wal / name) for name in names if name < segments[0] and name in stored]
        found.append((max(before, default=0.0), "archiving was further behind than shipping goes on"))
    return min(found, default=None)


def _written_at(path: Path) -> float:
    """Return the moment of a file's last change on the clock of ``time.monotonic``."""
    return path.stat().st_mtime + time.monotonic() - time.time()


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
