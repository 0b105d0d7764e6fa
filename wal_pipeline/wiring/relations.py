"""Turns the settings into what keeps lists of relations, and into the names that they and the server know."""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.recovery.names.relation_names import RelationNames
from wal_pipeline.commands.relations.read import list_relation_lists, read_relation_lists
from wal_pipeline.errors import PostgresError, SettingsError, StoreError
from wal_pipeline.stores.base import Store
from wal_pipeline.stores.cluster_store import cluster_stores
from wal_pipeline.wiring.pipeline import Pipeline, open_backup_server, open_server

if TYPE_CHECKING:  # imported when it is asked for: a restore without a server needs no driver
    from wal_pipeline.archive.format.relations import RelationList
    from wal_pipeline.commands.relations.keep import KeepAttempt, RelationKeeper
    from wal_pipeline.commands.relations.stored_list import StoredList

_ASKED_SECONDS = 60.0


def relation_keeper(pipeline: Pipeline, *, of_backup: bool = False) -> "RelationKeeper":
    """Return what keeps a list of the relations of the server, or of that which base backups are taken from.

    Raises: SettingsError.
    """
    from wal_pipeline.commands.relations.keep import RelationKeeper
    from wal_pipeline.postgres.relation_query import RelationServer

    return RelationKeeper(
        (open_backup_server if of_backup else open_server)(RelationServer, pipeline.settings),
        pipeline.stores,
        pipeline.layout,
        pipeline.encoder,
        read_back=pipeline.settings.read_back,
        system_identifier=pipeline.settings.system_identifier,
    )


def try_keep_relations(pipeline: Pipeline) -> "KeepAttempt":
    """Keep a list for a base backup; nothing is raised."""
    from wal_pipeline.commands.relations.keep import KeepAttempt

    try:
        return relation_keeper(pipeline, of_backup=True).try_keep()
    except SettingsError as error:
        return KeepAttempt.failed(error.message)


def relation_names(
    pipeline: Pipeline,
    layout: Layout,
    stores: Mapping[str, Store],
    *,
    ask_server: bool = True,
    since: datetime | None = None,
) -> tuple[RelationNames, tuple[str, ...]]:
    """Return the names that the stores' lists and the server know, and notes of what could not be read.

    With ``since`` the lists from before it are left out, but for the one that was in force then: a month of lists of
    20,000 tables takes half a minute to read.
    The server is asked for what it has now, unless it is another cluster's, or not ``ask_server``.
    """
    lists, notes = relation_lists(pipeline, layout, stores, ask_server=ask_server, since=since)
    return RelationNames(lists), tuple(notes)


def relation_lists(
    pipeline: Pipeline,
    layout: Layout,
    stores: Mapping[str, Store],
    *,
    ask_server: bool = True,
    since: datetime | None = None,
) -> "tuple[list[RelationList], list[str]]":
    """Return the stores' lists and the server's own of now, the oldest first, and notes of what could not be read."""
    lists, notes = read_relation_lists(cluster_stores(stores, layout), pipeline.identities, since=since)
    if ask_server:
        try:
            lists += _ask(pipeline, layout.system_identifier)
        except PostgresError as error:
            notes.append(f"the names are those of the kept lists alone: {error.message}")
    return lists, notes


def _ask(pipeline: Pipeline, system_identifier: int) -> "list[RelationList]":
    """Return the list of the server as it is now. Raises: PostgresError where it is another cluster's too."""
    from wal_pipeline.postgres.relation_query import RelationServer

    server = open_server(RelationServer, pipeline.settings)
    found = server.system_identifier()
    if found != system_identifier:
        raise PostgresError(f"the server has system identifier {found}, expected {system_identifier}")
    return [server.relation_list(most_seconds=_ASKED_SECONDS)]


def stored_relation_lists(pipeline: Pipeline) -> "tuple[dict[int, dict[str, list[StoredList]]], dict[str, str]]":
    """Return the copies of all lists by system identifier and moment, and why stores do not answer, by their names."""
    from wal_pipeline.commands.inventory.system_identifiers import system_identifiers

    settings, silent, identifiers = pipeline.settings, dict[str, str](), set[int]()
    for store in pipeline.stores.values():
        try:
            identifiers |= system_identifiers(store, settings.prefix, settings.cluster)
        except StoreError as error:
            silent[store.name] = error.message
    asked = {name: store for name, store in pipeline.stores.items() if name not in silent}
    found: dict[int, dict[str, list[StoredList]]] = {}
    for identifier in sorted(identifiers):
        found[identifier], more = list_relation_lists(cluster_stores(asked, pipeline.layout(identifier)))
        silent |= more
    return found, silent
