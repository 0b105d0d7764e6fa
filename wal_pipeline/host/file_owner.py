"""Gives files that root makes to the service's user, and explains why a user may not open or reach a file."""

import os
import pwd
import shlex
from collections.abc import Collection, Iterable
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
