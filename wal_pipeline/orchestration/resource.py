"""Defines the resource through which Dagster's code reaches stores, catalog, spool and server."""

from functools import lru_cache
from pathlib import Path

import dagster as dg

from wal_pipeline.wiring.pipeline import Pipeline, open_pipeline


class WalPipelineResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The stores, the catalog, the spool and the server that the settings describe.

    Credentials come from the environment where the code runs. No run's configuration holds one.
    """

    env_file: str | None = None

    def open(self) -> Pipeline:
        """Return the pipeline, made once in a process. Raises: SettingsError."""
        return _open(self.env_file)

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002 - Dagster's signature
        """Record how many requests this run sent to the stores."""
        if _open.cache_info().currsize:
            self.open().record_requests()


@lru_cache(maxsize=8)
def _open(env_file: str | None) -> Pipeline:
    return open_pipeline(None if env_file is None else Path(env_file))
