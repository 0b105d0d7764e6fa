"""Checks the cluster that a drill's server opened, and says what the drill does not prove."""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from wal_pipeline.commands.beside.scratch_server import LIBRARY_SETTINGS, SOCKET_FOLDER
from wal_pipeline.commands.drill.result import DrillCheck
from wal_pipeline.commands.restore.places.configuration import CONFIG_NAME
from wal_pipeline.commands.restore.prepare import PreparedRestore
from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.backup_words import program_warnings
from wal_pipeline.postgres.binaries import Binaries
from wal_pipeline.postgres.environment import plain_environment
from wal_pipeline.postgres.recovery_server import ServerUser
from wal_pipeline.postgres.required_settings import configured_values

_OUTPUT_CHARACTERS: Final = 2000
_LEFT_OUT: Final = "skipping database"  # pg_amcheck.c, where amcheck is not installed in it


def not_proven(prepared: PreparedRestore) -> tuple[str, ...]:
    """Return what a restore's server has and the drill's has not, so that a drill that passes does not prove it.

    Called before ``scratch_isolation`` writes what the base backup lacks.

    Raises: PostgresError where the configuration cannot be read: a restored server would not start either.
    """
    pgdata = prepared.request.pgdata
    found = ["addresses, port, SSL and access rules: the drill's server let in the drill alone"]
    if not (pgdata / "pg_hba.conf").exists():
        found.append("pg_hba.conf: the base backup has none, and a restored server needs one")
    if not (pgdata / CONFIG_NAME).exists():
        found.append("postgresql.conf: the base backup has none, so PostgreSQL's defaults held, also for memory")
        return tuple(found)
    settings = {"data_directory": str(pgdata)}
    values = configured_values(
        LIBRARY_SETTINGS,
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
            "PGHOST": str(folder / SOCKET_FOLDER),
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
