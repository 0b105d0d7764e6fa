"""Describes the configuration of the job for clones, as the launchpad scaffolds and explains it."""

from enum import StrEnum
from typing import Final

import dagster as dg
from pydantic import ConfigDict, Field

LATEST: Final = "latest"
DEFAULT_KEEP_FOR: Final = "2h"
_WHAT_THEY_TAKE: Final = (
    "action is make, move, stop or list",
    "name: for move and stop, and for make where you want one",
    "to_time is latest, or a moment such as 2026-11-29 14:05:00+00",
    "for is how long it stays: 30m, 2h, 1d12h; move keeps its end",
    "to_xid (with inclusive), port, only_databases may be asked for",
    "every other field is in the panel beside this text",
)


class CloneAction(StrEnum):
    """The things that the job can do with clones."""

    MAKE = "make"
    MOVE = "move"
    STOP = "stop"
    LIST = "list"


class CloneConfig(dg.Config):
    """Makes, moves, stops or lists clones, as of a moment; ``wal-pipeline clone --help`` explains each."""

    model_config = ConfigDict(populate_by_name=True)

    action: str = Field(
        CloneAction.MAKE.value,
        description="make: a new clone. move: take one to another moment. stop: end one and remove it. list: say "
        "which stand.",
    )
    name: str = Field("", description="The clone's name. Needed to move and stop; make chooses clone-1, clone-2 …")
    to_time: str | None = Field(
        LATEST, description="As of this moment, such as 2026-11-29 14:05:00+00, or latest: the end of the archive."
    )
    keep_for: str = Field(
        DEFAULT_KEEP_FOR,
        alias="for",
        description="End and remove it after this time: 30m, 2h, 1d12h. A move changes the end only where another "
        "value than 2h is given.",
    )
    read_only: bool = Field(
        False, description="true: pause at the moment, so that a move goes onwards without a download."
    )
    what_they_take: list[str] = Field(
        list(_WHAT_THEY_TAKE), description="Only text for the reader. The run does not read it."
    )
    port: int | None = Field(
        None, description="Listen on 127.0.0.1 too, on this port: a role gets in with its password. Else a socket only."
    )
    only_databases: list[str] | None = Field(
        None, description="Bring back only these databases; the others are neither fetched nor kept."
    )
    to_lsn: str | None = Field(None, description="As of this LSN, such as 16/B374D848.")
    to_xid: int | None = Field(None, description="As of this transaction.")
    to_name: str | None = Field(None, description="As of this named restore point.")
    inclusive: bool | None = Field(None, description="false: just before that moment.")
    timeline: str | None = Field(None, description="latest (the default), current, or a timeline's number.")
    store: str | None = Field(None, description="The store to read from: any (the default), r2, b2 or local.")
    base_backup: str | None = Field(None, description="Begin with this base backup.")
    system_identifier: int | None = Field(None, description="Which server's archive, where the stores hold several.")
    owner: str | None = Field(None, description="As root: the user who runs the clone's server.")
