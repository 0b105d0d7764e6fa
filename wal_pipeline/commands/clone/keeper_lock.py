"""Tells whether a clone has a keeper: the kernel's lock on a file, which goes with the keeper however that ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from wal_pipeline.commands.clone.folder import KEEPER, CloneFolder
from wal_pipeline.host.process_identity import own_identity


def is_kept(folder: CloneFolder) -> bool:
    """Return whether a keeper lives: no number of a process is compared, which may be another one's since."""
    try:
        descriptor = os.open(folder.path / KEEPER, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def keeping(folder: CloneFolder) -> Iterator[bool]:
    """Be a clone's keeper in the block; False where it has one. Its identity stands in the file, for people."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(folder.path / KEEPER, flags, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        os.truncate(descriptor, 0)
        os.write(descriptor, own_identity().encode() + b"\n")
        yield True
    finally:
        os.close(descriptor)
