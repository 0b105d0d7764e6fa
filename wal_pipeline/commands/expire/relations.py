"""Reads from a survey which lists of relations one store has, and by which keys."""

from collections import defaultdict

from wal_pipeline.archive.retention.relations import HeldList, list_name
from wal_pipeline.commands.inventory.survey import ClusterSurvey


def read_lists_of(survey: ClusterSurvey, store: str) -> tuple[dict[str, HeldList], dict[str, tuple[str, ...]]]:
    """Return the lists of relations of one store by their moments, and their keys by ``list_name``; hidden ones too."""
    listing = survey.listings[store]
    keys: dict[str, set[str]] = defaultdict(set)
    sizes: dict[str, int] = defaultdict(int)
    for moment, items in listing.relations.items():
        keys[moment].update(item.key for item in items)
        sizes[moment] += sum(item.size_bytes for item in items)
    for key, size_bytes in listing.hidden.size_bytes.items():
        stored = survey.layout.parse_relations_key(key)
        if stored is not None:
            keys[stored.moment].add(key)
            sizes[stored.moment] += size_bytes
    lists = {moment: HeldList(len(found), sizes[moment]) for moment, found in keys.items()}
    return lists, {list_name(moment): tuple(sorted(found)) for moment, found in keys.items()}
