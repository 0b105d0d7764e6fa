"""Checks, without the program, that after a schedule every copy equals PostgreSQL's own file."""

import gzip
import hashlib
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from chaos.world import World
from testbed.seaweed import SeaweedServer
from wal_pipeline.wal.names import FileKind, parse_file_name

_SEGMENT_BYTES = 1 << 20
_STALL_SECONDS = 90.0
_POKE_SECONDS = 1.0
_THREADS = 2


class NotDrainedError(AssertionError):
    """The spool was not empty a while after all faults were over."""


@dataclass(frozen=True, slots=True)
class Copies:
    """The result of a comparison. ``lost``: copies that are missing or wrong. ``gaps``: segments that are missing.

    A file that still waits in the spool is not lost.
    """

    checked: int
    lost: tuple[str, ...]
    gaps: tuple[str, ...]


def wait_until_archiving(world: World) -> None:
    """Wait until the first file has left the spool, so that faults meet archiving. Raises: NotDrainedError."""
    deadline = time.monotonic() + _STALL_SECONDS
    while not world.archived() - set(world.spooled()):
        if time.monotonic() > deadline:
            raise NotDrainedError(_stalled(world, world.spooled(), sorted(world.unarchived())))
        time.sleep(0.1)


def drain(world: World) -> None:
    """Wait until PostgreSQL has archived everything and the spool is empty.

    Raises: NotDrainedError where nothing moves any more.
    """
    last = world.cluster.switch_wal()
    moved_at = poke_at = time.monotonic()
    before: tuple[object, ...] = ()
    while last not in world.archived() or world.unarchived() or world.spooled():
        now, state = time.monotonic(), (world.spooled(), sorted(world.unarchived()))
        if state != before:
            before, moved_at = state, now
        if now > moved_at + _STALL_SECONDS:
            raise NotDrainedError(_stalled(world, *state))
        if now > poke_at + _POKE_SECONDS:
            poke(world)
            poke_at = now
        time.sleep(0.1)


def poke(world: World) -> None:
    """Wake PostgreSQL's archiver, which sleeps for a minute after three failures."""
    if world.unarchived():
        world.cluster.psql("SELECT pg_reload_conf()")


def _stalled(world: World, spooled: list[str], unarchived: list[str]) -> str:
    return (
        f"nothing moved for {_STALL_SECONDS:.0f} s: the spool has {spooled}, PostgreSQL has still to archive "
        f"{unarchived}; the archiver says:\n{world.archiving.log_tail()}\n"
        f"PostgreSQL says:\n{world.cluster.process.log_tail(10)}"
    )


def compare(
    world: World, may_be_gone: Callable[[str], bool] = lambda _: False, *, also: Collection[str] = ()
) -> Copies:
    """Download, open and hash each copy of everything that PostgreSQL reported as archived and that may not be gone."""
    waiting = set(world.spooled())
    archived = world.archived()
    names = {name for name in archived if not may_be_gone(name)}
    last = world.cluster.value("SELECT last_archived_wal FROM pg_stat_archiver")
    lost = (
        [] if not last or last in archived else [f"'{last}' is PostgreSQL's last archived file and not marked as done"]
    )
    for store, server, bucket in (
        ("r2", world.stage.pair.r2, world.stage.buckets.r2),
        ("b2", world.stage.pair.b2, world.stage.buckets.b2),
    ):
        keys = _keys(server, bucket, world.prefix)
        lost += [f"{store}: {text}" for text in _wrong(world, server, bucket, keys, names - waiting)]
        foreign = sorted(keys.keys() - archived - waiting - set(also))
        lost += [f"{store}: '{name}' is stored and was never archived" for name in foreign if not _is_forgotten(name)]
    return Copies(2 * len(names - waiting), tuple(lost), tuple(_gaps(world, names)))


def _is_forgotten(name: str) -> bool:
    """Whether PostgreSQL keeps no mark of a file: it removes older backup history files at each base backup."""
    parsed = parse_file_name(name)
    return parsed is not None and parsed.kind is FileKind.BACKUP_HISTORY


def misplaced(world: World, planted: set[str]) -> Iterator[str]:
    """Yield the files in a wrong place: good files in quarantine, foreign files in the spool."""
    for path in sorted(world.quarantine.iterdir()):
        name = path.name.rsplit(".", 2)[0]  # the moment in the name has a dot too
        if name not in planted and not path.name.startswith("."):
            yield f"'{path.name}' is in quarantine, and is PostgreSQL's own"
    yield from (f"'{path.name}' remains in the spool" for path in world.spool.glob(".chaos-*"))


def _keys(server: SeaweedServer, bucket: str, prefix: str) -> dict[str, str]:
    found = [key for key in server.keys(bucket, f"{prefix}/") if "/wal/" in key]
    return {key.rpartition("/")[2].removesuffix(".gz"): key for key in found}


def _wrong(world: World, server: SeaweedServer, bucket: str, keys: Mapping[str, str], names: set[str]) -> Iterator[str]:
    client = server.client()

    def look(name: str) -> str | None:
        if name not in keys:
            return f"'{name}' is lost"
        stored = client.get_object(Bucket=bucket, Key=keys[name])["Body"].read()
        try:
            found = hashlib.sha256(gzip.decompress(stored)).hexdigest()
        except (EOFError, OSError, zlib.error) as error:
            return f"'{name}' cannot be opened: {error}"
        return None if found == _sha256(world.pg_wal / name) else f"'{name}' has other content than PostgreSQL's"

    with ThreadPoolExecutor(_THREADS) as pool:
        yield from (text for text in pool.map(look, sorted(names)) if text is not None)


def _gaps(world: World, names: set[str]) -> Iterator[str]:
    """Yield the segments that are missing between the first and the last that PostgreSQL archived."""
    parsed = [found for name in names if (found := parse_file_name(name)) and found.kind is FileKind.SEGMENT]
    numbers = {found.number(_SEGMENT_BYTES) for found in parsed}
    if numbers:
        yield from (f"{n:X}" for n in range(min(numbers), max(numbers) + 1) if n not in numbers)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
