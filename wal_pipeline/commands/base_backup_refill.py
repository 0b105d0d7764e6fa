"""Bring a base backup to a store that lacks it, from whichever other store has it whole."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from wal_pipeline.archive.layout import Layout
from wal_pipeline.commands.base_backup_copy import RefillResult, refill_base_backup
from wal_pipeline.commands.base_backup_lane import UploadLimits
from wal_pipeline.commands.base_backup_records import BaseBackupRecorder, StoreOutcome
from wal_pipeline.errors import BaseBackupError, StoreError
from wal_pipeline.stores.base import Store

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RefillOutcome:
    """A refill, and whether the base backup can be restored from its destination now."""

    result: RefillResult
    store: StoreOutcome


def refill_store(
    backup_id: str,
    destination: str,
    stores: Mapping[str, Store],
    layout: Layout,
    recorder: BaseBackupRecorder,
    *,
    limits: UploadLimits | None = None,
    read_back: bool = True,
    on_bytes: Callable[[int], object] = lambda _: None,
) -> RefillOutcome:
    """Refill a base backup on ``destination`` from the first other store whose copy is good; record it.

    An incremental base backup's chain is not refilled with it: refill that first, oldest first.

    Raises: BaseBackupError where no other store has a good copy; StoreError of the destination.
    """
    reasons = []
    for name, source in stores.items():
        if name == destination:
            continue
        try:
            result = refill_base_backup(
                backup_id,
                source,
                stores[destination],
                layout,
                limits=limits,
                read_back=read_back,
                on_bytes=on_bytes,
            )
        except (StoreError, BaseBackupError) as error:
            if isinstance(error, StoreError) and error.store == destination:
                raise
            _log.warning("%s", error.message)
            reasons.append(error.message)
        else:
            [settled] = recorder.settle(result.manifest, layout, [StoreOutcome(destination, stored=True)])
            return RefillOutcome(result, settled)
    raise BaseBackupError(
        f"base backup '{backup_id}' cannot be refilled on {destination}: {'; '.join(reasons) or 'no other store'}",
        hint="Take a new base backup.",
    )
