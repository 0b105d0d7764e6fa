"""Turns the settings into how archiving shall be, for ``setup`` and ``check``."""

from wal_pipeline.commands.setup.plan import WantedArchiving
from wal_pipeline.errors import SettingsError
from wal_pipeline.settings import UnreadableWal
from wal_pipeline.wiring.pipeline import Pipeline


def wanted_archiving(pipeline: Pipeline, *, replace_foreign: bool = False) -> WantedArchiving:
    """Return how the server shall archive. Raises: SettingsError where the spool is not set.

    Where the codec or a recipient cannot be used, archiving itself fails with the reason; here only the memory stays
    unjudged.
    """
    settings = pipeline.settings
    try:
        encoder = pipeline.encoder
    except SettingsError:
        encoder = None
    return WantedArchiving(
        settings.require_spool_folder(),
        settings.archive_timeout_seconds,
        replace_foreign,
        encoder=encoder,
        bindir=settings.pgbindir,
        unreadable_wal=settings.unreadable_wal is UnreadableWal.ARCHIVE,
    )
