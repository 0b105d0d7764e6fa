"""Decides the settings of a standby: those that its recovery needs, and those that its configuration must not have."""

import os
from pathlib import Path
from typing import Final

from wal_pipeline.commands.restore.places.configuration import find_outside
from wal_pipeline.commands.restore.prepare import PreparedRestore, RestoreRequest
from wal_pipeline.commands.restore.standby.request import StandbyRequest
from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.recovery import (
    AUTO_CONF,
    FollowedPrimary,
    RecoverySettings,
    TargetAction,
    replace_settings,
)
from wal_pipeline.postgres.required_settings import (
    REQUIRED_SETTINGS,
    configured_values,
    settings_of_original,
    too_low,
)

_ARCHIVE_MODE: Final = "archive_mode"
_CONFIG_FILE: Final = "postgresql.conf"


def following_settings(request: RestoreRequest, standby: StandbyRequest, restore_command: str) -> RecoverySettings:
    """Return a standby's recovery settings. Its timeline is the one that a person asked for, ``latest`` or a number.

    One that is there keeps its primary and its slot, unless others are named. No segment is left out by a bound: the
    standby follows what is archived after the plan.
    """
    return RecoverySettings(
        restore_command=restore_command,
        target=None,
        inclusive=True,
        timeline=str(request.target.timeline),
        action=TargetAction.PROMOTE,
        follows=FollowedPrimary(standby.conninfo, standby.slot, stays=request.wal_only and not standby.conninfo),
    )


def fit_for_standby(prepared: PreparedRestore) -> tuple[str, ...]:
    """Change what would end a standby in the configuration that its server will read; return what was changed.

    ``archive_mode = always`` becomes ``on``: the standby would archive all that it gets from the stores and from its
    primary once more, and its disk fills where nothing takes that away. The five settings that hot standby needs as
    high as on the primary are raised, for good: PostgreSQL pauses the replay of a hot standby that has less.

    Raises: PostgresError where postgresql.auto.conf cannot be written.
    """
    request = prepared.request
    if request.standby is None:
        return ()
    pgdata = request.pgdata.absolute()
    try:
        found = configured_values(
            [_ARCHIVE_MODE, *REQUIRED_SETTINGS],
            pgdata,
            prepared.binaries,
            user=prepared.user,
            settings={"data_directory": str(pgdata), **_config_file(prepared, pgdata)},
            environment=os.environ,
        )
        low = too_low(settings_of_original(pgdata, prepared.binaries), found)
    except PostgresError as error:
        return (f"nothing, for the configuration cannot be read: archive_mode must not be 'always' ({error.message})",)
    added = {name: str(value) for name, value in low.items()}
    words = [
        f"{name} is {value} in {AUTO_CONF}, as on the primary; it was {found[name]}" for name, value in low.items()
    ]
    if found[_ARCHIVE_MODE] == "always":
        added[_ARCHIVE_MODE] = "on"
        words.append(
            f"archive_mode is 'on' in {AUTO_CONF}, it was 'always': the standby archives once it is promoted, and not "
            "again what it gets from the stores"
        )
    if added:
        replace_settings(pgdata, (), added)
    return tuple(words)


def _config_file(prepared: PreparedRestore, pgdata: Path) -> dict[str, str]:
    """Return the setting for a configuration file outside the data directory, such as Debian's; nothing without one."""
    if prepared.request.config_file is not None:
        return {"config_file": str(prepared.request.config_file)}
    if (pgdata / _CONFIG_FILE).exists():
        return {}
    found = find_outside(pgdata, prepared.binaries.major)
    return {} if found is None else {"config_file": str(found)}
