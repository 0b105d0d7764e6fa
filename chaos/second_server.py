"""Lets a second server of the same cluster archive: a copy into the original's spool, or one on the same timeline."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from chaos.world import World
from testbed.dagster_instance import PROJECT, clean_environment
from testbed.postgres import PostgresCluster
from testbed.postgres_install import owned_folder, postgres_user
from wal_pipeline.postgres.archive_command import durable_archive_command
from wal_pipeline.wal.names import parse_file_name

FIRST_FOREIGN: Final = 1_000_000  # the load's own numbers are smaller
_ARCHIVE_SECONDS: Final = 120
_SEGMENT_NAME: Final = 24


@dataclass(slots=True)
class SecondServer:
    """The second server of one schedule, of which there is at most one.

    ``archived`` are the files of its own that may be stored. Where it did, ``main_timeline`` is that of the
    original, which a restore must be told.
    """

    world: World
    archived: set[str] = field(default_factory=set)
    main_timeline: int | None = None
    _folder: Path | None = None
    _cluster: PostgresCluster | None = None
    _waits: bool = False

    def archive_into_spool(self) -> None:
        """Open a copy of the original, which goes on, and let it archive into the same spool."""
        if self._cluster is not None:
            return
        timeline = int(self.world.cluster.value("SELECT timeline_id FROM pg_control_checkpoint()"))
        copy = self._copy(self.world.cluster.settings)
        written = self._open(copy)
        copy.stop()  # it archives what it can before it ends
        self.archived |= {name for name in _done(copy) if name[:8] == written[:8] or name.endswith(".partial")}
        if any(len(name) == _SEGMENT_NAME and name[:8] == written[:8] for name in self.archived):
            self.main_timeline = timeline  # else the disk was full, and there is no second timeline

    def promote_beside(self, promote: Callable[[], None]) -> None:
        """Copy the original, and promote the original. ``settle`` promotes the copy onto the same timeline."""
        if self._cluster is not None:
            return
        spool = owned_folder("chaos-second-spool")
        self._copy({"archive_mode": "on", "archive_command": durable_archive_command(spool)})
        self._folder, self._waits = spool, True
        promote()

    def let_the_original_go_on(self) -> None:
        """Let the original commit once more after its copy has archived, also where the load ended before."""
        if self.main_timeline is not None:
            self.world.load.write_one()

    def settle(self) -> list[str]:
        """Let a server that waits archive what it wrote, and return what of it is in no place as a text each.

        The original's timeline is archived by then. Nothing of the second one may be stored: see ``compare``.
        """
        if not self._waits or self._cluster is None or self._folder is None:
            return []
        written = self._open(self._cluster)
        self._cluster.stop()
        spooled = {path.name for path in self._folder.iterdir()}
        self.archived |= {name for name in spooled if name.endswith(".partial")}  # of the timeline that both have left
        names = {name for name in spooled if name[:8] == written[:8]}
        self._archive(self._folder)
        quarantined = {path.name.rsplit(".", 2)[0] for path in _quarantine(self._folder).glob("0*")}
        kept = quarantined | {path.name for path in self._folder.iterdir()}
        wrong = [f"second server: '{name}' is neither in its spool nor in quarantine" for name in sorted(names - kept)]
        return wrong or ([] if names else ["second server: it archived nothing"])

    def stop(self) -> None:
        """End the server and remove it."""
        if self._cluster is not None:
            self._cluster.remove()
            shutil.rmtree(self._cluster.folder, ignore_errors=True)
        if self._folder is not None:
            for path in (self._folder, _quarantine(self._folder)):
                shutil.rmtree(path, ignore_errors=True)

    def _copy(self, settings: Mapping[str, str]) -> PostgresCluster:
        folder = owned_folder("chaos-second")
        copy = PostgresCluster(self.world.stage.install, folder, settings=dict(settings))
        self._cluster = copy
        words = ["--pgdata", str(copy.pgdata), "--wal-method=stream", "--checkpoint=fast"]
        if self.world.tablespace is not None:
            words.append(f"--tablespace-mapping={self.world.tablespace}={folder / 'side'}")
        self.world.cluster.run("pg_basebackup", *words)
        signal_file = copy.pgdata / "recovery.signal"
        signal_file.touch()
        os.chown(signal_file, postgres_user().uid, postgres_user().gid)
        copy.settings["restore_command"] = "false"
        return copy

    def _open(self, copy: PostgresCluster) -> str:
        """Start a copy, which opens on a timeline of its own, and return the last segment that it writes."""
        copy.start(wait=False)
        copy.wait_promoted()
        name = ""
        for number in range(FIRST_FOREIGN, FIRST_FOREIGN + 4):
            copy.psql(f"INSERT INTO ledger VALUES ({number})")  # noqa: S608 - a number of ours
            name = copy.switch_wal()
        return name

    def _archive(self, spool: Path) -> None:
        state = spool / ".state"
        environment = {
            **self.world.stage.store_environment(self.world.prefix),
            "PG_WAL_ARCHIVE_DIR": str(spool),
            "WAL_PIPELINE_STATE_FOLDER": str(state),
        }
        subprocess.run(
            [sys.executable, "-m", "wal_pipeline.cli", "archive"],
            check=False,
            capture_output=True,
            timeout=_ARCHIVE_SECONDS,
            env={**clean_environment(), **environment},
            cwd=PROJECT,
        )


def _done(cluster: PostgresCluster) -> set[str]:
    return {name for name in cluster.archived() if parse_file_name(name) is not None}


def _quarantine(spool: Path) -> Path:
    return spool.with_name(f"{spool.name}-quarantine")
