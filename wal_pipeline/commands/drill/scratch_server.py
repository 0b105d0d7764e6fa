"""Sets a drill's server apart from any other one, and checks the cluster that it opened."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from wal_pipeline.commands.drill.result import DrillCheck
from wal_pipeline.commands.restore.start import ServerIsolation
from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.binaries import Binaries
from wal_pipeline.postgres.recovery_server import ServerUser

_OUTPUT_CHARACTERS: Final = 2000
_KEPT_VARIABLES: Final = ("PATH", "LD_LIBRARY_PATH", "HOME", "LANG", "TZ", "TMPDIR")
_CONFIG: Final = "postgresql.conf"


def scratch_isolation(folder: Path, pgdata: Path, user: ServerUser) -> ServerIsolation:
    """Write the files that let only this drill in, and return the settings that point to them.

    The server listens on a socket in ``folder`` alone, archives nothing, and does nothing that the restored
    configuration has its original do to the world outside: the original still does it.
    """
    hba, socket, config = folder / "pg_hba.conf", folder / "socket", pgdata / _CONFIG
    hba.write_text("local all all trust\n", encoding="utf-8")
    socket.mkdir(mode=0o700)
    made = [hba, socket]
    if not config.exists():  # Debian keeps it outside the data directory: an empty one will do for a drill
        config.write_text("", encoding="utf-8")
        made.append(config)
    if os.geteuid() == 0:
        for path in made:
            os.chown(path, user.uid, user.gid)
    return ServerIsolation(_settings(hba, socket, pgdata), plain_environment())


def _settings(hba: Path, socket: Path, pgdata: Path) -> dict[str, str]:
    return {
        "listen_addresses": "",
        "unix_socket_directories": str(socket),
        "port": "5432",
        "hba_file": str(hba),
        "ssl": "off",
        "data_directory": str(pgdata),
        "external_pid_file": "",
        "archive_mode": "off",
        "archive_command": "",
        "recovery_end_command": "",
        "archive_cleanup_command": "",
        "primary_conninfo": "",
        "primary_slot_name": "",
        "synchronous_standby_names": "",
        "max_logical_replication_workers": "0",  # a subscription would move its slot on the publisher
        "bonjour": "off",
        "session_preload_libraries": "",
        "local_preload_libraries": "",
        "shared_preload_libraries": "",
        "max_wal_senders": "0",
        "hot_standby": "off",
    }


def plain_environment() -> dict[str, str]:
    """Return the part of our environment that PostgreSQL's programs need: no credentials, no connection settings."""
    return {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}


class ClusterChecks:
    """Runs PostgreSQL's client programs against the restored cluster."""

    def __init__(self, binaries: Binaries, folder: Path, user: ServerUser, *, role: str, database: str) -> None:
        self._binaries = binaries
        self._user = user
        self._environment = {
            **plain_environment(),
            "PGHOST": str(folder / "socket"),
            "PGPORT": "5432",
            "PGUSER": role,
            "PGDATABASE": database,
            "PGOPTIONS": "-c lock_timeout=60s",
        }

    def answers(self) -> DrillCheck:
        """Check that the cluster answers a query."""
        return self._run("query", ["psql", "--no-psqlrc", "-Atc", "SELECT count(*) FROM pg_class"])

    def amcheck(self) -> DrillCheck:
        """Check that every table and index of every database is sound (pg_amcheck)."""
        return self._run("pg_amcheck", ["pg_amcheck", "--all", "--install-missing", "--jobs=2"])

    def sql(self, path: Path) -> DrillCheck:
        """Run a file of the user's own SQL, which raises an error where something is wrong."""
        return self._run(f"sql {path.name}", ["psql", "--no-psqlrc", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-"], path)

    def _run(self, name: str, command: list[str], stdin: Path | None = None) -> DrillCheck:
        try:
            with (stdin or Path(os.devnull)).open("rb") as given:
                done = subprocess.run(
                    [str(self._binaries.program(command[0])), *command[1:]],
                    stdin=given,
                    capture_output=True,
                    check=False,
                    cwd="/",
                    env=self._environment,
                    **self._user.popen_options(),  # type: ignore[call-overload]
                )
        except (OSError, PostgresError) as error:
            return DrillCheck(name, ok=False, output=str(error))
        text = (done.stdout + done.stderr).decode("utf-8", errors="replace").strip()
        return DrillCheck(name, done.returncode == 0, "" if done.returncode == 0 else text[-_OUTPUT_CHARACTERS:])


def failed_checks(checks: tuple[DrillCheck, ...]) -> Mapping[str, str]:
    """Return the output of the failed checks, by name."""
    return {check.name: check.output for check in checks if not check.ok}
