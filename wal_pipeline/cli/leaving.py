"""Makes an exception of the first SIGTERM, so that a command removes what it made before it ends."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def leaving_in_order() -> Iterator[None]:
    """Leave the block by an exception at SIGTERM: a scratch server is stopped, and its copy of the cluster removed.

    By default the process just ends, and both stay until the next use of the folder.
    """

    def leave(number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what follows is that clean-up
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
