"""Lets one shipper at a time work for a cluster on this host, by a lock in the state folder."""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wal_pipeline.errors import ShipperBusyError, ShippingError, cause_hint
from wal_pipeline.host.file_owner import give_to_folder_owner, owner_trouble


class ShipLock:
    """The lock of a cluster's shipper. The kernel gives it back when its process ends in any way."""

    def __init__(self, state_folder: Path, cluster: str) -> None:
        """Several clusters may share a state folder: each has a lock of its own."""
        name = "ship.lock" if cluster == "main" else f"ship.{re.sub('[^A-Za-z0-9._-]', '_', cluster)}.lock"
        self.path = state_folder / name
        self._cluster = cluster

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock. Raises: ShipperBusyError where another shipper has it, ShippingError."""
        descriptor = self._open()
        try:
            if not _locked(descriptor, fcntl.LOCK_EX):
                raise ShipperBusyError(
                    f"the WAL of cluster '{self._cluster}' is being shipped by another process, which holds "
                    f"'{self.path}'",
                    hint="One shipper is enough. 'fuser' or 'lsof' shows which process it is.",
                )
            yield
        finally:
            os.close(descriptor)

    def is_held(self) -> bool:
        """Whether a shipper is at work now; False where that cannot be seen."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return not _locked(descriptor, fcntl.LOCK_SH)
        finally:
            os.close(descriptor)

    def _open(self) -> int:
        """Open the file for reading, which is enough to lock it: whoever made it can be another user."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        except OSError as error:
            trouble = owner_trouble([self.path, self.path.parent], os.R_OK)
            raise ShippingError(
                f"lock '{self.path}' cannot be made: {error.strerror}",
                hint=cause_hint(error)
                or trouble
                or "WAL_PIPELINE_STATE_DIR must be a folder that this user can write.",
            ) from error
        give_to_folder_owner(self.path)
        return descriptor


def _locked(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
