"""Several servers that archive one cluster's WAL into one archive, and what each of them really wrote."""

import hashlib
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from wal_pipeline.archive.format.object_metadata import from_metadata
from wal_pipeline.archive.records import WalFile
from wal_pipeline.archive.recovery.continuity import history_fault, joint_fault
from wal_pipeline.wal.names import require_file_name
from wal_pipeline.wal.timeline import TimelineHistory, TimelineSwitch
from wal_pipeline_tests.support.archive_scene import ArchiveScene, WatchedStore, contents, folder_store
from wal_pipeline_tests.support.segments import name_of
from wal_pipeline_tests.support.wal_writer import MIB, WalWriter

STORES = ("r2", "b2")


@dataclass
class Server:
    """One server. The ``length`` of its records makes its WAL unlike any other's.

    ``archived``: what it archived, by name. ``switches`` and ``histories``: the timelines that it left, and its
    history files. ``pairs``: the digests of each two segments that follow one another.
    """

    writer: WalWriter
    scene: ArchiveScene
    length: int
    archived: dict[str, bytes] = field(default_factory=dict)
    switches: list[TimelineSwitch] = field(default_factory=list)
    histories: dict[str, bytes] = field(default_factory=dict)
    pairs: set[tuple[str, str]] = field(default_factory=set)
    next_number: int = 1

    def write(self, segments: int) -> None:
        """Write records until so many more segments are whole, and archive these."""
        until = int(self.writer.position) // MIB + segments
        while self.writer.position < until * MIB + 20_000:
            self.writer.record(self.length)
        self.archive_finished()

    def archive_finished(self) -> None:
        """Archive the whole segments in order, as PostgreSQL does: one that cannot be archived stops it for now."""
        made = [data for _, data in self.writer.segments()]
        self.pairs |= {(digest(one), digest(other)) for one, other in pairwise(made)}
        for number, data in self.writer.segments():
            if number >= self.next_number:
                if not self.put(name_of(number, timeline=self.writer.timeline), data):
                    return
                self.next_number = number + 1

    def promote(self, timeline: int) -> None:
        """End the timeline here: the history file, then the segment of the switch under its new name."""
        self.switches.append(TimelineSwitch(self.writer.timeline, self.writer.position, "no recovery target specified"))
        self.next_number = int(self.writer.position) // MIB
        self.writer.timeline = timeline
        name = f"{timeline:08X}.history"
        self.histories[name] = TimelineHistory(timeline, tuple(self.switches)).render()
        self.put(name, self.histories[name])

    def put(self, name: str, data: bytes) -> bool:
        """Put a file into the spool, as PostgreSQL does; not where another one of that name waits there."""
        if (self.scene.spool_folder / name).exists():
            return False
        self.archived[name] = data
        temporary = self.scene.spool_folder / f".{name}"
        temporary.write_bytes(data)
        temporary.rename(self.scene.spool_folder / name)
        return True


@dataclass
class Servers:
    """The servers of one cluster, and the stores that they share.

    ``forks``: parent and child, with the number of files that the parent had archived.
    """

    folder: Path
    servers: list[Server] = field(default_factory=list)
    forks: list[tuple[Server, Server, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin with one server."""
        self.servers.append(Server(WalWriter(), self._scene(), 3000))

    def _scene(self) -> ArchiveScene:
        folder = self.folder / f"host-{len(self.servers)}"
        folder.mkdir()
        stores = {name: WatchedStore(folder_store(name, self.folder / name)) for name in STORES}
        return ArchiveScene(folder, stores)

    def fork(self, parent: Server, *, shared: bool) -> None:
        """Make a standby or a copy of a server, with all its WAL so far. ``shared``: with its spool, too."""
        length = 3000 - 97 * len(self.servers)
        writer = parent.writer.fork(parent.writer.timeline)
        scene = parent.scene if shared else self._scene()
        made = Server(writer, scene, length, next_number=parent.next_number)
        made.switches += parent.switches
        made.histories |= parent.histories
        made.pairs |= parent.pairs
        self.forks.append((parent, made, len(parent.archived)))
        self.servers.append(made)

    @property
    def is_ordinary(self) -> bool:
        """Whether of each two servers one alone archived since they parted, as at a failover."""
        return all(not child.archived or len(parent.archived) == before for parent, child, before in self.forks)

    def check(self) -> None:
        """Check that no file was lost, and that no store joins two servers' WAL unseen. Raises: AssertionError."""
        held = {name: contents(self.servers[0].scene.stores[name]) for name in STORES}
        for server in self.servers:
            kept = _kept(server)
            for name, data in server.archived.items():
                everywhere = all(held[store].get(name) == data for store in STORES)
                assert everywhere or data in kept, f"'{name}' is neither on both stores nor kept on its host"
        for store, files in held.items():
            self._check_joined(store, files)

    def _check_joined(self, store: str, files: dict[str, bytes]) -> None:
        """What follows a file followed it in some server; else whoever reads the archive sees that it does not.

        The second is for a store that was down when another server's file was refused: it knows no better.
        """
        pairs = set().union(*(server.pairs for server in self.servers))
        described = self._described(store)
        for name, data in files.items():
            if name.endswith(".history"):
                continue
            after = name_of(1 + require_file_name(name).number(MIB), timeline=int(name[:8], 16))
            if after in files and (digest(data), digest(files[after])) not in pairs:
                joints, next_joints = described[name].joints, described[after].joints
                assert joints is not None
                assert next_joints is not None
                assert joint_fault(name, joints, next_joints), f"{store}: '{after}' seems to continue '{name}'"
            self._check_history(store, described[name], data, files.get(f"{name[:8]}.history"))

    def _check_history(self, store: str, file: WalFile, data: bytes, history: bytes | None) -> None:
        owners = [server for server in self.servers if server.archived.get(file.name) == data]
        assert owners, f"{store}: nobody wrote '{file.name}'"
        if history is None or any(one.histories.get(f"{file.name[:8]}.history") == history for one in owners):
            return
        parsed = TimelineHistory.parse(file.timeline, history)
        assert history_fault(file, parsed), f"{store}: '{file.name}' seems to belong to the history of its timeline"

    def _described(self, store: str) -> dict[str, WalFile]:
        inner = self.servers[0].scene.stores[store].inner
        found = {}
        for listed in inner.list(""):
            stored = inner.head(listed.key)
            assert stored is not None
            file, _ = from_metadata(listed.key, stored.metadata)
            found[file.name] = file
        return found

    def close(self) -> None:
        """Close the catalogs."""
        for server in self.servers:
            server.scene.catalog.close()


def _kept(server: Server) -> set[bytes]:
    scene = server.scene
    folders = [folder for folder in (scene.spool_folder, scene.quarantine_folder) if folder.exists()]
    return {path.read_bytes() for folder in folders for path in folder.iterdir() if path.is_file()}


def digest(data: bytes) -> str:
    """Return a SHA-256 as hex digits."""
    return hashlib.sha256(data).hexdigest()
