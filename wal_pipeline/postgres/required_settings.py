"""Reads the five settings that recovery needs as large as they were on the original, and what is configured."""

import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.binaries import Binaries
from wal_pipeline.postgres.recovery_server import ServerUser

# pg_controldata's words for each. The control file has the base backup's values, and during recovery those of the last
# parameter change that was replayed (xlog.c: XLOG_PARAMETER_CHANGE), also where recovery could not go on with it.
_CONTROL_WORDS: Final = {
    "max_connections": "max_connections",
    "max_worker_processes": "max_worker_processes",
    "max_wal_senders": "max_wal_senders",
    "max_prepared_transactions": "max_prepared_xacts",
    "max_locks_per_transaction": "max_locks_per_xact",
}
REQUIRED_SETTINGS: Final = tuple(_CONTROL_WORDS)
_TIMEOUT_SECONDS: Final = 30
_WRONG_PROGRAMS: Final = "Use the programs of the cluster's own major version."
_WRONG_FILE: Final = "Mend the configuration file that is named; the data directory stays as it is."


def settings_of_original(pgdata: Path, binaries: Binaries) -> dict[str, int]:
    """Return the five settings of the server that wrote the WAL, as far as it was replayed. Raises: PostgresError."""
    command = [str(binaries.program("pg_controldata")), "-D", str(pgdata.absolute())]
    failure = PostgresError(f"'{pgdata}' does not tell the settings of its original", hint=_WRONG_PROGRAMS)
    text = _output_of(command, {"LC_ALL": "C"}, None, failure)
    found = {name: re.search(rf"^{word} setting: +(\d+)$", text, re.M) for name, word in _CONTROL_WORDS.items()}
    return {name: int(match[1]) for name, match in found.items() if match is not None}


def configured_values(
    names: Iterable[str],
    pgdata: Path,
    binaries: Binaries,
    *,
    user: ServerUser,
    settings: Mapping[str, str],
    environment: Mapping[str, str],
) -> dict[str, str]:
    """Return the values that a server in ``pgdata`` would start with, with ``settings`` on its command line.

    The server's own program reads its configuration files and starts nothing (``postgres -C``).

    Raises: PostgresError where the configuration cannot be read: the server would not start either.
    """
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    command = [str(binaries.program("postgres")), "-D", str(pgdata), *options]
    failure = PostgresError(f"the server in '{pgdata}' cannot read its configuration", hint=_WRONG_FILE)
    return {name: _output_of([*command, "-C", name], environment, user, failure).strip() for name in names}


def too_low(needed: Mapping[str, int], configured: Mapping[str, str]) -> dict[str, int]:
    """Return the values that are needed and higher than the configured ones."""
    return {name: value for name, value in needed.items() if value > int(configured.get(name, 0))}


def _output_of(
    command: list[str], environment: Mapping[str, str], user: ServerUser | None, failure: PostgresError
) -> str:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_TIMEOUT_SECONDS,
            cwd="/",
            env=dict(environment),
            **(user.popen_options() if user else {}),  # type: ignore[call-overload]
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PostgresError(f"'{command[0]}' did not answer: {error}") from error
    if done.returncode != 0:
        words = done.stderr.strip() or f"'{command[0]}' ended with {done.returncode}"
        raise PostgresError(f"{failure.message}: {words}", hint=failure.hint)
    return str(done.stdout)
