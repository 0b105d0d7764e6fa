"""Finds free loopback ports, and keeps each for one test process of the machine."""

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

LOOPBACK = "127.0.0.1"
GRPC_OFFSET = 10_000
"""SeaweedFS serves gRPC on each of its ports plus this."""

# Both the port and port + GRPC_OFFSET stay below 32768, where Linux begins to hand out ports to outgoing
# connections: a restarted server finds its ports free again.
_LOWEST, _HIGHEST = 11_000, 22_700
_held_locks: dict[int, int] = {}


def free_ports(count: int) -> tuple[int, ...]:
    """Return ``count`` ports that are free together with their gRPC neighbours, and keep both for this process."""
    candidates = random.sample(range(_LOWEST, _HIGHEST), _HIGHEST - _LOWEST)
    ports: list[int] = []
    for port in candidates:
        if len(ports) == count:
            break
        if _is_free(port) and _is_free(port + GRPC_OFFSET) and _lock_pair(port):
            ports.append(port)
    if len(ports) < count:
        raise RuntimeError(f"found {len(ports)} free ports, expected {count}")
    return tuple(ports)


def free_port() -> int:
    """Return one free port and keep it for this process."""
    return free_ports(1)[0]


def listens(port: int) -> bool:
    """Whether a server answers at a port of this machine."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((LOOPBACK, port)) == 0


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _lock_pair(port: int) -> bool:
    """Lock a port and its gRPC neighbour: a server that is not started yet must find both free."""
    if not _lock(port):
        return False
    if _lock(port + GRPC_OFFSET):
        return True
    os.close(_held_locks.pop(port))
    return False


def _lock(port: int) -> bool:
    """Lock the port's file. The kernel releases the lock however this process ends."""
    if port in _held_locks:
        return False
    folder = Path(tempfile.gettempdir()) / f"wal-pipeline-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    lock = os.open(folder / str(port), os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return False
    _held_locks[port] = lock
    return True
