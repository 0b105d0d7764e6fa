"""Writes the lines that let the systemd units reach every folder of the settings. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# What ProtectHome= and PrivateTmp= of the units hide, whatever ReadWritePaths= says.
_HIDDEN: Final = (Path("/home"), Path("/root"), Path("/run/user"), Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - names
_HEAD: Final = """\
# Made from the settings by 'wal-pipeline setup --print-systemd', for wal-pipeline-code.service and
# wal-pipeline-worker.service: the units may write to no other folder. Make it again when a folder changes, and then
# type: systemctl daemon-reload && systemctl restart wal-pipeline-code
[Service]
"""


@dataclass(frozen=True, slots=True)
class UsedPath:
    """A folder or file that a setting names. ``variable`` is the setting, ``writes`` whether we write there."""

    variable: str
    path: Path
    writes: bool = True


def drop_in(used: Iterable[UsedPath]) -> str:
    """Return a drop-in file. A folder that is not there when the unit starts keeps it from nothing (``-``)."""
    written = dict.fromkeys(one.path for one in used if one.writes)
    return _HEAD + "".join(f'ReadWritePaths="-{_escaped(path)}"\n' for path in written)


def hidden_paths(used: Iterable[UsedPath]) -> Iterator[str]:
    """Yield a sentence for each path that the units do not see at all, because they hide where it lies."""
    for one in used:
        above = next((folder for folder in _HIDDEN if one.path.is_relative_to(folder)), None)
        if above is not None:
            yield f"{one.variable}: '{one.path}' is not seen by the units, which hide '{above}': move it"


def _escaped(path: Path) -> str:
    """Return a path for a quoted word of a unit: '%' begins a specifier, and a backslash an escape."""
    return str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
