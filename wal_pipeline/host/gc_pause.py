"""Stops Python's garbage collector while many records are made, and lets it run seldom in a command."""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_YOUNG_OBJECTS: Final = 50_000


@contextmanager
def many_objects() -> Iterator[None]:
    """Keep Python's cycle collector from running while many rows become records.

    Records hold no cycles, yet each collection walks all of them again: without this 100,000 files take 1.4 s, not 0.9.
    Afterwards they count as old: the next small collection would otherwise walk all of them, for half a second.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.freeze()  # puts every object aside without a look at it,
            gc.unfreeze()  # and from there among the oldest
            gc.enable()


def collect_seldom() -> None:
    """Let Python's cycle collector run seldom in this process, and not at its end.

    For processes that end soon: by default it looks after each 700 new objects, which makes a tenth of the imports'
    time, and at the end at everything once more, for a quarter to half a second.
    """
    gc.set_threshold(_YOUNG_OBJECTS, *gc.get_threshold()[1:])
    atexit.register(gc.freeze)
