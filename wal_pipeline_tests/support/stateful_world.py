"""Builds a world for the stateful test: real parts over folders, misbehaving stores, and the invariants."""

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path

from wal_pipeline.archive.format.base_backup.manifest import BaseBackupManifest
from wal_pipeline.archive.format.object_metadata import from_metadata
from wal_pipeline.archive.records import Codec, CopyStatus
from wal_pipeline.archive.recovery.window import windows_by_store
from wal_pipeline.archive.retention.rules import RetentionRule
from wal_pipeline.catalog.backups import BaseBackupCopy
from wal_pipeline.codec.decoder import open_stored
from wal_pipeline.commands.archive_get.wal_source import WalSource
from wal_pipeline.commands.archive_push.flow_control import ArchiveOptions
from wal_pipeline.commands.audit import AuditLog
from wal_pipeline.commands.rebuild_catalog import rebuild
from wal_pipeline.commands.restore.contents import gather
from wal_pipeline.commands.verify.results import Verification
from wal_pipeline.errors import InvalidWalFileError, WalPipelineError
from wal_pipeline.stores.base import Body
from wal_pipeline.wal.names import FileKind, require_file_name
from wal_pipeline_tests.support.archive_scene import CLUSTER, ArchiveScene, WatchedStore, layout
from wal_pipeline_tests.support.segments import SEGMENT_BYTES, SYSTEM_IDENTIFIER, history_bytes, name_of, segment_bytes
from wal_pipeline_tests.support.stateful_backups import MadeBackups
from wal_pipeline_tests.support.stateful_pieces import ShippedPieces
from wal_pipeline_tests.support.stateful_store import STORES, KilledError, Trouble, TroubledStore, damaged
from wal_pipeline_tests.support.upkeep_commands import UpkeepCommands
from wal_pipeline_tests.support.upkeep_scene import base_backup


@dataclass
class World:
    """The folders, stores and catalog, and the model's knowledge of them.

    ``truth``: the content that PostgreSQL archived, by name. ``expired`` and ``spoilt``: copies (store, name) that
    retention removed, or an accident of the test. ``strangers``: wrong content that was put into the spool. ``judged``:
    the SHA-256 of those that a person has taken out of quarantine. ``records_lost``: the catalog was lost, and what it
    knew of contents was not read from the stores since.
    """

    folder: Path
    scene: ArchiveScene = field(init=False)
    truth: dict[str, bytes] = field(default_factory=dict)
    expired: set[tuple[str, str]] = field(default_factory=set)
    spoilt: set[tuple[str, str]] = field(default_factory=set)
    was_good: set[tuple[str, str]] = field(default_factory=set)
    strangers: list[bytes] = field(default_factory=list)
    judged: set[str] = field(default_factory=set)
    records_lost: bool = False
    spooled_at: dict[str, datetime] = field(default_factory=dict)
    next_number: int = 1

    def __post_init__(self) -> None:
        """Make the folders, and record the cluster's system identifier."""
        stores: dict[str, WatchedStore] = {name: TroubledStore(name, self.folder / name) for name in STORES}
        self.scene = ArchiveScene(
            self.folder,
            stores,
            codec=Codec.LZ4,
            options=ArchiveOptions(concurrency=1, max_backoff_seconds=1),
        )
        self.rule = RetentionRule(timedelta(days=4), 1)
        self.audit = AuditLog(self.folder / "state", self.scene.clock)
        self.backups = MadeBackups(stores)
        self.pieces = ShippedPieces(stores, self.folder)

    # Events of the world

    def spool(self, name: str, data: bytes) -> None:
        """Put a file into the spool as PostgreSQL does, at the scene's time."""
        temporary = self.scene.spool_folder / f".{name}"
        temporary.write_bytes(data)
        at = self.spooled_at.setdefault(name, self.scene.clock())
        os.utime(temporary, (at.timestamp(), at.timestamp()))
        temporary.rename(self.scene.spool_folder / name)

    def write(self, count: int) -> None:
        """Archive the next segments, and before them a history file."""
        if not self.truth:
            self.truth["00000002.history"] = history_bytes([1])
            self.spool("00000002.history", self.truth["00000002.history"])
        for number in range(self.next_number, self.next_number + count):
            self.truth[name_of(number)] = segment_bytes(number)
            self.spool(name_of(number), self.truth[name_of(number)])
        self.next_number += count

    def back_up(self) -> None:
        """Put a base backup that begins in the open segment on both stores, and archive that segment."""
        self.write(1)
        manifest, parts = base_backup(self.next_number - 1, self.scene.clock())
        self.backups.put(manifest, parts)
        self._record(manifest)

    def begin_backup(self) -> None:
        """Begin a base backup in the open segment, archive that one, and stand still."""
        self.write(1)
        self.backups.begin(*base_backup(self.next_number - 1, self.scene.clock()))

    def finish_backup(self) -> None:
        """End the oldest base backup that runs."""
        self._record(self.backups.finish())

    def _record(self, manifest: BaseBackupManifest) -> None:
        parts, at = self.backups.made[manifest.backup_id][1], manifest.finished_at
        copies = [
            BaseBackupCopy(
                manifest.backup_id,
                SYSTEM_IDENTIFIER,
                store,
                CopyStatus.VERIFIED,
                len(parts),
                manifest.stored_size_bytes,
                restorable_at=at,
                verified_at=at,
            )
            for store in STORES
        ]
        self.scene.catalog.base_backups.record(manifest.record(), copies)

    def spoil(self, store: str, name: str, how: str) -> None:
        """Damage or remove a copy where another store has a good one, without the program's knowledge."""
        other = next(one for one in STORES if one != store)
        if not self.is_good(other, name) or not self.is_good(store, name):
            return
        inner = self.scene.stores[store].inner
        [found] = inner.list(layout().wal_stem(require_file_name(name)))
        described = inner.head(found.key)
        assert described is not None
        with inner.open(found.key) as stream:
            data = stream.read()
        inner.delete(found.key)
        if how != "swallow":
            inner.put_if_absent(found.key, Body.of(damaged(data, how)), described.metadata)
        self.spoilt.add((store, name))

    def lose_catalog(self, *, and_rebuild: bool) -> None:
        """Remove the catalog, and perhaps rebuild it from the stores."""
        self.scene.lose_catalog()
        self.records_lost = not and_rebuild
        if and_rebuild:
            rebuild(list(self.scene.stores.values()), self.scene.catalog, "", CLUSTER, workers=1)

    # The commands

    @contextmanager
    def trouble(self, troubles: Sequence[Trouble]) -> Iterator[None]:
        """Arm the troubles for a command. Its death or a failure of it ends the block."""
        for store in self.troubled():
            store.expect(troubles)
        try:
            yield
        except (KilledError, WalPipelineError):
            pass
        finally:
            for store in self.troubled():
                store.expect(())

    def troubled(self) -> list[TroubledStore]:
        """Return the stores."""
        return [store for store in self.scene.stores.values() if isinstance(store, TroubledStore)]

    def archive(self, *, events: int | None = None) -> None:
        """Run the archiver, and stop it after ``events`` events."""
        running = self.scene.archiver().drain()
        for number, _ in enumerate(running, 1):
            if number == events:
                running.close()  # type: ignore[attr-defined]
                return

    def judge_strangers(self) -> bool:
        """Let a person take what is in quarantine away: until then what may continue it stays in the spool.

        Returns whether there was any. Raises: AssertionError where something waits for another reason.
        """
        quarantined = self.scene.quarantined()
        refused = {name.partition(".")[0] for name in quarantined}
        for name in sorted(self.scene.spooled()):
            before = name_of(require_file_name(name).number(SEGMENT_BYTES) - 1)
            assert before in refused, f"'{name}' waits, and nothing before it was refused"
            refused.add(name)
        for name in quarantined:
            path = self.scene.quarantine_folder / name
            self.judged.add(digest(path.read_bytes()))
            path.unlink()
        return bool(quarantined)

    def verify(self) -> Verification:
        """Read everything back, and heal it."""
        in_spool = self.scene.spooled
        return self._commands().verifier(lambda name: name in in_spool()).verify(share=1.0, repair=True)

    def expire(self) -> None:
        """Expire copies, and confirm what is doubtful: the invariants must hold whatever a person confirms."""
        waiting = frozenset(self.scene.spooled())
        self._commands().expirer(in_spool=waiting.__contains__).expire(trust_clock=True)

    def _commands(self) -> UpkeepCommands:
        scene = self.scene
        return UpkeepCommands(scene.stores, scene.catalog, CLUSTER, self.audit, self.rule, scene.clock, self.folder)

    # Invariants

    def is_good(self, store: str, name: str) -> bool:
        """Whether a store has exactly the content that PostgreSQL archived."""
        return self.held(store).get(name) == digest(self.truth[name])

    def held(self, store: str) -> dict[str, str]:
        """Return the SHA-256 of each whole copy's content by name, without damaged copies."""
        found = {}
        inner = self.scene.stores[store].inner
        for listed in inner.list(""):
            parsed = layout().parse_wal_key(listed.key)
            described = inner.head(listed.key)
            if parsed is None or described is None:
                continue
            with inner.open(listed.key) as stream:
                data = stream.read()
            try:
                file, encoding = from_metadata(listed.key, described.metadata)
            except InvalidWalFileError:
                continue
            if digest(data) == encoding.sha256:
                found[file.name] = content_digest(data, encoding.codec)
        return found

    def check(self) -> None:
        """Check every invariant. Raises: AssertionError."""
        held = {store: self.held(store) for store in STORES}
        waiting = {name: digest((self.scene.spool_folder / name).read_bytes()) for name in self.scene.spooled()}
        for name, content in self.truth.items():
            wanted = digest(content)
            for store in STORES:
                self._check_copy(store, name, held[store].get(name) == wanted, waiting.get(name) == wanted)
        for store, files in held.items():
            wrong = [name for name, found in files.items() if found != digest(self.truth[name])]
            assert not wrong, f"{store} has other content under {wrong}"
        self._check_strangers(waiting)
        self.backups.check_running()

    def _check_copy(self, store: str, name: str, good: bool, waits: bool) -> None:
        key = (store, name)
        if good:
            self.was_good.add(key)
            self.spoilt.discard(key)
            return
        excused = key in self.expired or key in self.spoilt
        assert excused or waits, f"'{name}' is neither in the spool nor good on {store}"
        assert excused or key not in self.was_good, f"the good copy of '{name}' on {store} is gone"

    def _check_strangers(self, waiting: Mapping[str, str]) -> None:
        folder = self.scene.quarantine_folder
        kept = {digest(path.read_bytes()) for path in folder.iterdir()} if folder.exists() else set()
        kept |= self.judged
        for stranger in self.strangers:
            assert digest(stranger) in kept | set(waiting.values()), "what could not be archived was lost"

    def strangers_wait(self) -> bool:
        """Whether wrong content lies in the spool."""
        folder = self.scene.spool_folder
        return any(digest((folder / name).read_bytes()) != digest(self.truth[name]) for name in self.scene.spooled())

    def restore(self, name: str, *, calm: bool) -> None:
        """Fetch a file as a recovering server does. ``calm``: a file that is good on one store must be fetched.

        Raises: AssertionError.
        """
        parsed = require_file_name(name)
        stores = tuple(self.scene.stores.values())
        try:
            fetched = WalSource(layout(), stores).fetch(parsed)
        except WalPipelineError as error:
            good = calm and name in self.truth and any(self.is_good(store, name) for store in STORES)
            assert not good, f"'{name}' is good on a store and could not be fetched: {error}"
            return
        if fetched is not None:
            assert fetched.data == self.truth[name], f"{fetched.store} delivered other content as '{name}'"
            return
        there = [store.name for store in stores if list(store.inner.list(layout().wal_stem(parsed)))]
        assert not there, f"'{name}' is said not to exist, and is on {there}"

    def check_windows(self, *, at_rest: bool) -> None:
        """Check the recovery windows that the stores alone show. Raises: AssertionError.

        Each window has only existing files, and ends where the next one is missing. ``at_rest``: from a base backup
        it reaches to the last archived file.
        """
        contents = gather([store.inner for store in self.scene.stores.values()], layout(), None).contents
        good, waiting = self.good_on(), set(self.scene.spooled())
        for store, windows in windows_by_store(contents).items():
            on = STORES if store is None else (store,)
            there = set().union(*(good[name] for name in on))
            excused = waiting | {name for name in self.truth if self._is_spoilt(name, on)}
            for window in windows:
                last = require_file_name(window.last_segment).number(SEGMENT_BYTES)
                first = require_file_name(window.first_segment).number(SEGMENT_BYTES)
                promised = {name_of(number) for number in range(first, last + 1)}
                begun = {name_of(last)} & self.pieces.begun_on(on)  # the window may end inside a segment
                absent = promised - there - excused - begun
                assert not absent, f"{store}: the window promises {absent}"
                assert name_of(last + 1) not in there, f"{store}: the window ends before '{name_of(last + 1)}'"
            if at_rest and any(self._backup_starts(name) for name in on):
                ends = [window.last_segment for window in windows]
                is_begun = name_of(self.next_number) in self.pieces.begun_on(on)
                assert ends == [name_of(self.next_number - (not is_begun))], f"{store}: the windows end at {ends}"

    def _is_spoilt(self, name: str, stores: Sequence[str]) -> bool:
        """Whether an accident of the test took a file from the stores on which retention had kept it."""
        keys = {(store, name) for store in stores}
        return bool(keys & self.spoilt) and keys <= self.spoilt | self.expired

    def check_expiry(
        self, before: Mapping[str, set[str]], backups: Mapping[str, set[str]], pieces: Mapping[str, set[str]]
    ) -> None:
        """Check that nothing was removed since ``before`` that a base backup needs, and note the removed copies.

        A base backup counts while anything of it is on the store, whole or not; ``backups`` were there before, and the
        keys ``pieces``.
        """
        after = self.good_on()
        window_begins_at = self.scene.clock() - self.rule.window
        for store in STORES:
            gone = before[store] - after[store]
            self.backups.check_gone(store, backups[store], window_begins_at)
            starts = [self.backups.start_of(one) for one in self.backups.ids_on(store)]
            verified = before[store] | {name for on, name in self.spoilt if on == store}  # as far as anybody knows
            self.pieces.check_gone(store, pieces[store], verified, starts, window_begins_at)
            for name in gone:
                parsed = require_file_name(name)
                assert parsed.kind is FileKind.SEGMENT, f"{store}: '{name}' was removed"
                if starts:
                    number = parsed.number(SEGMENT_BYTES)
                    assert number < min(starts), f"{store}: '{name}' was removed and a base backup needs it"
                else:  # without a base backup the file's age decides
                    assert self.spooled_at[name] < window_begins_at, f"{store}: '{name}' was removed and is young"
                self.expired.add((store, name))

    def good_on(self) -> dict[str, set[str]]:
        """Return the names of the good copies of each store."""
        held = {store: self.held(store) for store in STORES}
        return {
            store: {name for name in self.truth if held[store].get(name) == digest(self.truth[name])}
            for store in STORES
        }

    def _backup_starts(self, store: str) -> list[int]:
        """Return the numbers of the segments in which the whole base backups of a store begin."""
        return [self.backups.start_of(one) for one in self.backups.whole_on(store)]


@lru_cache(maxsize=200)
def content_digest(stored: bytes, codec: Codec) -> str:
    """Return the SHA-256 of the content of stored bytes."""
    return digest(open_stored(stored, codec, encrypted=False, max_size_bytes=SEGMENT_BYTES))


@lru_cache(maxsize=200)
def digest(data: bytes) -> str:
    """Return a SHA-256 as hex digits."""
    return hashlib.sha256(data).hexdigest()


def fast_folder() -> Path:
    """Make a folder in memory where that is possible, because a thousand small writes are synced."""
    memory = Path("/dev/shm")  # noqa: S108 - made by mkdtemp
    return Path(tempfile.mkdtemp(prefix="wal-pipeline-stateful-", dir=memory if os.access(memory, os.W_OK) else None))
