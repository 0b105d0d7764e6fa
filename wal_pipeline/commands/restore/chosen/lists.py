"""Reads the lists that say what the databases of a cluster were called, from any store."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from wal_pipeline.commands.relations.read import read_relation_lists
from wal_pipeline.commands.restore.chosen.databases import DatabaseList
from wal_pipeline.stores.cluster_store import ClusterStore


def read_database_lists(
    places: Sequence[ClusterStore], identities: Sequence[Any], begun_at: datetime
) -> tuple[Sequence[DatabaseList], Sequence[str]]:
    """Return the lists that tell the databases' names from ``begun_at`` on, and what could not be read."""
    return read_relation_lists({place.name: place for place in places}, identities, since=begun_at)
