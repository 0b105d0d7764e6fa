"""How much memory this process may use: the host's, and what its control groups leave of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_ROOT: Final = Path("/")
_UNLIMITED: Final = 1 << 62  # control groups of version 1 have no word for it


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of memory. ``limit_bytes`` is what there is at all, ``available_bytes`` what is free of it now."""

    limit_bytes: int
    available_bytes: int


def look_at_memory(root: Path = _ROOT) -> Memory | None:
    """Return what this process may use; None where it cannot be told. ``root`` is for tests."""
    looks = [*_host(root), *_groups(root)]
    if not looks:
        return None
    return Memory(min(one.limit_bytes for one in looks), min(one.available_bytes for one in looks))


def _host(root: Path) -> Iterator[Memory]:
    lines = _text(root / "proc/meminfo").splitlines()
    kib = {words[0].rstrip(":"): int(words[1]) for line in lines if len(words := line.split()) > 1}
    if "MemTotal" in kib and "MemAvailable" in kib:
        yield Memory(1024 * kib["MemTotal"], 1024 * kib["MemAvailable"])


def _groups(root: Path) -> Iterator[Memory]:
    """Yield the memory of each control group that this process is in, and of those around it."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            folder, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            folder = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        inner = folder / path.lstrip("/")
        # In a container the path may be the host's, and its own group is at the top.
        for group in (inner, *inner.parents):
            yield from _group(group, *names)
            if group == folder:
                break


def _group(folder: Path, limit_name: str, usage_name: str, reclaimable_name: str) -> Iterator[Memory]:
    limit, used = _text(folder / limit_name).strip(), _text(folder / usage_name).strip()
    if not limit.isdecimal() or not used.isdecimal() or int(limit) >= _UNLIMITED:
        return
    words = [line.split() for line in _text(folder / "memory.stat").splitlines()]
    reclaimable = next((int(pair[1]) for pair in words if pair[0] == reclaimable_name), 0)
    yield Memory(int(limit), max(0, int(limit) - int(used) + reclaimable))


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return ""
