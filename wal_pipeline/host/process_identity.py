"""Names this process so that another one on the same machine can tell whether it still runs.

A process number alone is used again, and means something else in another container.
"""

import os
from pathlib import Path

_PROC = Path("/proc")


def own_identity() -> str:
    """Return the machine's boot, the namespace of process numbers, our number and our start; empty where unknown."""
    return identity_of(os.getpid())


def identity_of(process: int) -> str:
    """Return the same of a process of ours by its number."""
    space = _space()
    started = _started(process)
    return "" if space is None or started is None else f"{space} {process} {started}"


def living_process(identity: str) -> int | None:
    """Return the number of the process with this identity; None where it has ended, or cannot be seen from here."""
    parts = identity.rsplit(" ", 2)
    if len(parts) != 3 or not parts[1].isdigit() or parts[0] != _space():
        return None
    return int(parts[1]) if _started(int(parts[1])) == parts[2] else None


def is_dead(identity: str) -> bool:
    """Return whether the process with this identity has ended for sure; False where that cannot be known from here."""
    parts = identity.rsplit(" ", 2)
    if len(parts) != 3 or not parts[1].isdigit() or parts[0] != _space():
        return False
    return _started(int(parts[1])) != parts[2]


def _space() -> str | None:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return None


def _started(process: int) -> str | None:
    """Return the start of a running process in the kernel's ticks; None where there is none, or only a zombie."""
    try:
        text = (_PROC / str(process) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *rest = text.rpartition(")")[2].split()
    return None if state in ("Z", "X") else rest[18]
