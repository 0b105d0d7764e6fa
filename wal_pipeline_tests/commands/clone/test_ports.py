"""A port in use is told with who uses it."""

import os
import socket
from pathlib import Path

import pytest

from wal_pipeline.commands.clone.ports import LOOPBACK, free_port, listener_on, try_port


def test_a_port_in_use() -> None:
    """It cannot be bound, and the process that listens is named."""
    with socket.socket() as other:
        other.bind((LOOPBACK, 0))
        other.listen()
        port = int(other.getsockname()[1])
        with pytest.raises(OSError, match="Address already in use"):
            try_port(port)
        name = (Path("/proc") / str(os.getpid()) / "comm").read_text().strip()
        assert listener_on(port) == f"process {os.getpid()} ({name})"


def test_a_free_port() -> None:
    """It can be bound, and nobody is named."""
    port = free_port()
    try_port(port)
    assert listener_on(port) is None
