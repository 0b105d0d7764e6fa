"""Wait until the WAL that a base backup needs is on a store: only then is the copy there restorable."""

import logging
import time
from collections.abc import Callable, Collection, Sequence
from typing import Final

from wal_pipeline.archive.base_backup import BaseBackupManifest
from wal_pipeline.archive.layout import Layout
from wal_pipeline.commands.refill import read_source
from wal_pipeline.errors import (
    BaseBackupError,
    DamagedCopyError,
    InvalidWalFileError,
    ObjectMissingError,
    StoreUnavailableError,
)
from wal_pipeline.stores.base import Store
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


def stored_names(store: Store, layout: Layout) -> VerifiedNames:
    """Read the store's own copies: one whose bytes have the SHA-256 of its metadata is verified, recorded or not.

    It is how WAL is found that the catalog does not know, because it was lost meanwhile.
    """

    def found(names: Sequence[WalFileName]) -> set[str]:
        return {name.name for name in names if _is_good(store, layout, name)}

    return found


def _is_good(store: Store, layout: Layout, name: WalFileName) -> bool:
    try:
        return read_source(store, layout, name) is not None
    except (DamagedCopyError, ObjectMissingError, InvalidWalFileError) as error:
        _log.warning("%s", error.message)
        return False


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
