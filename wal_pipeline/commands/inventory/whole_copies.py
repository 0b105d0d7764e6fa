"""Looks at whole segments' copies on which a plan counts: one that a store has damaged is not taken for the segment."""

import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from wal_pipeline.archive.format.object_metadata import from_metadata
from wal_pipeline.archive.format.words import FORMAT, METADATA_MARK
from wal_pipeline.archive.records import Encoding
from wal_pipeline.archive.recovery.coverage import ArchiveContents
from wal_pipeline.archive.recovery.restore_plan import RestorePlan
from wal_pipeline.archive.recovery.tail import HeldPiece, join_pieces
from wal_pipeline.commands.archive_get.wal_source import (
    UnopenedCopyError,
    WalSource,
    WalUnreachableError,
)
from wal_pipeline.commands.copies.pieces import describe_pieces
from wal_pipeline.commands.copies.prove import look_twice, prove
from wal_pipeline.commands.copies.stored_bytes import require_wal_size
from wal_pipeline.commands.inventory.listing import StoreListing
from wal_pipeline.errors import (
    DamagedCopyError,
    InvalidWalFileError,
    ObjectMissingError,
    StoreError,
    StoreUnavailableError,
    WalPipelineError,
)
from wal_pipeline.stores.base import Store, StoredObject
from wal_pipeline.stores.cluster_store import ClusterStore

_LAST_MEASURED: Final = 16  # at a plan's end: what may have been stored and not proven when the host was lost
_LAST_READ: Final = 4
_MOST_LOOKED_AT: Final = 128  # segments, for all plans of one inventory; the others count as they are listed
_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class DamagedWholeCopy:
    """A copy of the segment ``name`` that was looked at twice, and is not what was stored; ``fault`` says how."""

    name: str
    store: str
    object_key: str
    fault: StoreError

    def __str__(self) -> str:
        """Return the sentence for the plan's notes."""
        return f"{self.fault.message}: this copy is left out of the plan"


@dataclass(slots=True)
class WholeCopies:
    """Proves the copies of a plan's whole segments that matter, and keeps the verdict for the next plan.

    Pieces of a segment go when its whole copies are proven. So each whole segment of which pieces are left is looked
    at, and the last ones of the plan anyway, because they were stored when the host was lost. Copies are compared with
    the size in their metadata; of the very last segments, and those with pieces, one copy is proven by its bytes. What
    a store does not answer stays unknown, and such a copy counts as it is listed: recovery stops with an error there.
    """

    listings: Mapping[str, StoreListing]
    source: WalSource
    _read: dict[str, bool] = field(default_factory=dict)  # the names that were looked at, and whether by their bytes
    _damaged: dict[tuple[str, str], DamagedWholeCopy] = field(default_factory=dict)
    _silent: set[str] = field(default_factory=set)
    _pieces: dict[str, tuple[HeldPiece, ...]] = field(default_factory=dict)
    _opening: threading.Lock = field(default_factory=threading.Lock)

    @property
    def damaged(self) -> tuple[DamagedWholeCopy, ...]:
        """The damaged copies that were found so far."""
        return tuple(self._damaged.values())

    def look_at(self, plan: RestorePlan) -> tuple[DamagedWholeCopy, ...]:
        """Look at a plan's whole segments, each once, and return the damaged copies that were not known before."""
        made = {tail.segment.name for tail in plan.tails}
        whole = [file.name for file in reversed(plan.wal) if file.name not in made]
        begun = {name for listing in self.listings.values() for name in listing.pieces}
        read = dict.fromkeys([*whole[:_LAST_READ], *(name for name in whole if name in begun)])
        wanted = [(name, name in read) for name in dict.fromkeys([*read, *whole[:_LAST_MEASURED]])]
        new = [(name, by_bytes) for name, by_bytes in wanted if not self._is_known(name, by_bytes=by_bytes)]
        known = len(self._damaged)
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="look-at-copy") as pool:
            found = pool.map(
                lambda one: self._look(one[0], by_bytes=one[1]), new[: max(0, _MOST_LOOKED_AT - len(self._read))]
            )
            for (name, by_bytes), damaged in zip(new, found, strict=False):
                self._read[name] = by_bytes
                self._damaged.update({(one.store, one.object_key): one for one in damaged})
        return self.damaged[known:]

    def without(self, contents: ArchiveContents, refused: Mapping[str, str]) -> ArchiveContents:
        """Return the archive without the damaged copies, and with the pieces that count in their place.

        ``refused`` are segments that no plan may pass into, with the reason; those of which neither a good copy nor a
        beginning in pieces is left are added. All other breaks are to be looked for again.

        Raises: WalUnreachableError where a store does not tell its pieces of such a segment.
        """
        reasons = {one.name: one.fault.message for one in self.damaged}
        copies = {
            store: names - {name for name in reasons if not self.items(store, name)}
            for store, names in contents.copies.items()
        }
        lost = {name for name in reasons if not any(name in names for names in copies.values())}
        pieces = {**contents.tails}
        pieces |= {name: self._pieces_of(name) for name in sorted(lost - pieces.keys() - refused.keys())}
        breaks = {name: reasons[name] for name in lost if not _begins(pieces.get(name, ()))} | {**refused}
        return ArchiveContents.of(
            contents.system_identifier,
            files=[file for name, file in contents.files.items() if name not in lost],
            copies=copies,
            backups=contents.backups.values(),
            histories=contents.histories,
            breaks=breaks,
            arriving=contents.arriving,
            tails=[one for name, held in pieces.items() if name not in breaks for one in held],
        )

    def refused_after(self, plan: RestorePlan, contents: ArchiveContents) -> dict[str, str]:
        """Return the segment that recovery would ask for after the plan's last one, where no good copy of it is left.

        Recovery would stop there with an error instead of ending. It is there in pieces that the plan does not use.
        """
        if not plan.wal or (plan.tail is not None and not plan.tail.is_whole):
            return {}
        name = contents.paths[plan.timeline].name(contents.number(plan.wal[-1].name) + 1)
        if name in contents.breaks or any(name in names for names in contents.copies.values()):
            return {}
        return {one.name: one.fault.message for one in self.damaged if one.name == name}

    def items(self, store: str, name: str) -> tuple[StoredObject, ...]:
        """Return a store's objects of a file without the damaged ones."""
        return tuple(item for item in self.listings[store].wal.get(name, ()) if (store, item.key) not in self._damaged)

    def _is_known(self, name: str, *, by_bytes: bool) -> bool:
        return name in self._read and (self._read[name] or not by_bytes)

    def _pieces_of(self, name: str) -> tuple[HeldPiece, ...]:
        """Return the pieces of a segment that each store seemed to have whole, so that nobody asked for them yet."""
        if name not in self._pieces:
            found: list[HeldPiece] = []
            for store in self.source.stores:
                keys = [item.key for item in self.listings[store.name].pieces.get(name, ())]
                try:
                    found += describe_pieces(ClusterStore(store, self.source.layout), keys)[0]
                except StoreError as error:
                    raise WalUnreachableError(name, [error]) from error
            self._pieces[name] = tuple(found)
        return self._pieces[name]

    def _look(self, name: str, *, by_bytes: bool) -> list[DamagedWholeCopy]:
        """Return a segment's damaged copies. Its bytes are read until one copy is proven."""
        found: list[DamagedWholeCopy] = []
        is_proven = not by_bytes
        for store in self.source.stores:
            for item in self.items(store.name, name):
                if store.name in self._silent:
                    continue
                try:
                    self._require_good(store, item.key, name, read_back=not is_proven)
                except StoreUnavailableError:
                    self._silent.add(store.name)  # no plan waits for it again and again
                except UnopenedCopyError:
                    continue
                except DamagedCopyError as error:
                    found.append(DamagedWholeCopy(name, store.name, item.key, error))
                except WalPipelineError:
                    continue  # gone, or refused: what the recovery asks for will say so
                else:
                    is_proven = True
        return found

    def _require_good(self, store: Store, key: str, name: str, *, read_back: bool) -> None:
        """Look at a copy, twice before it is damaged. Raises: DamagedCopyError; others where that is not known."""
        described = look_twice(lambda: store.head(key))
        if described is None:
            raise ObjectMissingError(store.name, f"object '{key}' does not exist")
        if METADATA_MARK in described.metadata:
            encoding = self._encoding(store, described, name)
            require_wal_size(store, key, described.size_bytes)
            prove(store, key, encoding, read_back=read_back)
        elif read_back:  # its size tells nothing; opened copies are held in memory, so one at a time
            with self._opening:
                look_twice(lambda: self.source.open_copy(store, key))

    def _encoding(self, store: Store, described: StoredObject, name: str) -> Encoding:
        key = described.key
        try:
            file, encoding = from_metadata(key, described.metadata)
        except InvalidWalFileError as error:
            is_later = described.metadata[METADATA_MARK] != FORMAT
            kind = UnopenedCopyError if is_later else DamagedCopyError
            raise kind(store.name, error.message, hint=error.hint) from error
        if (file.name, file.system_identifier) != (name, self.source.layout.system_identifier):
            raise DamagedCopyError(
                store.name,
                f"object '{key}' has metadata of '{file.name}' of system identifier {file.system_identifier}, "
                f"expected '{name}' of {self.source.layout.system_identifier}",
            )
        return encoding


def _begins(pieces: Iterable[HeldPiece]) -> bool:
    tail = join_pieces(pieces)
    return tail is not None and tail.end_offset > 0
