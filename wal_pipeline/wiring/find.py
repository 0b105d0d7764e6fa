"""Makes a search in the WAL from the settings and a person's options."""

from wal_pipeline.archive.recovery.names.relation_names import RelationNames
from wal_pipeline.commands.find.find import Find
from wal_pipeline.commands.find.options import FindOptions
from wal_pipeline.commands.restore.contents import find_system_identifier
from wal_pipeline.settings import STORE_NAMES
from wal_pipeline.wiring.pipeline import Pipeline


def find_of(pipeline: Pipeline, options: FindOptions, *, ask_server: bool = True) -> Find:
    """Return the search that the options describe. Only the chosen stores are opened, and asked for their clusters.

    ``ask_server``: a server that answers is asked for the names of its relations too.

    Raises: FindOptionError, RestoreError, SettingsError, StoreError.
    """
    settings = pipeline.settings
    request = options.checked()
    stores = pipeline.open_stores(options.store_names(settings.stores, STORE_NAMES))
    layout = pipeline.layout(
        find_system_identifier(
            tuple(stores.values()),
            settings.prefix,
            settings.cluster,
            options.system_identifier or settings.system_identifier,
        )
    )
    names, notes = RelationNames(()), tuple[str, ...]()
    return Find(options, request, tuple(stores.values()), layout, pipeline.identities, names, notes, pipeline.clock)
