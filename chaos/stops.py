"""Judges a recovery that stopped: whether it says why, and whether the stores that answered left it no other way.

A stop is honest only with a fault on: the file that could not be had is then named with the store, and nobody who
answers with the truth could have served it.
"""

import gzip
import re
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from chaos.schedule import STORES
from chaos.world import World
from testbed.postgres import PostgresCluster

_LARGEST_MEANING_ABSENT = 125  # xlogarchive.c: above it the server stops, up to it recovery ends as at the end
_STOPPED = re.compile(r'could not restore file "([^"]+)" from archive: child process exited with exit code (\d+)')
_ERROR = re.compile(r"^wal-pipeline archive-get: ERROR: (.*?)^HINT: ", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"^(\w+): (.*)$", re.MULTILINE)
_OBJECT = re.compile(r"object '([^']+)'")
_PIECE = re.compile(r"/tail/[0-9A-F]{8}/[0-9A-F]{24}/([0-9A-F]{8})-([0-9A-F]{8})\.gz\Z")


@dataclass(frozen=True, slots=True)
class Faults:
    """The faults that are on while a server recovers: a store that lies about its pieces, stores that are cut off."""

    lying: str | None = None
    cut_off: frozenset[str] = frozenset()

    @property
    def stores(self) -> frozenset[str]:
        """The stores that one of them is on."""
        return self.cut_off | ({self.lying} if self.lying is not None else frozenset())


@dataclass(frozen=True, slots=True)
class Stop:
    """The stop of a recovery, as the server's log tells it.

    ``name`` is the file that could not be had, ``named`` what the last error says of each store, ``objects`` the keys
    in it.
    """

    name: str
    exit_code: int
    named: tuple[str, ...]
    objects: tuple[str, ...]


def read_stop(log: str) -> Stop | None:
    """Read the last stop in a server's log; None where it does not say that a file could not be restored."""
    stopped = list(_STOPPED.finditer(log))
    if not stopped:
        return None
    name, code = stopped[-1].groups()
    said = [text for text in _ERROR.findall(log) if text.startswith(f"'{name}'")]
    last = said[-1] if said else ""
    named = tuple(store for store, _ in _NAMED.findall(last) if store in STORES)
    return Stop(name, int(code), named, tuple(_OBJECT.findall(last)))


def faults_of_stop(stop: Stop, faults: Faults, *, left_out: str) -> Iterator[str]:
    """Yield what a stop does not say or should not do. ``left_out``: the plan's words on what it does not count on."""
    if stop.exit_code <= _LARGEST_MEANING_ABSENT:
        yield f"exit code {stop.exit_code} is the end of the archive for PostgreSQL, expected more than 125"
    if not faults.stores.intersection(stop.named):
        yield f"no error names '{stop.name}' with a store that has a fault ({', '.join(sorted(faults.stores))})"
    pieces = [key for key in stop.objects if "/tail/" in key]
    if not faults.cut_off and not pieces:
        yield "no error names the piece that cannot be used"
    for key in pieces:
        if f"object '{key}'" in left_out:
            yield f"the plan had left '{key}' out, and nothing needed it: a restore that is planned again stops again"


def opened(cluster: PostgresCluster) -> bool:
    """Whether a restored server that does not run any more had opened: it then removes its signal file."""
    log = cluster.log.read_text(errors="replace")
    return "archive recovery complete" in log or not (cluster.pgdata / "recovery.signal").exists()


def could_be_served(world: World, name: str, faults: Faults) -> str | None:
    """Return who could have served a file in spite of the faults, as a sentence; None where nobody could.

    A store that lies about its pieces still has its whole segments. While a store is cut off, nobody can know that it
    has no whole one, so that pieces do not do.
    """
    for store in STORES:
        if store not in faults.cut_off and _has_whole(world, store, name):
            return f"{store} has '{name}' as a whole"
    if faults.cut_off:
        return None
    honest = tuple(store for store in STORES if store != faults.lying)
    reached, promised = _reach(world, honest, name), _reach(world, STORES, name)
    if reached < promised:
        return None
    return f"good pieces on {' and '.join(honest)} are the first {reached} bytes of '{name}', and nobody has more"


def _has_whole(world: World, store: str, name: str) -> bool:
    keys = [key for key in _keys(world, store) if "/wal/" in key and key.endswith(f"/{name}.gz")]
    return any(_content(world, store, key) is not None for key in keys)


def _reach(world: World, stores: Collection[str], name: str) -> int:
    """Return how many bytes of a segment good pieces on these stores lead to, each continuing another."""
    steps: dict[tuple[int, str], list[tuple[int, str]]] = {}
    for store in stores:
        for key in _keys(world, store):
            offsets = _PIECE.search(key) if f"/{name}/" in key else None
            if offsets is not None and _content(world, store, key) is not None:
                said = dict(word.split("=", 1) for word in _metadata(world, store, key)["piece-content"].split())
                begin = int(offsets[1], 16), "" if int(offsets[1], 16) == 0 else said["before-sha256"]
                steps.setdefault(begin, []).append((int(offsets[2], 16), said["through-sha256"]))
    reached = [(0, "")]
    for place in reached:  # it grows
        reached += [further for further in steps.get(place, ()) if further not in reached]
    return max(offset for offset, _ in reached)


def _keys(world: World, store: str) -> list[str]:
    return world.stage.server(store).keys(world.stage.bucket(store), f"{world.prefix}/")


def _metadata(world: World, store: str, key: str) -> dict[str, str]:
    answer = world.stage.server(store).client().head_object(Bucket=world.stage.bucket(store), Key=key)
    return answer["Metadata"]


def _content(world: World, store: str, key: str) -> bytes | None:
    """Return an object's content, read past the proxy; None where it is damaged: gzip has a checksum and a size."""
    try:
        return gzip.decompress(world.stage.server(store).read(world.stage.bucket(store), key))
    except (EOFError, OSError, zlib.error):
        return None
