"""Tries whether we can write in a folder that a setting names, before a later step has to."""

import os
import shlex
import tempfile
from pathlib import Path

from wal_pipeline.errors import SettingsError, cause_hint
from wal_pipeline.host.file_owner import name_of_user


def require_writable(name: str, path: Path) -> str:
    """Write and remove a file: rights say nothing of a read-only mount. A missing folder is made when it is needed.

    ``name`` is the setting's variable. Return what was found. Raises: SettingsError.
    """
    existing = path
    try:
        existing = next(folder for folder in (path, *path.parents) if folder.is_symlink() or folder.exists())
        with tempfile.TemporaryFile(dir=existing, prefix=".wal-pipeline-check.") as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        place = f"'{path}' cannot be written" if existing == path else f"'{path}' cannot be made in '{existing}'"
        user = name_of_user(os.geteuid())
        raise SettingsError(
            f"{place}: {error.strerror}",
            hint=cause_hint(error)
            or f"Set {name} to a folder that user '{user}' may write, or make this one so: "
            f"sudo install -d -o {shlex.quote(user)} -m 0700 {shlex.quote(str(path))}",
        ) from None
    return f"'{path}' can be written" if existing == path else f"'{path}' can be made when it is needed"
