"""Reads the lists of relations from whichever store has them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from wal_pipeline.archive.format.relations import KnownRelations, RelationList
from wal_pipeline.commands.relations.stored_list import StoredList, find_lists, open_list
from wal_pipeline.errors import StoreError, WalPipelineError
from wal_pipeline.host.gc_pause import many_objects
from wal_pipeline.stores.cluster_store import ClusterStore


def read_relation_lists(
    places: Mapping[str, ClusterStore], identities: Sequence[Any] = (), *, since: datetime | None = None
) -> tuple[list[RelationList], list[str]]:
    """Return the lists that the stores have, the oldest first, each from the first store that has it whole.

    With ``since``: those taken since then, and the newest one that can be read of those before. The notes say what
    could not be read.
    """
    moments, silent = list_relation_lists(places)
    notes = [f"{message}: its lists of relations are left out" for message in silent.values()]
    ordered = sorted(moments, reverse=True)
    found: list[RelationList] = []
    known: KnownRelations = {}
    with many_objects():
        for moment in ordered:
            listed, faults = _first_good(moments[moment], places, identities, known)
            if listed is None:
                notes += [f"the list of relations of {moment} cannot be read: {fault}" for fault in faults]
                continue
            found.append(listed)
            if since is not None and listed.taken_at <= since:
                break
    found.reverse()
    return found, notes


def _first_good(
    copies: Sequence[StoredList], places: Mapping[str, ClusterStore], identities: Sequence[Any], known: KnownRelations
) -> tuple[RelationList | None, list[str]]:
    """Return a list from the first store where it is whole, or why none has it whole."""
    faults = []
    for copy in copies:
        try:
            return open_list(places[copy.store], copy, identities, known=known), []
        except WalPipelineError as error:
            faults.append(error.message)
    return None, faults


def list_relation_lists(
    places: Mapping[str, ClusterStore],
) -> tuple[dict[str, list[StoredList]], dict[str, str]]:
    """Return the copies of each list by its moment, the oldest first, and why stores do not answer, by their names."""
    moments: dict[str, list[StoredList]] = {}
    silent: dict[str, str] = {}
    for name, place in places.items():
        try:
            for one in find_lists(place):
                moments.setdefault(one.moment, []).append(one)
        except StoreError as error:
            silent[name] = error.message
    return dict(sorted(moments.items())), silent
