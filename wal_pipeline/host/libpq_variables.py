"""Lists libpq's environment variables, which a settings file may set for the connection to the server."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from wal_pipeline.errors import SettingsError
from wal_pipeline.host.given_values import absolute_path

# Without those for the form of values (PGCLIENTENCODING, PGDATESTYLE, PGTZ, PGGEQO): our sessions set it themselves.
CONNECTION_VARIABLES: Final = frozenset(
    (
        *("PGAPPNAME", "PGCHANNELBINDING", "PGCONNECT_TIMEOUT", "PGDATABASE", "PGGSSDELEGATION", "PGGSSENCMODE"),
        *("PGGSSLIB", "PGHOST", "PGHOSTADDR", "PGKRBSRVNAME", "PGLOADBALANCEHOSTS", "PGMAXPROTOCOLVERSION"),
        *("PGMINPROTOCOLVERSION", "PGOPTIONS", "PGPASSFILE", "PGPASSWORD", "PGPORT", "PGREQUIREAUTH", "PGREQUIREPEER"),
        *("PGSERVICE", "PGSSLCERT", "PGSSLCERTMODE", "PGSSLCOMPRESSION", "PGSSLCRL", "PGSSLCRLDIR", "PGSSLKEY"),
        *("PGSSLMAXPROTOCOLVERSION", "PGSSLMINPROTOCOLVERSION", "PGSSLMODE", "PGSSLNEGOTIATION", "PGSSLROOTCERT"),
        *("PGSSLSNI", "PGTARGETSESSIONATTRS", "PGUSER"),
    )
)
# The keywords whose values are paths, by which libpq opens files relative to the current folder.
_FILES: Final = ("passfile", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslcrldir", "servicefile", "sslkeylogfile")
_ENVIRONMENT_ONLY: Final = ("PGSERVICEFILE", "PGSYSCONFDIR")


def absolute_files(values: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Let the relative paths among a connection's values begin at ``folder``, where libpq takes the current one.

    ``values`` are by libpq's keywords or variables. Raises: SettingsError.
    """
    return {name: _absolute_file(name, value, folder) for name, value in values.items()}


def file_values(values: Mapping[str, str]) -> dict[str, Path]:
    """Return the files that a connection's values name, by keyword or variable."""
    return {name: Path(value) for name, value in values.items() if _is_file(name, value)}


def _absolute_file(name: str, value: str, folder: Path) -> str:
    if not _is_file(name, value):
        return value
    try:
        return str(absolute_path(value, folder))
    except ValueError as error:
        raise SettingsError(f"'{name}' of the server's connection {error}") from None


def _is_file(name: str, value: str) -> bool:
    """Whether a value is a path: 'system' names no file, and a key with a colon is in a device."""
    keyword = name.lower().removeprefix("pg")
    special = value == "system" or (keyword == "sslkey" and ":" in value)
    return keyword in _FILES and bool(value) and not special


def check_variables(names: Iterable[str]) -> None:
    """Refuse the variables of a settings file that libpq reads from the environment alone. Raises: SettingsError."""
    unusable = sorted(set(names) & set(_ENVIRONMENT_ONLY))
    if unusable:
        raise SettingsError(
            f"{', '.join(unusable)} cannot stand in a settings file: libpq reads it from the environment alone",
            hint="Set it in the environment, or write the service's values as PGHOST, PGPORT and so on.",
        )
