"""What a following standby of plain PostgreSQL does with a padded open segment: why ``--standby`` never gets one.

The standby takes the file as if it were finished: it keeps it in pg_wal under the segment's own name, and where it
archives (``archive_mode = always``) it archives the zeros as that segment. PostgreSQL 18 and 15.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, owned_folder, postgres_user
from wal_pipeline.commands.ship.host_wal import HostWal
from wal_pipeline.postgres.flushed_wal import FlushWatch
from wal_pipeline.postgres.server import PostgresServer
from wal_pipeline_tests.support.open_wal_scene import keep_segments, make_standby, open_segment_of

pytestmark = pytest.mark.integration
MakeCluster = Callable[..., PostgresCluster]
MIB = 1 << 20


class TailScene:
    """A primary that archives into a folder, and a standby that restores from there: whole segments, else tails."""

    def __init__(self, install: PostgresInstall, primary: PostgresCluster, kept: Path) -> None:
        self.primary = primary
        self.kept = kept
        self.tails = owned_folder("tails")
        self.asked = self.tails / "asked"
        self.archived_again = owned_folder("archived-again")
        restore = (
            f"echo %f >> {self.asked}; test -e {kept}/%f && cp {kept}/%f %p || {{ "
            f"test -e {self.tails}/%f && cp {self.tails}/%f %p; }}"
        )
        settings = {
            "restore_command": restore,
            "wal_retrieve_retry_interval": "100ms",
            "archive_mode": "always",
            "archive_command": f"test ! -e {self.archived_again}/%f && cp %p {self.archived_again}/%f",
        }
        self.standby = make_standby(install, primary, settings=settings)
        with (self.standby.pgdata / "postgresql.auto.conf").open("a") as configuration:
            configuration.write("primary_conninfo = ''\n")

    def put_tail(self) -> tuple[str, int]:
        """Give the primary's open segment, padded with zeros, to the standby; return its name and where WAL ends."""
        with HostWal(FlushWatch(PostgresServer(self.primary.conninfo)), None) as source:
            seen = source.look()
            name, end = open_segment_of(seen)
            padded = source.read(name, 0, end, seen) + bytes(MIB - end)
        part = self.tails / "part"
        part.write_bytes(padded)
        os.chown(part, postgres_user().uid, postgres_user().gid)
        part.rename(self.tails / name.name)
        return name.name, end

    def wait_for(self, rows: int) -> None:
        """Wait until the standby shows that many rows."""
        self.standby.process.wait_until(
            lambda: self.standby.value("SELECT count(*) FROM t") == str(rows), timeout_seconds=60
        )

    def times_asked(self, name: str) -> int:
        """Return how often the standby asked for a segment."""
        return self.asked.read_text().split().count(name)


@pytest.fixture
def scene(postgres_version: PostgresInstall, make_cluster: MakeCluster) -> Iterator[TailScene]:
    """A primary with an empty table, and its standby, started."""
    kept, archiving = keep_segments()
    primary = make_cluster(postgres_version, wal_segment_size_mb=1, settings=archiving).start()
    primary.psql("CREATE TABLE t (id int)")
    made = TailScene(postgres_version, primary, kept)
    primary.switch_wal()
    made.standby.start()
    made.wait_for(0)
    yield made
    made.standby.remove()
    for folder in (kept, made.tails, made.archived_again):
        shutil.rmtree(folder)


def test_a_standby_replays_a_tail_and_asks_for_its_segment_again(scene: TailScene) -> None:
    """It replays to the tail's end, then restores the same name again and again, and goes on with what it gets."""
    scene.primary.psql("INSERT INTO t SELECT generate_series(1, 500)")
    name, end = scene.put_tail()
    scene.wait_for(500)
    asked = scene.times_asked(name)
    scene.standby.process.wait_until(lambda: scene.times_asked(name) >= asked + 3, timeout_seconds=60)
    scene.primary.psql("INSERT INTO t SELECT generate_series(1, 500)")
    assert scene.put_tail() > (name, end)
    scene.wait_for(1000)  # a longer tail of the same segment is taken
    scene.primary.psql("INSERT INTO t SELECT generate_series(1, 500)")
    scene.primary.switch_wal()
    scene.wait_for(1500)  # and the whole segment, once it is archived
    assert "PANIC" not in scene.standby.log.read_text()


def test_a_standby_that_archives_takes_a_tail_for_a_finished_segment(scene: TailScene) -> None:
    """It archives the zeros under the segment's name, which is another content than the primary's segment."""
    scene.primary.psql("INSERT INTO t SELECT generate_series(1, 500)")
    name, end = scene.put_tail()
    scene.wait_for(500)
    scene.standby.process.wait_until((scene.archived_again / name).exists, timeout_seconds=60)
    scene.primary.psql("INSERT INTO t SELECT generate_series(1, 500)")
    scene.primary.switch_wal()
    scene.wait_for(1000)
    archived, truth = (scene.archived_again / name).read_bytes(), (scene.kept / name).read_bytes()
    assert archived[:end] == truth[:end]
    assert archived[end:] == bytes(MIB - end) != truth[end:]


def test_a_standby_keeps_a_tail_in_pg_wal_under_the_segments_name(scene: TailScene) -> None:
    """So a restart, or a tool that reads pg_wal, finds the padded file as if the server had written it."""
    scene.primary.psql("INSERT INTO t SELECT generate_series(1, 500)")
    name, end = scene.put_tail()
    scene.wait_for(500)
    assert (scene.standby.pgdata / "pg_wal" / name).read_bytes()[end:] == bytes(MIB - end)
    (scene.tails / name).unlink()
    scene.standby.restart()
    scene.wait_for(500)
    scene.standby.promote()
    assert scene.standby.value("SELECT count(*) FROM t") == "500"
