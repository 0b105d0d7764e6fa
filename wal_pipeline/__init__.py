"""Continuous WAL archiving and point-in-time recovery for PostgreSQL, run by Dagster."""

from typing import Final

__version__: Final = "0.1.0"
