"""Makes a restored configuration open its own data directory, where it names its original's."""

import os
from pathlib import Path
from typing import Final

from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.binaries import Binaries
from wal_pipeline.postgres.recovery import quoted
from wal_pipeline.postgres.recovery_server import ServerUser
from wal_pipeline.postgres.required_settings import configured_values

_CONFIG: Final = "postgresql.conf"
_KEPT_VARIABLES: Final = ("PATH", "LD_LIBRARY_PATH", "LANG", "TZ")


def keep_own_folder(pgdata: Path, binaries: Binaries, user: ServerUser) -> tuple[str, ...]:
    """Add a line to the folder's own postgresql.conf where a server with it would open another folder; say so.

    ``data_directory`` wins over ``-D``, and postgresql.auto.conf cannot hold it: it is read from the folder that is
    opened. The last line of the file wins over all before it, also over those of included files.

    Raises: PostgresError where the line cannot be written.
    """
    path = pgdata / _CONFIG
    if not path.is_file():
        return ()
    environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    try:
        found = configured_values(["data_directory"], pgdata, binaries, user=user, settings={}, environment=environment)
    except PostgresError:
        return ()  # no server starts with it, so that it opens no folder; whoever starts one learns why
    other = Path(found["data_directory"])
    if other.resolve() == pgdata.resolve():
        return ()
    _append(
        path, f"\n# wal-pipeline restore: the line before named '{other}'\ndata_directory = {quoted(str(pgdata))}\n"
    )
    return (f"data_directory is '{pgdata}' in '{path}', it was '{other}'",)


def _append(path: Path, text: str) -> None:
    try:
        with open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW), "ab") as file:  # noqa: PTH123
            file.write(text.encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise PostgresError(
            f"'{path}' names another data directory, and cannot be changed: {error.strerror}",
            hint="Take data_directory out of it before you start the server: it would open the other folder.",
        ) from error
