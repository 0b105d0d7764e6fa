"""Gives files that root makes to the service's user, and explains why a file may not be opened."""

import os
import pwd
import shlex
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def give_to_folder_owner(path: Path) -> None:
    """As root, give a file or folder to the owner of the folder it lies in; as another user, do nothing.

    A command that root types once would else leave behind what the service's user can never open.
    """
    if os.geteuid() != 0:
        return
    with suppress(OSError):  # a file system without owners, or a file that is gone
        folder = path.parent.stat()
        if folder.st_uid != path.lstat().st_uid:
            os.chown(path, folder.st_uid, folder.st_gid, follow_symlinks=False)


def owner_trouble(paths: Iterable[Path], mode: int) -> str | None:
    """Say which of the files that are there may not be opened in a mode (``os.R_OK``…), and the line that mends it."""
    for path in paths:
        with suppress(OSError):
            if not os.access(path, mode, effective_ids=True):
                return _explain(path)
    return None


def is_read_only(folder: Path) -> bool:
    """Whether the folder's file system is mounted read-only for this process, as a systemd unit's sandbox does."""
    try:
        return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def _explain(path: Path) -> str:
    ours, owner = name_of_user(os.geteuid()), name_of_user(path.lstat().st_uid)
    if path.lstat().st_uid == os.geteuid():
        return f"'{path}' may not be opened by its owner '{ours}'; type: sudo chmod u+rw {shlex.quote(str(path))}"
    return (
        f"'{path}' belongs to user '{owner}', and user '{ours}' may not open it; type: "
        f"sudo chown {ours}: {shlex.quote(str(path))}"
    )


def name_of_user(uid: int) -> str:
    """Return a user's name, or its number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
