"""Finds the folder on the way to a file that a user may not enter, and says which line mends it."""

import os
import pwd
import shlex
from collections.abc import Collection, Iterable
from pathlib import Path

from wal_pipeline.host.file_owner import name_of_user


def closed_folder(path: Path, uid: int) -> Path | None:
    """Return the first folder above a file that the user may not enter, also behind links; None where there is none.

    By owner, groups and mode, as another process of that user would find them; other rules (ACLs) are not seen.
    """
    groups = _groups(uid)
    for form in (path.absolute(), _resolved(path)):
        for folder in reversed(form.parents):
            if not _may_enter(folder, uid, groups):
                return folder
    return None


def way_hint(paths: Iterable[Path], uid: int) -> str | None:
    """Say which folder keeps a user from the first of the files that it cannot reach, and what to type."""
    for path in paths:
        folder = closed_folder(path, uid)
        if folder is not None:
            return (
                f"User '{name_of_user(uid)}' may not enter '{folder}': move what lies there to where it may "
                f"(README: /opt and /etc), or type: sudo chmod o+x {shlex.quote(str(folder))}"
            )
    return None


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path.absolute()


def _may_enter(folder: Path, uid: int, groups: Collection[int]) -> bool:
    try:
        found = folder.stat()
    except OSError:
        return True  # what is closed lies above it, or it is not there
    if uid in (0, found.st_uid):
        return uid == 0 or bool(found.st_mode & 0o100)
    return bool(found.st_mode & (0o010 if found.st_gid in groups else 0o001))


def _groups(uid: int) -> Collection[int]:
    if uid == os.geteuid():
        return (os.getegid(), *os.getgroups())
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return ()
    return os.getgrouplist(entry.pw_name, entry.pw_gid)
