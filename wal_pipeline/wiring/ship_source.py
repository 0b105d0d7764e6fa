"""Opens the source of WAL that is shipped: the host's pg_wal, or the folder of a pg_receivewal."""

from pathlib import Path

from psycopg.conninfo import make_conninfo

from wal_pipeline.commands.setup.findings import Level
from wal_pipeline.commands.setup.setup import MoreFindings
from wal_pipeline.commands.setup.shipping import ShippingLook
from wal_pipeline.commands.ship.host_wal import HostWal
from wal_pipeline.commands.ship.received_wal import ReceivedWal
from wal_pipeline.commands.ship.source import OpenWal
from wal_pipeline.postgres.backup_server import BackupServer
from wal_pipeline.postgres.binaries import find_binaries
from wal_pipeline.postgres.flushed_wal import FlushWatch
from wal_pipeline.postgres.receivewal import PROGRAM, ReceiveCommand, ReceiveWal
from wal_pipeline.wiring.pipeline import Pipeline, open_server

RECEIVED_FOLDER = "received-wal"


def open_wal(pipeline: Pipeline) -> OpenWal:
    """Return the source of WAL that the settings name. Connects at the first look. Raises: SettingsError."""
    settings = pipeline.settings
    watch = FlushWatch(pipeline.server)
    if settings.ship_from == "host":
        return HostWal(watch, settings.pgdata)
    folder = received_folder(pipeline)
    return ReceivedWal(
        watch,
        lambda major: _receiver(pipeline, folder, major),
        folder=folder,
        slot=settings.ship_slot,
        spool_folder=settings.require_spool_folder(),
        bindir=settings.pgbindir,
    )


def received_folder(pipeline: Pipeline) -> Path:
    """Return the folder into which pg_receivewal receives: one for each cluster, in the state folder."""
    return pipeline.settings.state_folder.absolute() / RECEIVED_FOLDER / pipeline.settings.cluster


def _receiver(pipeline: Pipeline, folder: Path, major: int) -> ReceiveWal:
    """Return pg_receivewal of the server's version or a newer one, not started. Raises: PostgresError."""
    settings = pipeline.settings
    server = open_server(BackupServer, settings)
    program = find_binaries(major, programs=[PROGRAM], bindir=settings.pgbindir).program(PROGRAM)
    # The slot's name is also the name by which synchronous_standby_names knows us.
    conninfo = make_conninfo(server.program_conninfo(), application_name=settings.ship_slot)
    return ReceiveWal(ReceiveCommand(program, conninfo, folder, settings.ship_slot), server.program_environment())


def also_for_shipping(pipeline: Pipeline, *, failing: Level) -> MoreFindings:
    """Return what setup and check look at for shipping; nothing where shipping is off."""
    settings = pipeline.settings
    if settings.ship_interval_seconds is None:
        return lambda _: ()
    look = ShippingLook(
        server=pipeline.server,
        pgdata=settings.pgdata,
        slot=settings.ship_slot if settings.ship_from == "pg_receivewal" else None,
        find_program=lambda major: find_binaries(major, programs=[PROGRAM], bindir=settings.pgbindir).program(PROGRAM),
        failing=failing,
    )
    return look.findings
