"""Makes a restored configuration open its own data directory, where it names its original's."""

import os
from pathlib import Path
from typing import Final

from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.binaries import Binaries
from wal_pipeline.postgres.environment import plain_environment
from wal_pipeline.postgres.recovery import quoted
from wal_pipeline.postgres.recovery_server import ServerUser
from wal_pipeline.postgres.required_settings import configured_values

_CONFIG: Final = "postgresql.conf"


def keep_own_folder(pgdata: Path, binaries: Binaries, user: ServerUser) -> tuple[str, ...]:
    """Add a line to the folder's own postgresql.conf where a server with it would open another folder; say so.

    ``data_directory`` wins over ``-D``, and postgresql.auto.conf cannot hold it: it is read from the folder that is
    opened. The last line of the file wins over all before it, also over those of included files.

    Raises: PostgresError where the line cannot be written.
    """
    path = pgdata / _CONFIG
    if not path.is_file():
        return ()
    environment = plain_environment()
    try:
        found = configured_values(["data_directory"], pgdata, binaries, user=user, settings={}, environment=environment)
    except PostgresError as error:
        return _keep_unread(path, pgdata, error)
    other = Path(found["data_directory"])
    if other.resolve() == pgdata.resolve():
        return ()
    _append(path, f"the line before named '{other}'", pgdata)
    return (f"data_directory is '{pgdata}' in '{path}', it was '{other}'",)


def _keep_unread(path: Path, pgdata: Path, error: PostgresError) -> tuple[str, ...]:
    """Name the folder also where no program here reads the file: another one may, such as after a locale came."""
    if path.read_bytes().endswith(_line(pgdata)):
        return ()
    _append(path, "the file could not be read with PostgreSQL's program", pgdata)
    return (f"data_directory is '{pgdata}' in '{path}', which PostgreSQL's program cannot read yet: {error.message}",)


def _line(pgdata: Path) -> bytes:
    return f"data_directory = {quoted(str(pgdata))}\n".encode("utf-8", "surrogateescape")


def _append(path: Path, why: str, pgdata: Path) -> None:
    text = f"\n# wal-pipeline restore: {why}\n".encode("utf-8", "surrogateescape")
    try:
        with open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW), "ab") as file:  # noqa: PTH123
            file.write(text + _line(pgdata))
    except OSError as error:
        raise PostgresError(
            f"'{path}' may name another data directory, and cannot be changed: {error.strerror}",
            hint="Take data_directory out of it before you start the server: it would open the other folder.",
        ) from error
