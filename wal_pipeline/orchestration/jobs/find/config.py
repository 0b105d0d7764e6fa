"""Describes the configuration of the job that finds transactions, as the launchpad scaffolds and explains it."""

from typing import Final

import dagster as dg
from pydantic import ConfigDict, Field

HOUR_BEFORE: Final = "an hour before that"
LATEST: Final = "latest"
# The launchpad shows the fields with a default, in the order of their names: see RestoreConfig.
_WHAT_THEY_TAKE: Final = (
    "from and to are moments such as 2026-11-29 14:05:00+00",
    "to may be latest, which is the end of the archive",
    "dropping true lists only what dropped or truncated a relation",
    "relation (sales.orders), database, min_deletes may be asked for",
    "every other field is in the panel beside this text",
)


class FindConfig(dg.Config):
    """Between which moments to look, and for what; ``wal-pipeline find --help`` explains each."""

    model_config = ConfigDict(populate_by_name=True)

    from_time: str = Field(
        HOUR_BEFORE, alias="from", description="Look from this moment on, with its zone: 2026-11-29 14:05:00+00."
    )
    to_time: str = Field(LATEST, alias="to", description="Look up to this moment; latest: the end of the archive.")
    dropping: bool = Field(False, description="true: only those that dropped, truncated or wrote anew a relation.")
    limit: int = Field(30, description="List so many, 1 to 200: those that did most harm, in the order of commits.")
    what_they_take: list[str] = Field(
        list(_WHAT_THEY_TAKE), description="Only text for the reader. The run does not read it."
    )
    database: str | None = Field(None, description="Only transactions that changed this database.")
    relation: str | None = Field(None, description="Only those that changed this relation: schema.table, or 5/16384.")
    min_deletes: int | None = Field(None, description="Only those that deleted so many rows.")
    min_rows: int | None = Field(None, description="Only those that changed so many rows.")
    biggest_first: bool | None = Field(
        None, alias="biggest", description="true: those with most WAL, the biggest first."
    )
    timeline: str | None = Field(None, description="latest (the default), or a timeline's number.")
    store: str | None = Field(None, description="The store to read from: any (the default), r2, b2 or local.")
    system_identifier: int | None = Field(None, description="Which server's archive, where the stores hold several.")
