"""Waits beside a clone until its time is over and ends it, in a process of its own."""

import logging
import os
import select
import subprocess
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from wal_pipeline.commands.clone.end import CloneEnder
from wal_pipeline.commands.clone.folder import CloneFolder
from wal_pipeline.commands.clone.keeper_lock import keeping
from wal_pipeline.errors import RestoreError

READY: Final = b"kept\n"
_LOOK_SECONDS: Final = 1.0  # a host that slept, or a clock that was set, must not make a clone outlive its end
_RETRY_SECONDS: Final = 60.0
_START_SECONDS: Final = 60.0
_log = logging.getLogger(__name__)


def keep_clone(
    folder: CloneFolder, ender: CloneEnder, clock: Callable[[], datetime], on_ready: Callable[[], None]
) -> None:
    """Return when the clone is gone: ended by us at its time, or stopped by a person. At once where it is kept already.

    What cannot be removed is tried again.
    """
    with keeping(folder) as ours:
        on_ready()
        while ours and folder.is_marked:
            try:
                record = folder.read()
                if record is not None and clock() >= record.ends_at and ender.end_if_over(folder.name):
                    return
                time.sleep(_LOOK_SECONDS)
            except RestoreError as error:
                if folder.is_marked:
                    _log.warning("%s", error)
                    time.sleep(_RETRY_SECONDS)


def start_keeper(folder: CloneFolder, command: Sequence[str]) -> None:
    """Start a clone's keeper in a session of its own, and return when it keeps. ``command`` is this program's.

    Raises: RestoreError where it does not.
    """
    try:
        process = subprocess.Popen(
            [*command, "clone", "keep", folder.name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise RestoreError(f"the keeper of the clone '{folder.name}' cannot be started: {error}") from error
    said = b""
    with process.stdout or open(os.devnull, "rb") as stdout:  # noqa: PTH123 - only where Popen broke its word
        if select.select([stdout], [], [], _START_SECONDS)[0]:
            said = stdout.readline()
    if said != READY:
        process.kill()
        process.wait()
        raise RestoreError(
            f"the keeper of the clone '{folder.name}', which ends it at its time, did not start",
            hint=f"Look what it says: {' '.join([*command, 'clone', 'keep', folder.name])}",
        )
