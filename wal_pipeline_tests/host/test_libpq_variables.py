"""The list of libpq's variables is that of the libpq that we have."""

from pathlib import Path

import psycopg
import pytest

from wal_pipeline.errors import SettingsError
from wal_pipeline.host.libpq_variables import CONNECTION_VARIABLES, absolute_files, check_variables, file_values


def test_no_variable_of_libpq_is_forgotten() -> None:
    """Each that names a part of a connection may stand in a settings file."""
    known = {option.envvar.decode() for option in psycopg.pq.Conninfo.get_defaults() if option.envvar}
    assert known - CONNECTION_VARIABLES == {"PGCLIENTENCODING"}


def test_files_begin_at_the_folder() -> None:
    """libpq would open them relative to the current folder of the day."""
    given = {"sslrootcert": "ca.pem", "PGPASSFILE": "~/.pgpass", "sslcert": "/x", "host": "db", "sslkey": "pkcs11:a"}
    assert absolute_files(given, Path("/etc/x")) == {
        "sslrootcert": "/etc/x/ca.pem",
        "PGPASSFILE": f"{Path.home()}/.pgpass",
        "sslcert": "/x",
        "host": "db",
        "sslkey": "pkcs11:a",
    }
    assert absolute_files({"sslrootcert": "system"}, Path("/x")) == {"sslrootcert": "system"}
    assert file_values(given).keys() == {"sslrootcert", "PGPASSFILE", "sslcert"}
    with pytest.raises(SettingsError, match=r"'sslcert' of the server's connection has a '\$'"):
        absolute_files({"sslcert": "${HOME}/x"}, Path("/x"))


def test_what_only_the_environment_can_say() -> None:
    """A service file cannot be named in a settings file, and is not passed over in silence."""
    check_variables(["PGHOST", "PGUSER"])
    with pytest.raises(SettingsError, match="PGSERVICEFILE cannot stand in a settings file"):
        check_variables(["PGSERVICEFILE"])
