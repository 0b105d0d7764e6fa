"""Builds a small archive, its catalog, spool and facts, for the tests of health, status and metrics."""

import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from wal_pipeline.archive.records import BackupKind, BaseBackup, Codec, CommitTimes, Copy, CopyStatus, Encoding, WalFile
from wal_pipeline.catalog.backups import BaseBackupCopy
from wal_pipeline.catalog.catalog import Catalog, open_catalog
from wal_pipeline.commands.health.facts import FactSources, HealthFacts, look_at_everything
from wal_pipeline.commands.health.reach import ServerLook, look_at_reaches
from wal_pipeline.commands.health.shipping import ShipGoal, SlotLook
from wal_pipeline.postgres.server_facts import ServerFacts
from wal_pipeline.spool import Spool
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import segment_name
from wal_pipeline.wiring.pipeline import utc_now
from wal_pipeline_tests.support.server_facts import facts as server_facts

SIZE = 1 << 20
SYSTEM = 7_000_000_000_000_000_001
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
STORES = ("r2", "b2")


def name(number: int) -> str:
    """Return a segment's name on timeline 1."""
    return segment_name(1, number, SIZE).name


@dataclass
class HealthScene:
    """``now`` is the clock. The archive begins empty, and its open segment is not shipped without a ``ship_goal``."""

    folder: Path
    now: datetime = NOW
    ship_goal: ShipGoal | None = None
    slot: SlotLook | None = None

    def __post_init__(self) -> None:
        self.spool = Spool(self.folder / "spool", self.folder / "spool-quarantine", 0.0)
        self.spool.folder.mkdir()
        self.catalog: Catalog = open_catalog(f"sqlite:///{self.folder}/catalog.sqlite", "main", clock=lambda: self.now)

    def archive(self, *numbers: int, on: tuple[str, ...] = STORES, minutes_apart: float = 10) -> None:
        """Record segments as verified. The last one came a minute ago, with a commit 30 seconds before."""
        self.catalog.system_identifiers.add(SYSTEM, "test", self.now)
        for index, number in enumerate(reversed(numbers)):
            at = self.now - timedelta(minutes=1 + index * minutes_apart)
            self.catalog.files.record_verified(_file(number, at), [_copy(number, store, at) for store in on])
            for store in on:
                self.catalog.stores.count_events(store, at, succeeded=1)

    def back_up(self, number: int, age: timedelta = timedelta(hours=1), on: tuple[str, ...] = STORES) -> str:
        """Record a base backup that needs one segment; return its id."""
        finished_at = self.now - age
        backup_id = f"{finished_at:%Y%m%dT%H%M%SZ}-{name(number)}"
        start = Lsn(number * SIZE + 40)
        backup = BaseBackup(
            backup_id=backup_id,
            kind=BackupKind.FULL,
            parent_id=None,
            system_identifier=SYSTEM,
            timeline=1,
            start_lsn=start,
            stop_lsn=Lsn(start + 400),
            started_at=finished_at - timedelta(minutes=5),
            finished_at=finished_at,
            wal_segment_size=SIZE,
            server_version=180006,
            label="test",
            size_bytes=10**9,
            stored_size_bytes=3 * 10**8,
        )
        verified = CopyStatus.VERIFIED
        copies = [
            BaseBackupCopy(backup_id, SYSTEM, store, verified, 3, 3 * 10**8, finished_at, None, finished_at)
            for store in on
        ]
        self.catalog.base_backups.record(backup, copies)
        return backup_id

    def put_in_spool(self, number: int, *, waited: timedelta = timedelta(0)) -> None:
        """Put a segment's file into the spool, with a time ``waited`` ago."""
        path = self.spool.folder / name(number)
        path.write_bytes(b"\0" * SIZE)
        at = (self.now - waited).timestamp()
        os.utime(path, (at, at))

    def quarantine(self, number: int) -> None:
        """Put a segment into quarantine, under the name that the archiver gives it there."""
        self.spool.quarantine_folder.mkdir(exist_ok=True)
        (self.spool.quarantine_folder / f"{name(number)}.20261122T110000.000000Z").write_bytes(b"x")

    @property
    def sources(self) -> FactSources:
        """The sources of health: everything except a server."""
        return FactSources(
            self.catalog,
            STORES,
            lambda: self.now,
            spool=self.spool,
            disk_folders=(self.folder,),
            ship_goal=self.ship_goal,
            slot=self.slot,
        )

    def facts(self, server: ServerFacts | None = None, **changed: Any) -> HealthFacts:
        """Return the facts, with a server that archives well unless another one is given."""
        seen = look_at_everything(self.sources)
        good = server_facts(system_identifier=SYSTEM, server_at=self.now, wal_segment_size=SIZE, wal_lsn=Lsn(0))
        look = ServerLook(server or good)
        reaches = look_at_reaches(seen.windows, look, None, self.now)
        return replace(seen, **{"server": look, "reaches": reaches, **changed})


def _file(number: int, at: datetime) -> WalFile:
    parsed = segment_name(1, number, SIZE)
    return WalFile(
        name=parsed.name,
        kind=parsed.kind,
        system_identifier=SYSTEM,
        timeline=1,
        size_bytes=SIZE,
        sha256="a" * 64,
        spooled_at=at,
        wal_segment_size=SIZE,
        server_major=18,
        start_lsn=Lsn(number * SIZE),
        end_lsn=Lsn((number + 1) * SIZE),
        commit_times=CommitTimes.KNOWN,
        first_commit_at=at - timedelta(seconds=50),
        last_commit_at=at - timedelta(seconds=30),
    )


def _copy(number: int, store: str, at: datetime) -> Copy:
    encoding = Encoding(Codec.GZIP, False, 200_000, "b" * 64, "c" * 32, 0.01)
    key = f"main/{SYSTEM}/wal/{name(number)}.gz"
    verified_at = at + timedelta(seconds=2)
    return Copy(name(number), SYSTEM, store, CopyStatus.VERIFIED, key, encoding, 1, None, verified_at, 0.5, 2.0)


def failed_copy(number: int, store: str, tries: int) -> tuple[WalFile, Copy]:
    """Return a file and its failed copy."""
    file = _file(number, NOW)
    return file, Copy(file.name, SYSTEM, store, CopyStatus.FAILED, "", None, tries, "r2: it said no")


def scene_in_settings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> HealthScene:
    """Return ten segments and a base backup that the program finds by its settings, and a server that is not there.

    The clock stands at the present moment.
    """
    monkeypatch.chdir(folder)
    monkeypatch.setenv("WAL_PIPELINE_CATALOG_URL", f"sqlite:///{folder}/catalog.sqlite")
    monkeypatch.setenv("WAL_PIPELINE_STATE_DIR", str(folder / "state"))
    monkeypatch.setenv("PG_WAL_ARCHIVE_DIR", str(folder / "spool"))
    monkeypatch.setenv("WAL_PIPELINE_CONNINFO", f"host={folder} port=1")
    monkeypatch.setenv("WAL_PIPELINE_DISK_LOW_SHARE", "0")
    monkeypatch.setenv("WAL_PIPELINE_SHIP_INTERVAL_SECONDS", "off")
    made = HealthScene(folder, now=utc_now())
    made.archive(*range(1, 11))
    made.back_up(2)
    return made


def healthy_scene(folder: Path) -> HealthScene:
    """Return an archive of ten segments with a base backup: nothing needs a person."""
    made = HealthScene(folder)
    made.archive(*range(1, 11))
    made.back_up(2)
    return made
