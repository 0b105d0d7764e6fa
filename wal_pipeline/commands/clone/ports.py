"""Tells who listens on a TCP port of this machine, by /proc."""

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from wal_pipeline.text import shown_name

LOOPBACK: Final = "127.0.0.1"
_PROC: Final = Path("/proc")
_LISTEN: Final = "0A"  # include/net/tcp_states.h: TCP_LISTEN


def free_port() -> int:
    """Return a port of the loopback interface on which nobody listens now. Raises: OSError."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def try_port(port: int) -> None:
    """Bind a port of the loopback interface for a moment, as PostgreSQL will. Raises: OSError where that fails."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((LOOPBACK, port))
        probe.listen(1)


def listener_on(port: int) -> str | None:
    """Return the process that listens on a port, in a person's words; None where it cannot be seen from here."""
    inodes = {f"socket:[{inode}]" for inode in _listening(port)}
    for process in _PROC.iterdir() if inodes and _PROC.is_dir() else ():
        if not process.name.isdigit():
            continue
        with suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                if os.readlink(descriptor) in inodes:  # noqa: PTH115 - such a link is no path
                    name = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
                    return f"process {process.name} ({shown_name(name)})"
    return None


def _listening(port: int) -> Iterator[str]:
    """Yield the inodes of the sockets that listen on a port, of any address."""
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (_PROC / "net" / table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]
