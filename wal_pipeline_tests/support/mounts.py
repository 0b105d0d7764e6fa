"""Mounts small file systems for tests, which need root."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testbed.postgres_install import postgres_user


@contextmanager
def mounted(folder: Path, size_mib: int = 2000) -> Iterator[Path]:
    """Mount a file system in memory at a folder, with a lost+found of root's; PostgreSQL's user owns the mount."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if os.geteuid() != 0 or done.returncode != 0:
        pytest.skip(f"a mount needs root: {done.stderr.decode()}")
    try:
        (folder / "lost+found").mkdir(mode=0o700)
        user = postgres_user()
        os.chown(folder, user.uid, user.gid)
        folder.chmod(0o700)
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)
        shutil.rmtree(folder, ignore_errors=True)
