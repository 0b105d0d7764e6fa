"""Describes the standby that a restore shall make, and says which options cannot be given with it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from wal_pipeline.errors import RestoreError
from wal_pipeline.host.libpq_variables import absolute_files, file_values

SETTING: Final = "WAL_PIPELINE_PRIMARY_CONNINFO"
_SECRET: Final = ("password", "sslpassword")
_SLOT: Final = re.compile(r"[a-z0-9_]{1,63}\Z")
_WAYS: Final = (
    f"Change it. Put it into the setting {SETTING}, or into a file of the server's user, mode 0600, that "
    "passfile=/path in --primary-conninfo names."
)


class StandbyOptionError(RestoreError):
    """A standby is asked for with a value that it cannot have."""

    is_refusal = True


@dataclass(frozen=True, slots=True)
class StandbyRequest:
    """The standby that is asked for.

    ``conninfo`` is its ``primary_conninfo``, which may hold a password; empty: it follows the stores alone. ``slot`` is
    the replication slot on the primary that keeps WAL for it; empty: none does.
    """

    conninfo: str = field(default="", repr=False)
    slot: str = ""

    @property
    def parameters(self) -> dict[str, Any]:
        """The connection by libpq's keywords."""
        return dict(conninfo_to_dict(self.conninfo))

    @property
    def passfile(self) -> Path | None:
        """The file with the password that the connection names; None where it names none."""
        return file_values({name: str(value) for name, value in self.parameters.items()}).get("passfile")

    @property
    def primary(self) -> str:
        """Where the primary is, for a person: without anything that is secret."""
        given = self.parameters
        host = given.get("host") or given.get("hostaddr") or given.get("service") or "the default socket"
        return f"{host}, port {given['port']}" if given.get("port") else str(host)


def standby_request(typed: str | None, setting: str, slot: str | None, folder: Path) -> StandbyRequest:
    """Return the standby by the connection that was ``typed``, else by the setting's.

    Relative paths in what was typed begin at ``folder``. Raises: StandbyOptionError for a password in what was typed,
    which the list of processes or a run's configuration shows, for a string that cannot be read, and for a slot's name
    that PostgreSQL does not take. SettingsError for a path that leads nowhere.
    """
    given = _parameters(typed, "--primary-conninfo") if typed else _parameters(setting, SETTING)
    if typed and any(given.get(name) for name in _SECRET):
        raise StandbyOptionError(
            "--primary-conninfo holds a password, which the list of processes, or a run's configuration, shows.",
            hint=_WAYS,
        )
    if slot and not given:
        raise StandbyOptionError(f"'--slot' needs '--primary-conninfo', or the setting {SETTING}: whose slot is it?")
    if slot and not _SLOT.match(slot):
        raise StandbyOptionError(f"'{slot}' is no slot's name, expected 1 to 63 lower-case letters, digits and '_'.")
    return StandbyRequest(make_conninfo("", **absolute_files(given, folder)) if given else "", slot or "")


def _parameters(text: str, source: str) -> dict[str, str]:
    """Read a connection string without ever showing it."""
    try:
        given = {name: str(value) for name, value in conninfo_to_dict(text).items()}
    except psycopg.Error:
        given = {"port": "?"}
    if any(not value.isprintable() for value in given.values()) or not re.fullmatch(r"[0-9,]*", given.get("port", "")):
        raise StandbyOptionError(
            f"{source} cannot be read.", hint="Write it as 'host=… port=… user=…', or as postgresql://…"
        )
    return given


def standby_contradictions(given: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a standby cannot be asked for. ``given`` are the options that a person gave, by their names.

    A recovery target would end the standby: PostgreSQL stops there, and pauses or promotes it.
    """
    targets = ("to_time", "to_lsn", "to_xid", "to_name", "immediate")
    for name in (*targets, "exclusive", "action", "archiving", "no_archiving", "only_database"):
        if given.get(name):
            yield f"'--{name.replace('_', '-')}' contradicts '--standby': {_REASONS.get(name, _REASONS['target'])}."
    if given.get("timeline") == "current":
        yield "'--timeline current' contradicts '--standby': a standby follows the latest timeline, or a number's."


_REASONS: Final[Mapping[str, str]] = {
    "target": "a standby follows its primary, and stops nowhere",
    "archiving": "a standby archives as its configuration says, and with archive_mode 'on' only once it is promoted",
    "no_archiving": "a copy is set apart from its original, and a standby follows it",
    "only_database": "a standby has all databases of its primary",
}


def wal_only_contradictions(given: Mapping[str, Any]) -> Iterator[str]:
    """Yield what cannot be asked for where the data directory is there already, and only its WAL is to come."""
    names = ("force", "base_backup", "only_database", "waldir", "work_dir", "tablespace_map", "tablespace_map_all")
    for name in (*names, "restore_config"):
        if given.get(name):
            yield f"'--{name.replace('_', '-')}' contradicts '--wal-only': the files that are there stay as they are."
