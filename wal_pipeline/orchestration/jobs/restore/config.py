"""Describes the configuration of the restore job, as the launchpad scaffolds and explains it."""

from typing import Final

import dagster as dg
from pydantic import Field

NO_FOLDER: Final = "<folder>"
LATEST: Final = "latest"
# Dagster writes the scaffold itself: the fields with a default, in the order of their names, and no comment. So a list
# of plain sentences stands where the comments would. No line is so long that it is broken.
_WHAT_THEY_TAKE: Final = (
    "pgdata is the new data directory, on the database's host",
    "plan_only true shows the plan and writes nothing, false restores",
    "store is any, r2 or b2",
    "to_time is latest, or a moment such as 2026-11-29 14:05:00+00",
    "archiving (false for a copy, true to replace the original) may be asked for",
    "every other field is in the panel beside this text",
)


class RestoreConfig(dg.Config):
    """Where to restore to and which moment; ``wal-pipeline restore --help`` explains each.

    The fields that a restore in an emergency needs have a default, so that the launchpad begins with them. Each other
    field is unset, and then as for the command.
    """

    pgdata: str = Field(NO_FOLDER, description="The new data directory, a folder on the database's host.")
    plan_only: bool = Field(
        True, description="true: show the plan as the run's result, and write nothing. false: restore."
    )
    store: str = Field("any", description="The store to read from: any (each that has it), r2, b2 or local.")
    to_time: str | None = Field(
        LATEST,
        description="The moment to come back to, such as 2026-11-29 14:05:00+00, or latest: the end of the archive.",
    )
    what_they_take: list[str] = Field(
        list(_WHAT_THEY_TAKE), description="Only text for the reader. The run does not read it."
    )
    to_lsn: str | None = Field(None, description="Recover up to this LSN, such as 16/B374D848.")
    to_xid: int | None = Field(None, description="Recover up to this transaction.")
    to_name: str | None = Field(None, description="Recover up to this named restore point.")
    immediate: bool | None = Field(None, description="true: stop as soon as the base backup is consistent.")
    inclusive: bool | None = Field(None, description="false: stop just before the target.")
    timeline: str | None = Field(None, description="latest (the default), current, or a timeline's number.")
    action: str | None = Field(None, description="At the target: promote (the default), pause or shutdown.")
    base_backup: str | None = Field(None, description="Begin with this base backup.")
    system_identifier: int | None = Field(None, description="Which server's archive, where the stores hold several.")
    tablespaces: dict[str, str] | None = Field(None, description="Another folder for a tablespace: its old, its new.")
    tablespace_map_all: str | None = Field(
        None, description="A folder below which every other tablespace goes, each into one named by its OID."
    )
    force: bool | None = Field(None, description="true: remove what lies in the data directory.")
    delta: bool | None = Field(None, description="true: files of the old cluster that are right stay.")
    owner: str | None = Field(None, description="The operating-system user who runs the server.")
    archiving: bool | None = Field(
        None,
        description="true: the server takes its original's place and archives. false: a copy beside the original. It "
        "must be set where the original may still live.",
    )
    verify: bool | None = Field(None, description="false: do not compare the restored files.")
    verify_with: str | None = Field(None, description="own (the default), or postgres: pg_verifybackup.")
    workers: int | None = Field(None, description="Files at the same time; the cores by default.")
    waldir: str | None = Field(None, description="Another folder for pg_wal.")
    work_dir: str | None = Field(None, description="Another folder for what the restore needs meanwhile.")
    only_databases: list[str] | None = Field(
        None, description="Only these databases come back, in a copy; the others are neither fetched nor kept."
    )
    restore_config: bool | None = Field(None, description="Restore the configuration files too, or not.")
    standby: bool | None = Field(None, description="true: a standby, which follows its primary and the stores.")
    primary_conninfo: str | None = Field(
        None, description="The server that a standby streams from. No password: the setting of that name may hold one."
    )
    slot: str | None = Field(None, description="The replication slot on the primary that keeps WAL for the standby.")
    wal_only: bool | None = Field(
        None, description="true: the data directory is there; only its recovery is set up, with WAL from the stores."
    )
    start: bool | None = Field(None, description="true: start the server, and report the moment that it reached.")
    server_settings: dict[str, str] | None = Field(None, description="Settings for the started server, such as port.")
