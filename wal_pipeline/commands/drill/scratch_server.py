"""The server of a drill: how it is set apart from any other one, and the checks that it must pass."""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.binaries import Binaries
from wal_pipeline.postgres.recovery_server import ServerUser

_OUTPUT_CHARACTERS = 2000
_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "HOME", "LANG", "TZ", "TMPDIR")


@dataclass(frozen=True, slots=True)
class DrillCheck:
    """One check of the restored cluster. ``output`` is the end of what the program said where it failed."""

    name: str
    ok: bool
    output: str = ""


def scratch_settings(folder: Path, pgdata: Path, user: ServerUser) -> dict[str, str]:
    """Write the files that let only this drill in, and return the settings that point to them.

    The server listens on a socket in ``folder`` alone, archives nothing, and does nothing of what the restored
    configuration tells its original to do to the world outside: the original still does it.
    """
    hba = folder / "pg_hba.conf"
    hba.write_text("local all all trust\n", encoding="utf-8")
    socket = folder / "socket"
    socket.mkdir(mode=0o700)
    for path in (hba, socket):
        if os.geteuid() == 0:
            os.chown(path, user.uid, user.gid)
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
    """Return what PostgreSQL's programs need of our environment: no credentials, no connection settings."""
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
        """Whether the cluster answers a query."""
        return self._run("query", ["psql", "--no-psqlrc", "-Atc", "SELECT count(*) FROM pg_class"])

    def amcheck(self) -> DrillCheck:
        """Whether every table and index of every database is sound (pg_amcheck)."""
        return self._run("pg_amcheck", ["pg_amcheck", "--all", "--install-missing", "--jobs=2"])

    def sql(self, path: Path) -> DrillCheck:
        """Whether a file of the user's own SQL runs without an error: raise one where something is wrong."""
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
    """Return what the failed checks said, by name."""
    return {check.name: check.output for check in checks if not check.ok}
