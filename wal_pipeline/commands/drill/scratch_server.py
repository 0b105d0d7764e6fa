"""Sets a drill's server apart from any other one, and checks the cluster that it opened."""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from wal_pipeline.commands.drill.result import DrillCheck
from wal_pipeline.commands.restore.prepare import PreparedRestore
from wal_pipeline.commands.restore.start import ServerIsolation
from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.backup_words import program_warnings
from wal_pipeline.postgres.binaries import Binaries
from wal_pipeline.postgres.environment import plain_environment
from wal_pipeline.postgres.isolation import copy_settings, worker_settings
from wal_pipeline.postgres.recovery_server import ServerUser
from wal_pipeline.postgres.required_settings import configured_values

_OUTPUT_CHARACTERS: Final = 2000
_LEFT_OUT: Final = "skipping database"  # pg_amcheck.c, where amcheck is not installed in it
_CONFIG: Final = "postgresql.conf"
_LIBRARIES: Final = ("shared_preload_libraries", "session_preload_libraries", "local_preload_libraries")


def scratch_isolation(folder: Path, prepared: PreparedRestore, wal_folder: Path) -> ServerIsolation:
    """Write the files that let only this drill in, and return the settings that point to them.

    The server is a copy, as one that ``restore --no-archiving`` starts, and recovers in the same way. Besides, it
    listens on a socket in ``folder`` alone, and preloads nothing.
    """
    pgdata, user = prepared.request.pgdata, prepared.user
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
    settings = {
        **prepared.request.action.recovery_line,
        **copy_settings(prepared.binaries.major),
        **worker_settings(None, hot_standby=False),
        **_settings(hba, socket),
    }
    return ServerIsolation(settings, plain_environment(), (wal_folder,))


def _settings(hba: Path, socket: Path) -> dict[str, str]:
    return {
        "listen_addresses": "",
        "unix_socket_directories": str(socket),
        "port": "5432",
        "hba_file": str(hba),
        "ssl": "off",
        **dict.fromkeys(_LIBRARIES, ""),
        "max_wal_senders": "0",
    }


def not_proven(prepared: PreparedRestore) -> tuple[str, ...]:
    """Return what a restore's server has and the drill's has not, so that a drill that passes does not prove it.

    Called before ``scratch_isolation`` writes what the base backup lacks.

    Raises: PostgresError where the configuration cannot be read: a restored server would not start either.
    """
    pgdata = prepared.request.pgdata
    found = ["addresses, port, SSL and access rules: the drill's server let in the drill alone"]
    if not (pgdata / "pg_hba.conf").exists():
        found.append("pg_hba.conf: the base backup has none, and a restored server needs one")
    if not (pgdata / _CONFIG).exists():
        found.append("postgresql.conf: the base backup has none, so PostgreSQL's defaults held, also for memory")
        return tuple(found)
    settings = {"data_directory": str(pgdata)}
    values = configured_values(
        _LIBRARIES,
        pgdata,
        prepared.binaries,
        user=prepared.user,
        settings=settings,
        environment=plain_environment(),
    )
    found += [f"{name}: '{value}' was not loaded" for name, value in values.items() if value]
    return tuple(found)


class ClusterChecks:
    """Runs PostgreSQL's client programs against the restored cluster."""

    def __init__(
        self,
        binaries: Binaries,
        folder: Path,
        user: ServerUser,
        *,
        role: str,
        database: str,
        timeout_seconds: float,
    ) -> None:
        """``timeout_seconds`` is the limit of each check."""
        self._timeout_seconds = timeout_seconds
        self._binaries = binaries
        self._user = user
        self._environment = {
            **plain_environment(),
            "LC_MESSAGES": "C",
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
        """Check that every table and index of every database is sound (pg_amcheck); none may be left out."""
        done = self._run("pg_amcheck", ["pg_amcheck", "--all", "--install-missing", "--jobs=2"])
        left_out = [words for words in done.warnings if _LEFT_OUT in words]
        return replace(done, ok=False, output="\n".join(left_out)) if done.ok and left_out else done

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
                    timeout=self._timeout_seconds,
                    cwd="/",
                    env=self._environment,
                    **self._user.popen_options(),  # type: ignore[call-overload]
                )
        except (OSError, PostgresError) as error:
            return DrillCheck(name, ok=False, output=str(error))
        except subprocess.TimeoutExpired:
            return DrillCheck(name, ok=False, output=f"it has not ended within {self._timeout_seconds:g} s")
        words = done.stderr.decode("utf-8", errors="replace")
        text = (done.stdout.decode("utf-8", errors="replace") + words).strip()
        output = "" if done.returncode == 0 else text[-_OUTPUT_CHARACTERS:]
        return DrillCheck(name, done.returncode == 0, output, program_warnings(words))


def failed_checks(checks: tuple[DrillCheck, ...]) -> Mapping[str, str]:
    """Return the output of the failed checks, by name."""
    return {check.name: check.output for check in checks if not check.ok}
