"""Waits until a base backup can be restored from each store, and records it."""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from wal_pipeline.archive.format.base_backup.manifest import BaseBackupManifest
from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.records import Copy, CopyStatus
from wal_pipeline.catalog.backups import BaseBackupCopy
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.commands.backup.confirm import require_whole
from wal_pipeline.commands.copies.read import read_source
from wal_pipeline.commands.inventory.manifests import read_base_backup
from wal_pipeline.errors import (
    BaseBackupError,
    CatalogError,
    DamagedCopyError,
    InvalidWalFileError,
    ObjectMissingError,
    StoreError,
    StoreUnavailableError,
)
from wal_pipeline.stores.base import Store
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.names import WalFileName

_SHOWN: Final = 3
_log = logging.getLogger(__name__)
# Given names of segments, says which of them have a verified copy on the store in question.
VerifiedNames = Callable[[Sequence[WalFileName]], Collection[str]]


def await_wal(
    manifest: BaseBackupManifest,
    store: str,
    verified_names: VerifiedNames,
    *,
    timeout_seconds: float,
    poll_seconds: float = 1.0,
    archive: Callable[[], object] | None = None,
) -> None:
    """Return once every segment from the base backup's start to its stop has a verified copy on ``store``.

    ``archive`` is called before each look: it may bring the spool's files to the stores where nothing else does so.
    A store that does not answer is asked again until the time is over.

    Raises: BaseBackupError, which names the segments that are missing.
    """
    missing = list(manifest.required_segments)
    unavailable: StoreUnavailableError | None = None
    deadline = time.monotonic() + timeout_seconds
    while True:
        if archive is not None:
            archive()
        try:
            present = verified_names(missing)
            missing = [name for name in missing if name.name not in present]
            unavailable = None
        except StoreUnavailableError as error:
            unavailable = error
        if not missing:
            return
        if time.monotonic() >= deadline:
            raise _late(manifest, store, missing, timeout_seconds) from unavailable
        time.sleep(poll_seconds)


def stored_names(place: ClusterStore, wal_segment_size: int) -> Callable[[Sequence[WalFileName]], set[str]]:
    """Read the store's own copies: one whose bytes have the SHA-256 of its metadata is verified, recorded or not.

    It is how WAL is found that the catalog does not know, because it was lost meanwhile.
    """

    def found(names: Sequence[WalFileName]) -> set[str]:
        return {name.name for name in names if _is_good(place, name, wal_segment_size)}

    return found


def _is_good(place: ClusterStore, name: WalFileName, wal_segment_size: int) -> bool:
    try:
        found = read_source(place, name)
    except (DamagedCopyError, ObjectMissingError, InvalidWalFileError) as error:
        _log.warning("%s", error.message)
        return False
    return found is not None and found.file.size_bytes == wal_segment_size


def _late(
    manifest: BaseBackupManifest, store: str, missing: Sequence[WalFileName], timeout_seconds: float
) -> BaseBackupError:
    names = ", ".join(f"'{name.name}'" for name in missing[:_SHOWN])
    more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
    return BaseBackupError(
        f"{store}: base backup '{manifest.backup_id}' is not restorable after {timeout_seconds:g} seconds: "
        f"expected verified copies of {len(manifest.required_segments)} segments, missing {names}{more}",
        hint="The base backup is kept. It becomes restorable once its WAL is archived: look at 'wal-pipeline status'.",
    )


ASK_STORE_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class StoreOutcome:
    """One store after a base backup: ``stored`` is the copy, ``restorable`` the copy with all that it needs there."""

    store: str
    stored: bool
    restorable: bool = False
    error: str | None = None


class BaseBackupRecorder:
    """Finds out from which stores a base backup can be restored, and tells the catalog.

    The copies count whether or not the catalog can be told: it can be made again from the stores.
    """

    def __init__(
        self,
        stores: Mapping[str, Store],
        catalog: Catalog,
        clock: Callable[[], datetime],
        *,
        wal_timeout_seconds: float,
        archive: Callable[[], object] | None,
    ) -> None:
        """``archive`` brings waiting WAL to the stores where no other process does."""
        self._stores = stores
        self._catalog = catalog
        self._clock = clock
        self._wal_timeout_seconds = wal_timeout_seconds
        self._archive = archive

    def settle(
        self, manifest: BaseBackupManifest, layout: Layout, outcomes: Sequence[StoreOutcome]
    ) -> tuple[StoreOutcome, ...]:
        """Record the copies, wait on each store for what a restore needs, record that, and return it."""
        self._record(manifest, outcomes)
        settled = tuple(self._settled(manifest, layout, outcome) for outcome in outcomes)
        self._record(manifest, settled)
        return settled

    def _settled(self, manifest: BaseBackupManifest, layout: Layout, outcome: StoreOutcome) -> StoreOutcome:
        if not outcome.stored:
            return outcome
        place = ClusterStore(self._stores[outcome.store], layout)
        names = verified_names(self._catalog, place, manifest.wal_segment_size)
        try:
            require_whole(place, manifest)
        except BaseBackupError as error:
            return replace(outcome, stored=False, error=error.message)
        except StoreError as error:
            return replace(outcome, error=error.message)
        try:
            _require_chain(place, manifest)
            await_wal(
                manifest,
                outcome.store,
                names,
                timeout_seconds=self._wal_timeout_seconds,
                archive=self._archive,
            )
        except (BaseBackupError, CatalogError, StoreError) as error:
            return replace(outcome, error=error.message)
        return replace(outcome, restorable=True)

    def _record(self, manifest: BaseBackupManifest, outcomes: Sequence[StoreOutcome]) -> None:
        copies = [self._copy(manifest, outcome) for outcome in outcomes]
        try:
            self._catalog.base_backups.record(manifest.record(), copies)
        except CatalogError as error:
            _log.warning("base backup '%s' is stored and not in the catalog: %s", manifest.backup_id, error.message)

    def _copy(self, manifest: BaseBackupManifest, outcome: StoreOutcome) -> BaseBackupCopy:
        return BaseBackupCopy(
            backup_id=manifest.backup_id,
            system_identifier=manifest.system_identifier,
            store=outcome.store,
            status=CopyStatus.VERIFIED if outcome.stored else CopyStatus.FAILED,
            objects=len(manifest.objects) + 1 if outcome.stored else 0,
            stored_size_bytes=manifest.stored_size_bytes if outcome.stored else 0,
            restorable_at=self._clock() if outcome.restorable else None,
            last_error=outcome.error,
            verified_at=self._clock() if outcome.stored else None,
        )


def verified_names(catalog: Catalog, place: ClusterStore, wal_segment_size: int) -> VerifiedNames:
    """Ask the catalog which segments have a verified copy, and the store whether it has them; now and then only itself.

    A record alone proves nothing: the object may be gone since. A catalog that was lost meanwhile does not know what
    was archived before, and never will by itself.
    """
    in_store = stored_names(place, wal_segment_size)
    seen = _SeenObjects(place)
    ask_at = time.monotonic() + ASK_STORE_SECONDS

    def found(names: Sequence[WalFileName]) -> set[str]:
        nonlocal ask_at
        recorded = catalog.files.copies_of([name.name for name in names])
        ours = {
            name: copies[place.name]
            for (identifier, name), copies in recorded.items()
            if identifier == place.layout.system_identifier and place.name in copies
        }
        recorded_good = {name: copy for name, copy in ours.items() if copy.status is CopyStatus.VERIFIED}
        asks_again = time.monotonic() >= ask_at
        verified = seen.among(recorded_good, again=asks_again)
        unknown = [name for name in names if name.name not in ours]
        if asks_again:
            verified |= in_store(unknown)
            ask_at = time.monotonic() + ASK_STORE_SECONDS
        return verified

    return found


class _SeenObjects:
    """Looks at a store for the objects of recorded copies: a listing for each folder of segments that are asked for."""

    def __init__(self, place: ClusterStore) -> None:
        self._place = place
        self._missed: set[str] = set()

    def among(self, copies: Mapping[str, Copy], *, again: bool) -> set[str]:
        """Return the names whose objects are there; one that was not is looked for again only where ``again``."""
        wanted = {name: copy for name, copy in copies.items() if again or name not in self._missed}
        listed: dict[str, int] = {}
        for folder in sorted({copy.object_key.rpartition("/")[0] for copy in wanted.values()}):
            listed |= {item.key: item.size_bytes for item in self._place.store.list(f"{folder}/")}
        seen = {name for name, copy in wanted.items() if _has_size(copy, listed.get(copy.object_key))}
        for name in sorted(wanted.keys() - seen - self._missed):
            _log.warning("%s: '%s' is recorded as verified and is not there", self._place.name, name)
        self._missed |= wanted.keys() - seen
        return seen


def _has_size(copy: Copy, size_bytes: int | None) -> bool:
    return size_bytes is not None and (copy.encoding is None or copy.encoding.size_bytes == size_bytes)


def _require_chain(place: ClusterStore, manifest: BaseBackupManifest) -> None:
    """An incremental base backup without its whole chain on the same store cannot be restored from there."""
    for backup_id in manifest.chain:
        try:
            require_whole(place, read_base_backup(place, backup_id))
        except ObjectMissingError:
            reason = "which is not there"
        except BaseBackupError as error:
            reason = f"which is not whole there: {error.message.removeprefix(f'{place.name}: ')}"
        else:
            continue
        raise BaseBackupError(
            f"{place.name}: base backup '{manifest.backup_id}' needs '{backup_id}', {reason}",
            hint="Refill it from the other store.",
        )
