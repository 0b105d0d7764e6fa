"""How many cores and how much memory this process may use: the host's, and what its control groups leave of them."""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_ROOT: Final = Path("/")
_NAMES: Final = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}
_UNLIMITED: Final = 1 << 62  # control groups of version 1 have no word for it


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of memory. ``limit_bytes`` is what there is at all, ``available_bytes`` what is free of it now."""

    limit_bytes: int
    available_bytes: int


@dataclass(frozen=True, slots=True)
class _ControlGroup:
    """The files of one group. The two versions name and write them differently."""

    folder: Path
    version: int

    def text(self, name: str) -> str:
        """Return one file's content, "" where it is not there."""
        return _text(self.folder / name)


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
    for group in _find_groups(root, "memory"):
        yield from _group(group, *_NAMES[group.version])


def _group(group: _ControlGroup, limit_name: str, usage_name: str, reclaimable_name: str) -> Iterator[Memory]:
    limit, used = group.text(limit_name).strip(), group.text(usage_name).strip()
    if not limit.isdecimal() or not used.isdecimal() or int(limit) >= _UNLIMITED:
        return
    words = [line.split() for line in group.text("memory.stat").splitlines()]
    reclaimable = next((int(pair[1]) for pair in words if pair[0] == reclaimable_name), 0)
    yield Memory(int(limit), max(0, int(limit) - int(used) + reclaimable))


def usable_cores(root: Path = _ROOT) -> int:
    """Return how many cores may work for this process at once; a container with half of one has 1.

    ``root`` is for tests.
    """
    shares = [math.ceil(share) for group in _find_groups(root, "cpu") for share in _share(group)]
    return max(1, min([len(os.sched_getaffinity(0)), *shares]))


def _share(group: _ControlGroup) -> Iterator[float]:
    if group.version == 1:
        words = [group.text("cpu.cfs_quota_us").strip(), group.text("cpu.cfs_period_us").strip()]
    else:
        words = group.text("cpu.max").split()
    if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[1]):  # else there is no limit
        yield int(words[0]) / int(words[1])


def _find_groups(root: Path, controller: str) -> Iterator[_ControlGroup]:
    """Yield each group of a controller that this process is in, and those around it, from the inside."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            folder, version = root / "sys/fs/cgroup", 2
        elif controller in controllers.split(","):
            folder, version = root / "sys/fs/cgroup" / controller, 1
        else:
            continue
        inner = folder / path.lstrip("/")
        # In a container the path may be the host's, and its own group is at the top.
        for group in (inner, *inner.parents):
            yield _ControlGroup(group, version)
            if group == folder:
                break


def _text(path: Path) -> str:
    """Return the content of a file that the kernel writes, "" where it is not there."""
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return ""
