"""Reads a cluster's timeline history files from whichever store has a good copy."""

from collections.abc import Iterable

from wal_pipeline.commands.archive_get.wal_source import WalSource
from wal_pipeline.commands.inventory.listing import StoreListing
from wal_pipeline.errors import WalPipelineError
from wal_pipeline.wal.names import FileKind, parse_file_name
from wal_pipeline.wal.timeline import TimelineHistory


def read_histories(
    listings: Iterable[StoreListing], source: WalSource
) -> tuple[dict[int, TimelineHistory], tuple[str, ...]]:
    """Read the timeline history files that any listing has, and say which could not be read.

    Each comes from the first of ``source``'s stores with a good copy; the result is by timeline.
    """
    parsed = (parse_file_name(name) for one in listings for name in one.wal if name.endswith(".history"))
    names = {one for one in parsed if one is not None and one.kind is FileKind.HISTORY}
    found: dict[int, TimelineHistory] = {}
    notes = []
    for name in sorted(names, key=lambda one: one.timeline):
        try:
            fetched = source.fetch(name)
            if fetched is not None:
                found[name.timeline] = TimelineHistory.parse(name.timeline, fetched.data)
        except WalPipelineError as error:
            notes.append(error.message)
    return found, tuple(notes)
