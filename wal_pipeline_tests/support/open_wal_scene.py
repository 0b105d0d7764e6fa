"""Makes standbys, writes WAL, and follows a source of open WAL as the shipper does."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, owned_folder, postgres_user
from wal_pipeline.commands.ship.source import OpenWal
from wal_pipeline.errors import SegmentGoneError
from wal_pipeline.postgres.flushed_wal import FlushedWal
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import WalFileName, parse_file_name, segment_at, segment_name


def keep_segments() -> tuple[Path, dict[str, str]]:
    """Return a folder, and the settings with which a server copies each finished segment into it."""
    folder = owned_folder("kept")
    copy = f"test ! -e {folder}/%f && cp %p {folder}/.%f && mv {folder}/.%f {folder}/%f"  # never half a file
    return folder, {"archive_mode": "on", "archive_command": copy}


def make_standby(
    install: PostgresInstall, primary: PostgresCluster, *, settings: Mapping[str, str] | None = None
) -> PostgresCluster:
    """Make a standby that streams from a primary, not started."""
    standby = PostgresCluster(install, settings={"hot_standby": "on", **(settings or {})})
    primary.run("pg_basebackup", f"--pgdata={standby.pgdata}", "--checkpoint=fast", "--wal-method=stream")
    conninfo = f"{primary.conninfo} application_name=a_standby"
    with (standby.pgdata / "postgresql.auto.conf").open("a") as configuration:
        configuration.write(f"primary_conninfo = '{conninfo}'\n")
    (standby.pgdata / "standby.signal").touch()
    os.chown(standby.pgdata / "standby.signal", postgres_user().uid, postgres_user().gid)
    return standby


def write_wal(cluster: PostgresCluster, kib: int = 100) -> Lsn:
    """Commit some WAL and return the LSN up to which it is flushed."""
    cluster.psql(f"SELECT pg_logical_emit_message(true, 'test', repeat('wal', {kib * 1024 // 3})) \\gset")
    return Lsn.parse(cluster.value("SELECT pg_current_wal_flush_lsn()"))


def wait_replayed(standby: PostgresCluster, lsn: Lsn) -> None:
    """Wait until a standby has replayed up to an LSN."""
    standby.process.wait_until(
        lambda: standby.value(f"SELECT pg_last_wal_replay_lsn() >= '{lsn}'") == "t", timeout_seconds=60
    )


class Follower:
    """Follows a source as the shipper does: ``taken`` is what it has of each segment, from its first byte on."""

    def __init__(self, source: OpenWal) -> None:
        self.source = source
        self.taken: dict[str, bytes] = {}
        self.gone: set[str] = set()
        self._next: WalFileName | None = None

    def step(self) -> FlushedWal:
        """Look, and take all that is new since the last step; at the first step the open segment."""
        seen = self.source.look()
        size = seen.wal_segment_size
        name = self._next or segment_at(seen.timeline, seen.lsn, size)
        if name.timeline != seen.timeline:
            name = segment_name(seen.timeline, name.number(size), size)
        while name.start_lsn(size) < seen.lsn:
            have = self.taken.get(name.name, b"")
            upto = min(seen.lsn - name.start_lsn(size), size)
            if len(have) < upto:
                try:
                    self.taken[name.name] = have + self.source.read(name, len(have), upto, seen)
                except SegmentGoneError:
                    self.gone.add(name.name)
            if upto < size:
                break
            name = name.next(size)
        self._next = name
        return seen

    def until(self, lsn: Lsn, wait: Callable[[], None] = lambda: None) -> FlushedWal:
        """Take steps until the source has reached an LSN."""
        while (seen := self.step()).lsn < lsn:
            wait()
        return seen


def open_segment_of(seen: FlushedWal) -> tuple[WalFileName, int]:
    """Return the segment that holds the last flushed byte, and the offset of the byte behind it."""
    name = segment_at(seen.timeline, Lsn(seen.lsn - 1), seen.wal_segment_size)
    return name, seen.lsn - name.start_lsn(seen.wal_segment_size)


def named(name: str) -> WalFileName:
    """Read a segment's name."""
    parsed = parse_file_name(name)
    assert parsed is not None
    return parsed
