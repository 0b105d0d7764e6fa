"""Runs the search: the options come from the run's configuration, what it finds goes to the asset.

Loaded by that run alone.
"""

from typing import Final

import dagster as dg

from wal_pipeline.commands.find.options import FindOptionError, FindOptions
from wal_pipeline.commands.find.search import FindEvents
from wal_pipeline.orchestration.assets.accident_desk.found_transactions import found_metadata, found_sentence
from wal_pipeline.orchestration.jobs.find.config import HOUR_BEFORE, LATEST, FindConfig
from wal_pipeline.orchestration.keys import Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.failures import RunError
from wal_pipeline.text import size
from wal_pipeline.wiring.find import find_of

_NOT_READ: Final = ("what_they_take",)
_MOST_LISTED: Final = 200
_LOG_STEPS: Final = 10


def run_find(context: dg.OpExecutionContext, config: FindConfig, resource: WalPipelineResource, keys: Keys) -> None:
    """Search, and materialize what was found.

    Raises: RunError where some WAL of that time could not be read, after what was found is shown; else as ``Find.run``.
    """
    find = find_of(resource.open(), find_options(config))
    result = find.run(_RunLog(context))
    metadata = found_metadata(result, find.request.timeline)
    context.log_event(dg.AssetMaterialization(keys.found_transactions, metadata=metadata))
    context.add_output_metadata({"result": found_sentence(result)})
    if result.holes:
        raise RunError.refused(f"some WAL of that time could not be read: {'; '.join(result.holes)}")


def find_options(config: FindConfig) -> FindOptions:
    """Return the options that a run's configuration names. Raises: FindOptionError."""
    if not 1 <= config.limit <= _MOST_LISTED:
        raise FindOptionError(
            f"limit is {config.limit}, expected 1 to {_MOST_LISTED}",
            hint="'wal-pipeline find --json' lists all of them in a terminal.",
        )
    given = {name: value for name, value in dict(config).items() if value is not None and name not in _NOT_READ}
    for name, words in (("from_time", HOUR_BEFORE), ("to_time", LATEST)):
        if given[name].strip().lower() in ("", words):
            del given[name]
    return FindOptions(**given)


class _RunLog(FindEvents):
    """Writes ten lines of progress into the run's log."""

    def __init__(self, context: dg.OpExecutionContext) -> None:
        self._context = context
        self._window_bytes = self._came_bytes = self._told = 0

    def planned(self, window_bytes: int) -> None:
        """Log how much there is to read."""
        self._window_bytes = window_bytes
        self._context.log.info(f"reads {size(window_bytes)} of WAL")

    def came(self, size_bytes: int) -> None:
        """Log each tenth of it."""
        self._came_bytes += size_bytes
        step = _LOG_STEPS * self._came_bytes // max(self._window_bytes, 1)
        if self._told < step <= _LOG_STEPS:
            self._told = step
            self._context.log.info(f"read {size(self._came_bytes)} of {size(self._window_bytes)}")
