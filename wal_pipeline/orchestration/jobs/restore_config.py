"""Describes the configuration of the restore job, as the launchpad shows it."""

import dagster as dg


class RestoreConfig(dg.Config):
    """Where to restore to and which moment; ``wal-pipeline restore --help`` explains each.

    ``plan_only`` (the default) writes nothing: read the plan in the run's log, then start the job again without it.
    ``archiving``: true for the server that takes its original's place, false for a copy beside it; it must be set where
    the original may still live.
    """

    pgdata: str
    plan_only: bool = True
    to_time: str | None = None
    to_lsn: str | None = None
    to_xid: int | None = None
    to_name: str | None = None
    immediate: bool = False
    inclusive: bool = True
    timeline: str = "latest"
    store: str = "any"
    action: str = "promote"
    base_backup: str | None = None
    system_identifier: int | None = None
    tablespaces: dict[str, str] = {}  # noqa: RUF012 - a pydantic default is copied
    force: bool = False
    owner: str | None = None
    archiving: bool | None = None
    verify: bool = True
    waldir: str | None = None
    work_dir: str | None = None
    restore_config: bool | None = None
    start: bool = False
    server_settings: dict[str, str] = {}  # noqa: RUF012
