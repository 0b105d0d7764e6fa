"""Checks a clone's options as a person writes them: its name, its time, its port."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from wal_pipeline.commands.restore.options import ANY_STORE, RestoreOptionError

DEFAULT_KEEP_FOR: Final = "2h"
LONGEST_KEPT: Final = timedelta(days=30)
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,29}\Z")
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])\s*")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DEFAULT_NAME: Final = "clone"
_PORTS: Final = range(1, 65536)


@dataclass(frozen=True, slots=True)
class CloneOptions:
    """One clone as a person writes it. ``wal-pipeline clone --help`` explains each option.

    The values are plain: texts and numbers that nothing has looked at yet. ``keep_for`` is ``--for``; None, where a
    clone is moved: its end stays.
    """

    name: str | None = None
    to_time: str | None = None
    to_lsn: str | None = None
    to_xid: int | None = None
    to_name: str | None = None
    inclusive: bool = True
    timeline: str = "latest"
    store: str = ANY_STORE
    base_backup: str | None = None
    system_identifier: int | None = None
    port: int | None = None
    keep_for: str | timedelta | None = DEFAULT_KEEP_FOR
    read_only: bool = False
    only_databases: tuple[str, ...] = ()
    owner: str | None = None

    def require_port(self) -> int | None:
        """Return the port that is asked for. Raises: RestoreOptionError for one that is none."""
        if self.port is not None and self.port not in _PORTS:
            raise RestoreOptionError(f"--port {self.port} is not a port, expected 1 to 65535.")
        return self.port


def require_clone_name(name: str) -> str:
    """Return a clone's name, which becomes a folder's. Raises: RestoreOptionError."""
    if not _NAME.match(name):
        raise RestoreOptionError(
            f"'{name}' cannot be a clone's name, expected 1 to 30 lower-case letters, digits, '_' and '-', with a "
            "letter or a digit first."
        )
    return name


def free_clone_name(taken: Iterable[str]) -> str:
    """Return the first of ``clone-1``, ``clone-2`` … that is not taken."""
    used = set(taken)
    return next(name for name in (f"{_DEFAULT_NAME}-{n}" for n in range(1, len(used) + 2)) if name not in used)


def parse_keep_for(given: str | timedelta) -> timedelta:
    """Return how long a clone is kept, such as ``90m``, ``2h`` or ``1d12h``. Raises: RestoreOptionError."""
    found = given if isinstance(given, timedelta) else _parsed(given.strip())
    if found is None:
        raise RestoreOptionError(f"--for '{given}' is not a length of time, expected such as 30m, 2h or 1d12h.")
    if found <= timedelta():
        raise RestoreOptionError(f"--for '{given}' is over at once, expected such as 30m, 2h or 1d12h.")
    if found > LONGEST_KEPT:
        raise RestoreOptionError(f"--for '{given}' is longer than {LONGEST_KEPT.days} days, the longest for a clone.")
    return found


def _parsed(text: str) -> timedelta | None:
    parts = _PART.findall(text)
    if not parts or _PART.sub("", text):
        return None
    try:
        return sum((timedelta(**{_UNITS[unit]: float(number)}) for number, unit in parts), timedelta())
    except OverflowError:
        return timedelta.max
