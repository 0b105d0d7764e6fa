"""Makes files and folders of another operating-system user."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NOBODY = 65534


def as_nobody(action: Callable[[], object]) -> str:
    """Call a function as another user, in a process of its own, and return the error that it raised."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        try:
            action()
        except BaseException as error:  # noqa: BLE001
            os.write(writer, str(error).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as told:
        return told.read().decode()


@contextmanager
def nobodys_folder(name: str) -> Iterator[Path]:
    """Yield a folder of another user, which everyone can reach; skip where that needs root."""
    if os.geteuid() != 0:
        pytest.skip("another user's folder needs root")
    with tempfile.TemporaryDirectory(dir="/tmp") as parent:
        Path(parent).chmod(0o755)
        folder = Path(parent) / name
        folder.mkdir(mode=0o700)
        os.chown(folder, NOBODY, NOBODY)
        yield folder
