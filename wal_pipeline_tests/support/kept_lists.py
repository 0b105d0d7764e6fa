"""Puts lists of relations on the stores of tests."""

from dataclasses import replace
from datetime import datetime

from wal_pipeline.archive.format.relations import RelationList
from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.encoder import Encoder
from wal_pipeline.commands.relations.stored_list import describe_list, put_list
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline_tests.support.relation_lists import relation, relation_list


def put(place: ClusterStore, listed: RelationList, encoder: Encoder | None = None) -> str:
    """Put a list on a store, and return its key."""
    content = listed.to_json()
    encoded = (encoder or Encoder(Codec.ZSTD)).encode(content)
    return put_list(place, describe_list(listed, content), encoded, read_back=True)


def list_at(place: ClusterStore, at: datetime) -> RelationList:
    """Return a list of a moment, of the cluster whose store it is."""
    listed = relation_list([relation("orders", 16400)])
    return replace(listed, taken_at=at, system_identifier=place.layout.system_identifier)
