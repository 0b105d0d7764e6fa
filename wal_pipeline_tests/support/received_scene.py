"""Makes a server, a slot on it, and a source that receives from it with pg_receivewal."""

import shutil
import tempfile
from pathlib import Path

from psycopg.conninfo import make_conninfo

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall
from wal_pipeline.commands.ship.received_wal import ReceivedWal
from wal_pipeline.postgres.backup_server import BackupServer
from wal_pipeline.postgres.flushed_wal import FlushWatch
from wal_pipeline.postgres.receivewal import ReceiveCommand, ReceiveWal
from wal_pipeline.postgres.slots import Slots

SLOT = "wal_pipeline_main"


class ReceivedScene:
    """Another host than the server's: its folder, its spool, and sources on it."""

    def __init__(self, cluster: PostgresCluster, *, programs: PostgresInstall | None = None) -> None:
        self.cluster = cluster
        self.programs = programs or cluster.install
        self.root = Path(tempfile.mkdtemp(prefix="received-"))
        self.folder = self.root / "received"
        self.spool = self.root / "spool"
        self.spool.mkdir()

    def make_slot(self) -> None:
        """Make the slot on the server."""
        Slots(BackupServer(self.cluster.conninfo)).make(SLOT)

    def receiver(self, conninfo: str | None = None) -> ReceiveWal:
        """Return pg_receivewal, not started."""
        server = BackupServer(conninfo or self.cluster.conninfo)
        command = ReceiveCommand(
            self.programs.program("pg_receivewal"),
            make_conninfo(server.program_conninfo(), application_name=SLOT),
            self.folder,
            SLOT,
        )
        return ReceiveWal(command, server.program_environment())

    def source(self) -> ReceivedWal:
        """Return a source, which starts pg_receivewal at the first look."""
        return ReceivedWal(
            FlushWatch(BackupServer(self.cluster.conninfo)),
            lambda _: self.receiver(),
            folder=self.folder,
            slot=SLOT,
            spool_folder=self.spool,
            bindir=self.cluster.install.bin_folder,
        )

    def received(self) -> list[str]:
        """Return the names of the files that pg_receivewal has, without ours."""
        return sorted(path.name for path in self.folder.iterdir() if not path.name.startswith("."))

    def remove(self) -> None:
        """Remove the folders."""
        shutil.rmtree(self.root)
