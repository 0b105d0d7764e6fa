"""Loses the host with its disk: all on it dies at once, and what the stores have is restored on another machine.

Afterwards the host comes back, for the checks of the archive that need PostgreSQL's own files.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Final

from chaos.after_loss import counted_stores, restore_after_loss
from chaos.checks import poke
from chaos.half_whole import half_whole
from chaos.play import Player
from chaos.reach import SEGMENT_BYTES, SEGMENTS_IN_PIECES, StoredWal
from chaos.schedule import STORES
from chaos.shipping import INTERVAL_SECONDS
from chaos.world import World
from testbed.ledger import Loss, loss_of
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import FileKind, parse_file_name

PROMISED_SECONDS: Final = INTERVAL_SECONDS + 1.0
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
    whole segment lay on one store beside the other one's good pieces. ``end_lsn``: the stores had all WAL before it.
    ``in_reach`` are the missing commits that lie there, which nothing excuses. ``segments_behind``: how many finished
    segments of its timeline the store lacked that lacked the fewest.
    """

    loss: Loss
    owed_seconds: float
    excuse: str | None
    started_again: bool = False
    had_half_whole: bool = False
    end_lsn: int = 0
    in_reach: tuple[int, ...] = ()
    segments_behind: int = 0

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
        if self.in_reach:
            yield (
                f"after the loss of the host, {len(self.in_reach)} commits are missing that lie before "
                f"{Lsn(self.end_lsn)}, up to which the stores had all WAL, the first is {self.in_reach[0]}"
            )
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
        stored = StoredWal(world, counted_stores(world.schedule))
        pg_wal = disk / world.pg_wal.relative_to(world.folder)
        judged = _Judge(world, stored, pg_wal, lost_at, begun_at, PROMISED_SECONDS + slack_seconds)
        owed_before, excuse = judged.owed_before()
        end_lsn = stored.end_lsn(player.second.main_timeline)
        segments_behind = min(judged.behind(store) for store in stored.usable)
        with half_whole(world) as planted:
            recovered = restore_after_loss(world, player.second.main_timeline)
    loss = loss_of(acknowledged, attempted, recovered.commits, lost_at)
    return HostLoss(
        loss,
        lost_at - owed_before,
        excuse,
        started_again=recovered.started_again,
        had_half_whole=planted is not None,
        end_lsn=end_lsn,
        in_reach=lost_in_reach(loss.missing, world.load.ends, end_lsn),
        segments_behind=segments_behind,
    )


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


@dataclass(frozen=True, slots=True)
class _Judge:
    """Says what a loss at ``lost_at`` may cost. The lost host's ``pg_wal`` is read for this only.

    ``begun_at`` is the moment of the first commit, ``needed_seconds`` what shipping has for one.
    """

    world: World
    stored: StoredWal
    pg_wal: Path
    lost_at: float
    begun_at: float
    needed_seconds: float

    def owed_before(self) -> tuple[float, str | None]:
        """Return the moment before which each acknowledged commit is owed, and why that is earlier than promised.

        A timeline that nobody can follow yet helps nothing: what was not shipped when it began, on the one before it,
        comes with archiving only.
        """
        usable = counted_stores(self.world.schedule)
        found = [(self._calm_before(usable, self.lost_at), "troubles of shipping")]
        kept = [store for store in usable if self.behind(store) <= SEGMENTS_IN_PIECES]
        if len(kept) < len(usable):
            found.append((self._calm_before(kept, self.lost_at), "archiving was further behind than shipping goes on"))
        for name in self._finished(FileKind.HISTORY):
            if not any(self.stored.has(store, name) for store in STORES):
                owed = self._calm_before(usable, _written_at(self.pg_wal / name))
                found.append((owed, "a timeline's history file was not archived yet"))
        owed_before, excuse = min(found, key=itemgetter(0))
        promised_before = self.lost_at - self.needed_seconds - _END_SECONDS
        return owed_before, excuse if owed_before < promised_before else None

    def behind(self, store: str) -> int:
        """Return how many finished segments a store lacks: its shipper counts the same."""
        return len(self.stored.lacking(store, self._finished(FileKind.SEGMENT)))

    def _calm_before(self, stores: Sequence[str], end: float) -> float:
        """Return the moment before which commits are owed by what these stores could get up to a moment."""
        begun_at = min(self.begun_at, end)
        return self.world.shipping.troubles.owed_before(end, self.needed_seconds, begun_at=begun_at, usable=stores)

    def _finished(self, kind: FileKind) -> list[str]:
        """Return PostgreSQL's finished files that a recovery from the newest base backup needs."""
        status = self.pg_wal / "archive_status"
        names = {path.stem for ending in ("done", "ready") for path in status.glob(f"*.{ending}")}
        parsed = [one for name in names if (one := parse_file_name(name)) is not None and one.kind is kind]
        first = self.stored.first_number
        is_history = kind is FileKind.HISTORY
        return sorted(one.name for one in parsed if is_history or one.number(SEGMENT_BYTES) >= first)


def lost_in_reach(missing: Sequence[int], ends: Mapping[int, int], end_lsn: int) -> tuple[int, ...]:
    """Return the missing commits that lie before ``end_lsn``. ``ends``: an LSN after each commit, where it is known.

    Where it is not, that of the next commit counts, which lies further on.
    """
    found: list[int] = []
    later: int | None = None
    for number in sorted({*missing, *ends}, reverse=True):
        later = ends.get(number, later)
        if number in missing and later is not None and later <= end_lsn:
            found.insert(0, number)
    return tuple(found)


def _written_at(path: Path) -> float:
    """Return the moment of a file's last change on the clock of ``time.monotonic``."""
    return path.stat().st_mtime + time.monotonic() - time.time()
