"""Sets a scratch server apart from any other one: nobody gets in but the process that started it."""

import os
from pathlib import Path
from typing import Final

from wal_pipeline.commands.restore.places.configuration import CONFIG_NAME
from wal_pipeline.commands.restore.prepare import PreparedRestore
from wal_pipeline.commands.restore.start import ServerIsolation
from wal_pipeline.postgres.environment import plain_environment
from wal_pipeline.postgres.isolation import copy_settings, worker_settings

SOCKET_FOLDER: Final = "socket"
LIBRARY_SETTINGS: Final = ("shared_preload_libraries", "session_preload_libraries", "local_preload_libraries")


def scratch_isolation(folder: Path, prepared: PreparedRestore, wal_folder: Path) -> ServerIsolation:
    """Write the files that let only its user in, and return the settings that point to them.

    The server is a copy, as one that ``restore --no-archiving`` starts, and recovers in the same way. Besides, it
    listens on a socket in ``folder`` alone, and preloads nothing.
    """
    pgdata, user = prepared.request.pgdata, prepared.user
    hba, socket, config = folder / "pg_hba.conf", folder / SOCKET_FOLDER, pgdata / CONFIG_NAME
    hba.write_text("local all all trust\n", encoding="utf-8")
    socket.mkdir(mode=0o700)
    made = [hba, socket]
    if not config.exists():  # Debian keeps it outside the data directory: an empty one will do
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
        **dict.fromkeys(LIBRARY_SETTINGS, ""),
        "max_wal_senders": "0",
    }
