"""Tells whether files may lie beside a folder: not where it is a mount point or its parent is another's."""

import os
from pathlib import Path
from typing import Final

LOST_AND_FOUND: Final = "lost+found"  # a file system's own, at its top


def has_room_beside(folder: Path) -> bool:
    """Return whether we may write beside a folder, and what lies there is on the same disk."""
    real = folder.resolve()
    return not os.path.ismount(real) and is_writable(real.parent)


def is_writable(folder: Path) -> bool:
    """Return whether we may make files in a folder, or make it where it is missing. Looks, and writes nothing."""
    found = nearest(folder)
    return found.is_dir() and os.access(found, os.W_OK | os.X_OK, effective_ids=True)


def removable(folder: Path, name: str) -> Path:
    """Return a folder that may be made and removed whole: ``name`` below a mount point, else the folder itself."""
    return folder / name if os.path.ismount(folder) else folder


def nearest(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there."""
    return next(path for path in (folder, *folder.parents) if path.exists())
