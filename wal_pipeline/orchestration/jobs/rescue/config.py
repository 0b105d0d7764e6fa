"""Describes the configuration of the job that brings tables back, as the launchpad scaffolds and explains it."""

from typing import Final

import dagster as dg
from pydantic import ConfigDict, Field

NO_TABLE: Final = "<schema.table>"
NO_DATABASE: Final = "<database>"
NO_XID: Final = 0
# The launchpad shows the fields with a default, in the order of their names: see RestoreConfig.
_WHAT_THEY_TAKE: Final = (
    "before_xid is the transaction that find_transactions names",
    "to_time may be asked for instead, such as 2026-11-29 14:05:00+00",
    "into is where to, such as dbname=shop; a new schema is made there",
    "output, a new dump's path, may be asked for instead of into",
    "plan_only true checks all and writes nothing",
    "every other field is in the panel beside this text",
)


class RescueConfig(dg.Config):
    """Which tables to bring back, as of when, and where to; ``wal-pipeline rescue --help`` explains each.

    The fields that most rescues need have a default, so that the launchpad begins with them. The asset
    found_transactions shows them filled in.
    """

    model_config = ConfigDict(populate_by_name=True)

    tables: list[str] = Field([NO_TABLE], description="The tables, each as schema.table, with all their partitions.")
    before_xid: int = Field(NO_XID, description="Just before this transaction. 0: another moment is given.")
    into: str | None = Field(
        f"dbname={NO_DATABASE}",
        description="Load into this database, in one transaction, into a new schema. No password belongs here: "
        "PGPASSWORD or ~/.pgpass of the code location has it. Host and port: those of WAL_PIPELINE_CONNINFO.",
    )
    plan_only: bool = Field(False, description="true: check everything, show the plan, write nothing. false: rescue.")
    what_they_take: list[str] = Field(
        list(_WHAT_THEY_TAKE), description="Only text for the reader. The run does not read it."
    )
    committed_at: str | None = Field(
        None, description="When that transaction was committed: a base backup from before it is taken."
    )
    database: str | None = Field(None, description="The database then, where several had the tables. It may be gone.")
    whole_database: bool | None = Field(None, description="true: all of the database, with output.")
    output: str | None = Field(
        None, description="Write a new dump in custom format to this path on the database's host, in place of into."
    )
    as_schema: str | None = Field(
        None, alias="as", description="The schema to load into (default: such as rescued_20261129t1755)."
    )
    to_time: str | None = Field(None, description="As of this moment, such as 2026-11-29 14:05:00+00.")
    to_lsn: str | None = Field(None, description="As of this LSN, such as 16/B374D848.")
    to_xid: int | None = Field(None, description="As of this transaction.")
    to_name: str | None = Field(None, description="As of this named restore point.")
    inclusive: bool | None = Field(None, description="false: just before that moment.")
    timeline: str | None = Field(None, description="latest (the default), current, or a timeline's number.")
    store: str | None = Field(None, description="The store to read from: any (the default), r2, b2 or local.")
    base_backup: str | None = Field(None, description="Begin with this base backup.")
    system_identifier: int | None = Field(None, description="Which server's archive, where the stores hold several.")
    folder: str | None = Field(None, description="The scratch folder, which is made and removed.")
    owner: str | None = Field(None, description="As root: the user who runs the scratch server.")
    role: str | None = Field(None, description="The cluster's superuser (default: that of the drills, or postgres).")
