"""Stops the server that runs in a data directory of ours, and no other process."""

import os
import select
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

from wal_pipeline.errors import RestoreError
from wal_pipeline.postgres.postmaster import works_in

_STOP_SECONDS: Final = 60.0


def stop_server_in(pgdata: Path, *, whose: str, hint: str) -> None:
    """Stop the server that runs in a data directory: fast, then at once; nothing where none does.

    Its pid may have gone to another process since: it counts only if postmaster.pid names this data directory and the
    process works in it, as a postmaster does. The signal goes through a pidfd, which can mean no other process.

    Raises: RestoreError where it goes on; ``whose`` names its user there, such as ``a drill that was killed``.
    """
    try:
        lines = (pgdata / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()
        pid, named = int(lines[0]), Path(lines[1])
        process = os.pidfd_open(pid)
    except (FileNotFoundError, ProcessLookupError, ValueError, IndexError):
        return
    try:
        if named.resolve() != pgdata.resolve() or not works_in(pid, pgdata):
            return
        ended = select.poll()
        ended.register(process, select.POLLIN)
        for how, seconds in ((signal.SIGINT, _STOP_SECONDS), (signal.SIGQUIT, _STOP_SECONDS / 4)):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, how)
            if ended.poll(1000 * seconds):
                return
    finally:
        os.close(process)
    raise RestoreError(f"the server of {whose}, process {pid} in '{pgdata}', does not stop", hint=hint)
