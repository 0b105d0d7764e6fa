"""Makes a search in the WAL from the settings and a person's options."""

from collections.abc import Mapping
from datetime import datetime
from functools import partial

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.recovery.names.relation_names import RelationNames
from wal_pipeline.commands.find.options import FindOptions
from wal_pipeline.commands.find.search import Find
from wal_pipeline.commands.restore.contents import find_system_identifier
from wal_pipeline.settings import STORE_NAMES
from wal_pipeline.stores.base import Store
from wal_pipeline.wiring.pipeline import Pipeline
from wal_pipeline.wiring.relations import relation_names


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
    read_names = partial(_names, pipeline, layout, stores, ask_server)
    return Find(options, request, tuple(stores.values()), layout, pipeline.identities, read_names, pipeline.clock)


def _names(
    pipeline: Pipeline, layout: Layout, stores: Mapping[str, Store], ask_server: bool, since: datetime
) -> tuple[RelationNames, tuple[str, ...]]:
    return relation_names(pipeline, layout, stores, ask_server=ask_server, since=since)
