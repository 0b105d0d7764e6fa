"""The last accident: the host is gone with its disk while commits go on, and the stores have all but a few seconds."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from demo.folder import DemoError
from demo.load import write_on
from demo.restore import fresh_machine, run_restore
from demo.scene import BUCKETS, Scene, Tell
from testbed.ledger import LedgerWriter, Loss
from wal_pipeline.host.own_command import own_command

_COMMITS_PER_SECOND: Final = 50
_PIECE_SECONDS: Final = 90
_LOOK_SECONDS: Final = 0.5
_LATEST_COMMIT_SECONDS: Final = 2.0
# So long that no finished segment carries the commits out: what is restored came in pieces of the open one.
_LONG_TIMEOUT: Final = "ALTER SYSTEM SET archive_timeout = '1h'; SELECT pg_reload_conf()"


@dataclass(frozen=True, slots=True)
class HostLossReport:
    """``rpo_seconds_after_loss``: the age of the oldest acknowledged commit that is missing, when the host died.

    0 where none is missing. What is missing ends with the newest commit of all, whose age
    ``newest_lost_commit_age_seconds`` therefore says little. ``rto_seconds_after_loss``: from the command to an
    open server.
    """

    ship_interval_seconds: float
    commits_acknowledged: int
    commits_lost_after_loss: int
    commits_never_made: int
    rpo_seconds_after_loss: float
    newest_lost_commit_age_seconds: float
    rto_seconds_after_loss: float

    @property
    def holds(self) -> bool:
        """Whether no more is missing than shipping promises, and nothing is there that nobody made."""
        promised_seconds = self.ship_interval_seconds + 1
        return self.rpo_seconds_after_loss <= promised_seconds and self.commits_never_made == 0


def lose_host(scene: Scene, tell: Tell) -> HostLossReport:
    """Commit, kill everything on the host at once, remove its disk, and restore from the stores.

    Raises: DemoError where the open segment is not shipped, or a commit is missing before one that is there.
    """
    interval_seconds = scene.pipeline.settings.ship_interval_seconds
    if interval_seconds is None:
        raise DemoError("the open segment is not shipped", hint="Unset WAL_PIPELINE_SHIP_INTERVAL_SECONDS.")
    scene.cluster.psql(_LONG_TIMEOUT)
    tell("the writer goes on, and its open segment is shipped in pieces; archive_timeout is an hour now")
    with LedgerWriter(scene.cluster, _COMMITS_PER_SECOND) as writer, write_on(scene.cluster):
        _wait_for_pieces(scene)
        time.sleep(2 * interval_seconds)
        lost_at = time.monotonic()
        _kill_everything(scene)
    if lost_at - max(writer.acknowledged.values(), default=0.0) > _LATEST_COMMIT_SECONDS:
        raise DemoError("the writer stopped before the host was lost")
    _remove_disk(scene)
    tell(f"host lost after {len(writer.acknowledged)} commits: data directory, pg_wal, spool and catalog are removed")
    rto_seconds, loss = _restore(scene, writer, lost_at, tell)
    report = _report(interval_seconds, rto_seconds, loss)
    tell(
        f"{loss.acknowledged - len(loss.missing)} of {loss.acknowledged} commits are back after {rto_seconds:.1f} s; "
        f"the oldest that is missing was {loss.oldest_age_seconds:.2f} s old, at most {interval_seconds + 1:g} s"
    )
    return report


def _wait_for_pieces(scene: Scene) -> None:
    """Wait until both stores hold a piece of a segment in which the writer has committed."""
    segment = scene.cluster.value("SELECT pg_walfile_name(pg_current_wal_lsn())")
    deadline = time.monotonic() + _PIECE_SECONDS
    while not all(_has_piece_since(scene, store, segment) for store in ("r2", "b2")):
        if time.monotonic() > deadline:
            raise DemoError(f"no piece of segment '{segment}' came to both stores in {_PIECE_SECONDS} s")
        time.sleep(_LOOK_SECONDS)


def _has_piece_since(scene: Scene, store: str, segment: str) -> bool:
    server, bucket = getattr(scene.stores, store), getattr(BUCKETS, store)
    names = [key.split("/")[-2] for key in server.keys(bucket) if "/tail/" in key]
    return any(name >= segment for name in names)


def _kill_everything(scene: Scene) -> None:
    """SIGKILL the server and Dagster with its runs at the same moment, as the host's power supply does."""
    with ThreadPoolExecutor(2) as pool:
        for killed in (pool.submit(scene.dagster.stop), pool.submit(scene.cluster.kill)):
            killed.result()


def _remove_disk(scene: Scene) -> None:
    """Remove the data directory with pg_wal, the spool, and what the program had written on the host."""
    for folder in (scene.cluster.folder, scene.folder / "state", scene.dagster.folder):
        shutil.rmtree(folder)


def _restore(scene: Scene, writer: LedgerWriter, lost_at: float, tell: Tell) -> tuple[float, Loss]:
    with fresh_machine(scene, "restored-after-loss") as (cluster, env_file):
        tell(f"{own_command(env_file)} restore --pgdata {cluster.pgdata} --start")
        begun = time.monotonic()
        run_restore(cluster, env_file)
        rto_seconds = time.monotonic() - begun
        loss = writer.loss(cluster, lost_at)
    if not loss.is_suffix:
        raise DemoError(f"commit {loss.missing[0]} is missing, and later ones are there")
    return rto_seconds, loss


def _report(interval_seconds: float, rto_seconds: float, loss: Loss) -> HostLossReport:
    return HostLossReport(
        ship_interval_seconds=interval_seconds,
        commits_acknowledged=loss.acknowledged,
        commits_lost_after_loss=len(loss.missing),
        commits_never_made=len(loss.never_made),
        rpo_seconds_after_loss=round(loss.oldest_age_seconds, 3),
        newest_lost_commit_age_seconds=round(loss.newest_age_seconds, 3),
        rto_seconds_after_loss=round(rto_seconds, 3),
    )
