"""Decides with which configuration a restored server starts, and writes the one that was kept with the base backup."""

import os
import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from wal_pipeline.archive.format.configuration import KeptConfiguration
from wal_pipeline.errors import RestoreError
from wal_pipeline.postgres.configuration_text import (
    ConfigurationInclude,
    FileForm,
    IncludeKind,
    rewrite_includes,
    settings_in,
    without_places,
)
from wal_pipeline.postgres.recovery import quoted

CONFIG_NAME: Final = "postgresql.conf"
_ROOTS: Final = (("config_file", CONFIG_NAME), ("hba_file", "pg_hba.conf"), ("ident_file", "pg_ident.conf"))
_MIRROR: Final = "restored-configuration"
_NEEDED_FILES: Final = ("ssl_cert_file", "ssl_key_file", "ssl_ca_file", "ssl_crl_file", "krb_server_keyfile")
_NEEDED_FOLDERS: Final = ("unix_socket_directories", "stats_temp_directory", "log_directory")
_OFF: Final = ("off", "false", "no", "0", "")


@dataclass(frozen=True, slots=True)
class ConfigurationPlan:
    """The configuration of a restored server, as it was planned.

    ``kept`` is what was outside the data directory of the original, None where nothing is known of it. ``write``: it
    is written into the restored data directory. ``trouble``: the server cannot be started, with the reason.
    """

    kept: KeptConfiguration | None = None
    write: bool = False
    notes: tuple[str, ...] = ()
    trouble: RestoreError | None = None


def plan_configuration(
    pgdata: Path,
    major: int,
    *,
    kept: KeptConfiguration | None,
    given: Path | None,
    wanted: bool | None,
    has_own: Callable[[], bool | None],
    place: Path = Path("/etc/postgresql"),
) -> ConfigurationPlan:
    """Decide which configuration the server starts with, before anything is downloaded.

    ``given`` is the file that the request names. ``wanted``: the request says whether what was kept is written, None:
    it is where this machine has none for the data directory. ``has_own`` tells whether the base backup itself has a
    ``postgresql.conf`` (None: not known). ``place`` is where Debian keeps configuration.
    """
    found = given or find_outside(pgdata, major, place)
    if kept is None or kept.is_empty:
        return _plan_without(found, has_own, _no_configuration(pgdata, major, place))
    is_outside = not kept.is_inside(kept.config_file)
    write = bool(kept.files) and (found is None if wanted is None else wanted)
    notes = [f"the original's configuration was outside its data directory: {', '.join(sorted(kept.files))}"]
    if write:
        notes.append(f"it is written into '{pgdata}', beside no file of that name, and all of it into {_MIRROR}")
        notes += _not_here(kept)
    elif is_outside and found is not None:
        notes.append(f"the server starts with '{found}' of this machine; --restore-config writes the original's")
    if not kept.files:
        notes = []
    notes += [f"not kept with the base backup: {reason}" for reason in kept.missing.values()]
    notes += [_link_note(name, target) for name, target in kept.links.items() if name not in _names(kept)]
    is_there = write and kept.config_file in kept.files
    trouble = _no_configuration(pgdata, major, place) if is_outside and not is_there and found is None else None
    return ConfigurationPlan(kept, write, tuple(notes), trouble)


def find_outside(pgdata: Path, major: int, place: Path = Path("/etc/postgresql")) -> Path | None:
    """Return this machine's configuration file for a data directory, which Debian keeps apart; None where none is."""
    for path in sorted(place.glob(f"{major}/*/{CONFIG_NAME}")):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if settings_in(text).get("data_directory") == str(pgdata):
            return path
    return None


def write_configuration(plan: ConfigurationPlan, pgdata: Path) -> None:
    """Write what was kept into a restored data directory, over no file that is there.

    The three files go where the server looks for them, without the settings that name the original's places; all files
    go below one folder, by their old paths, and what includes them names them there. Where ``postgresql.conf`` came
    with the base backup and names an access file of the original's host that is not there, the written one is used.

    Raises: RestoreError.
    """
    if plan.kept is None or not plan.write:
        return
    try:
        _Writer(plan.kept, pgdata).write()
    except OSError as error:
        raise RestoreError(f"'{error.filename}' cannot be written: {error.strerror}") from error


class _Writer:
    """Writes one kept configuration."""

    def __init__(self, kept: KeptConfiguration, pgdata: Path) -> None:
        self._kept = kept
        self._pgdata = pgdata
        self._mirror = next(path for path in _free_names(pgdata) if not os.path.lexists(path))

    def write(self) -> None:
        for folder in self._kept.folders:
            self._in_mirror(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        for path, data in self._kept.files.items():
            self._put(self._in_mirror(path), data, path)
        for setting, name in _ROOTS:
            path = getattr(self._kept, setting)
            if path in self._kept.files:
                self._put(self._pgdata / name, self._kept.files[path], path)
        self._name_access_files()

    def _put(self, target: Path, data: bytes, path: str) -> None:
        if os.path.lexists(target):
            return
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        form = _form_of(self._kept, path)
        if form is not None:
            text = rewrite_includes(
                data.decode("utf-8", "surrogateescape"), form, partial(self._place, posixpath.dirname(path), target)
            )
            data = (without_places(text) if form is FileForm.CONF else text).encode("utf-8", "surrogateescape")
        with open(target, "xb", opener=_private) as file:
            file.write(data)

    def _place(self, folder: str, target: Path, include: ConfigurationInclude) -> str:
        """Return the path of an included file or folder as the written file has to name it."""
        path = posixpath.normpath(posixpath.join(folder, include.path))
        if path in self._kept.files or path in self._kept.folders:
            return os.path.relpath(self._in_mirror(path), target.parent)
        if self._kept.is_inside(path):
            inside = posixpath.relpath(path, self._kept.data_directory)
            return os.path.relpath(self._pgdata / inside, target.parent)
        return path

    def _in_mirror(self, path: str) -> Path:
        return self._mirror / path.lstrip("/")

    def _name_access_files(self) -> None:
        """Name the access files in postgresql.auto.conf where a restored postgresql.conf names the original's."""
        if not self._kept.is_inside(self._kept.config_file):
            return
        lines = [
            f"{setting} = {quoted(str(self._pgdata / name))}\n"
            for setting, name in _ROOTS[1:]
            if (path := getattr(self._kept, setting)) in self._kept.files
            and not self._kept.is_inside(path)
            and not Path(path).exists()
        ]
        if lines:
            with (self._pgdata / "postgresql.auto.conf").open("a", encoding="utf-8") as file:
                file.writelines(["\n", *lines])


def _plan_without(found: Path | None, has_own: Callable[[], bool | None], trouble: RestoreError) -> ConfigurationPlan:
    """Plan for a base backup with which nothing was kept: its postgresql.conf is in it, or nobody knows where."""
    own = has_own()
    if own is not False:
        return ConfigurationPlan()
    if found is not None:
        return ConfigurationPlan(notes=(f"the base backup has no {CONFIG_NAME}: the server starts with '{found}'",))
    note = f"the base backup has no {CONFIG_NAME}, and none was kept with it: name one with --config-file to start"
    return ConfigurationPlan(notes=(note,), trouble=trouble)


def _no_configuration(pgdata: Path, major: int, place: Path) -> RestoreError:
    """Return the error, which names the configurations of this machine: Debian keeps them by version and cluster."""
    others = sorted(str(path) for path in place.glob(f"{major}/*/{CONFIG_NAME}"))
    here = f" This machine has {' and '.join(others)}, of another data directory." if others else ""
    return RestoreError(
        f"there is no {CONFIG_NAME} for '{pgdata}', so the server could not be started",
        hint=f"Name the configuration file with --config-file (Debian keeps it in {place}/{major}/).{here} Or restore "
        "without --start and start the server yourself. Nothing was downloaded.",
    )


def _names(kept: KeptConfiguration) -> set[str]:
    """Return the names of the kept files that were links in the data directory."""
    return {posixpath.relpath(path, kept.data_directory) for path in kept.files if kept.is_inside(path)}


def _link_note(name: str, target: str) -> str:
    way = "; --waldir puts it on a disk of its own" if name == "pg_wal" else ""
    return f"'{name}' in the original's data directory was a link to '{target}', and is none in the restored one{way}"


def _not_here(kept: KeptConfiguration) -> Iterator[str]:
    """Say which files and folders of the original's host the configuration names that are not on this machine."""
    settings: dict[str, str] = {}
    for path in (kept.config_file, *sorted(set(kept.files) - {kept.config_file})):
        if path in kept.files and _form_of(kept, path) is FileForm.CONF:
            settings |= settings_in(kept.files[path].decode("utf-8", "replace"))
    names = (*_NEEDED_FOLDERS, *(_NEEDED_FILES if settings.get("ssl", "off").lower() not in _OFF else ()))
    for name in names:
        for value in settings.get(name, "").split(","):
            if value.strip().startswith("/") and not Path(value.strip()).exists():
                yield f"the configuration names '{value.strip()}' ({name}), which is not on this machine"


def _form_of(kept: KeptConfiguration, path: str) -> FileForm | None:
    """Return the form of a kept file; None for a list of names."""
    if path in (kept.hba_file, kept.ident_file):
        return FileForm.HBA
    for root in (kept.hba_file, kept.ident_file):
        if path in _included(kept, root, FileForm.HBA):
            return None if path in _included(kept, root, FileForm.HBA, lists=True) else FileForm.HBA
    return FileForm.CONF


def _included(kept: KeptConfiguration, root: str, form: FileForm, *, lists: bool = False) -> set[str]:
    """Return the kept files that a file names, directly or through others."""
    found: set[str] = set()
    waiting = [root]
    while waiting:
        path = waiting.pop()
        folder = posixpath.dirname(path)

        def note(include: ConfigurationInclude, folder: str = folder) -> str:
            target = posixpath.normpath(posixpath.join(folder, include.path))
            is_list = include.kind is IncludeKind.LIST
            below = [one for one in kept.files if one == target or one.startswith(f"{target}/")]
            waiting.extend(one for one in below if one not in found and not is_list)
            found.update(one for one in below if is_list or not lists)
            return include.path

        rewrite_includes(kept.files.get(path, b"").decode("utf-8", "surrogateescape"), form, note)
    return found


def _free_names(pgdata: Path) -> Iterator[Path]:
    yield pgdata / _MIRROR
    number = 1
    while True:
        yield pgdata / f"{_MIRROR}.{number}"
        number += 1


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
