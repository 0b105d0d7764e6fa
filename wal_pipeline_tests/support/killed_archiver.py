"""Runs an archiver in a process that kills itself before or after a given step, as a power cut would."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from wal_pipeline.archive.records import Copy, WalFile
from wal_pipeline.catalog.files import Files
from wal_pipeline.codec.encoder import Encoded, Encoder
from wal_pipeline.commands.archive_push.events import CopyVerified, FileReleased
from wal_pipeline.commands.archive_push.flow_control import ArchiveOptions
from wal_pipeline.spool import Spool, SpoolFile
from wal_pipeline.stores.local.folder_tree import FolderTree
from wal_pipeline.stores.s3.client import Connection
from wal_pipeline.stores.s3.profiles import PROFILES
from wal_pipeline.stores.s3.store import open_s3_store
from wal_pipeline_tests.support.archive_scene import ArchiveScene, WatchedStore

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])


@dataclass(frozen=True)
class Moment:
    """The moment of death: ``when`` (``before`` or ``after``) the ``nth`` time that the run reaches a step."""

    step: str
    when: str
    nth: int = 1

    def __str__(self) -> str:
        return f"{self.when} {self.step} {self.nth}"


@dataclass(frozen=True)
class Place:
    """The place of a scene: a folder, and the way to each S3 store. Without one, stores are folders too."""

    folder: Path
    s3: Mapping[str, Mapping[str, Any]] | None = None
    system_identifier: int | None = None

    def scene(self, kind: type[ArchiveScene] = ArchiveScene) -> ArchiveScene:
        """Return the scene that a new process finds there."""
        stores = {}
        if self.s3 is not None:
            connections = {name: Connection(store=name, **how) for name, how in self.s3.items()}
            stores = {name: WatchedStore(open_s3_store(PROFILES[name], to)) for name, to in connections.items()}
        given = {} if self.system_identifier is None else {"server_identifier": self.system_identifier}
        return kind(self.folder, stores, options=ArchiveOptions(concurrency=2), **given)  # type: ignore[arg-type]


class Fuse:
    """Kills the process at a moment."""

    def __init__(self, moment: Moment) -> None:
        self._moment = moment
        self._seen = 0
        self._lock = threading.Lock()

    def reach(self, step: str, when: str) -> None:
        with self._lock:
            if (step, when) == (self._moment.step, self._moment.when):
                self._seen += 1
                if self._seen == self._moment.nth:
                    os.kill(os.getpid(), signal.SIGKILL)
                    threading.Event().wait()  # another thread may take the signal: this one waits for the end


def die_while_archiving(place: Place, moment: Moment) -> int:
    """Run an archiver in a child process that dies at a moment; return the child's exit code."""
    child = _CONTEXT.Process(target=_archive, args=(place, moment))
    child.start()
    child.join(60)
    child.kill()
    child.join()
    assert child.exitcode is not None
    return child.exitcode


def _archive(place: Place, moment: Moment) -> None:
    fuse = Fuse(moment)
    scene = place.scene(_FusedScene)
    assert isinstance(scene, _FusedScene)
    scene.fit(fuse)
    for event in scene.archiver().drain():
        step = {CopyVerified: "tell of copy", FileReleased: "tell of release"}.get(type(event), "other")
        fuse.reach(step, "before")
        fuse.reach(step, "after")


class _FusedScene(ArchiveScene):
    fuse: Fuse

    def fit(self, fuse: Fuse) -> None:
        """Put the fuse into every step of the run."""
        self.fuse = fuse
        self.spool = _FusedSpool(self.spool_folder, self.quarantine_folder, 60.0)
        self.spool.fuse = fuse
        files = _FusedFiles(self.catalog.database, self.catalog.cluster, self.clock)
        files.fuse = fuse
        self.catalog.files = files
        for name, store in self.stores.items():
            store.before = lambda call, _key, name=name: fuse.reach(f"{call} {name}", "before")  # type: ignore[misc]
            store.after = lambda call, _key, name=name: fuse.reach(f"{call} {name}", "after")  # type: ignore[misc]
            tree = getattr(store.inner, "_objects", None)
            if isinstance(tree, FolderTree):
                store.inner._objects = _FusedTree(tree.root, name, fuse)  # type: ignore[attr-defined]

    def encoder(self) -> Encoder:
        made = _FusedEncoder(self.codec)
        made.fuse = self.fuse
        return made


class _FusedSpool(Spool):
    fuse: Fuse

    def read(self, file: SpoolFile) -> bytes | None:
        self.fuse.reach("read", "before")
        data = super().read(file)
        self.fuse.reach("read", "after")
        return data

    def release(self, file: SpoolFile) -> bool:
        self.fuse.reach("release", "before")
        released = super().release(file)
        self.fuse.reach("release", "after")
        return released


class _FusedEncoder(Encoder):
    fuse: Fuse

    def encode(self, data: bytes) -> Encoded:
        self.fuse.reach("compress", "before")
        encoded = super().encode(data)
        self.fuse.reach("compress", "after")
        return encoded


class _FusedFiles(Files):
    fuse: Fuse

    def record_verified(self, file: WalFile, verified: Any) -> None:
        copies: list[Copy] = list(verified)
        self.fuse.reach(f"record {copies[0].store}", "before")
        super().record_verified(file, copies)
        self.fuse.reach(f"record {copies[0].store}", "after")

    def mark_released(self, system_identifier: int, names: Collection[str], at: datetime) -> None:
        self.fuse.reach("record release", "before")
        super().mark_released(system_identifier, names, at)
        self.fuse.reach("record release", "after")


class _FusedTree(FolderTree):
    """The folder of a local store's objects. An object exists from the moment it has its name."""

    def __init__(self, root: Path, store: str, fuse: Fuse) -> None:
        super().__init__(root)
        self._store = store
        self._fuse = fuse

    def link(self, source: Path, key: str) -> None:
        self._fuse.reach(f"publish {self._store}", "before")
        super().link(source, key)
        self._fuse.reach(f"publish {self._store}", "after")
