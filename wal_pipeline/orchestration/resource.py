"""The one door through which Dagster's code reaches the outside world."""

from functools import lru_cache
from pathlib import Path

import dagster as dg

from wal_pipeline.wiring.pipeline import Pipeline, open_pipeline


class WalPipelineResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """What the settings describe: stores, catalog, spool, server.

    Credentials are read from the environment where the code runs; none is ever part of a run's configuration.
    """

    env_file: str | None = None

    def open(self) -> Pipeline:
        """Return the objects, made once in a process. Raises: SettingsError."""
        return _open(self.env_file)

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002 - Dagster's signature
        """Count what this run asked of the stores."""
        if _open.cache_info().currsize:
            self.open().record_requests()


@lru_cache(maxsize=8)
def _open(env_file: str | None) -> Pipeline:
    return open_pipeline(None if env_file is None else Path(env_file))
