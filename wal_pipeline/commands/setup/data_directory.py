"""Judges whether the server can read all of its data directory, as each base backup does."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Final

from wal_pipeline.commands.setup.findings import Finding, Level
from wal_pipeline.commands.setup.plan import SetupPlan, WantedArchiving
from wal_pipeline.errors import PostgresError
from wal_pipeline.host.mounts import LOST_AND_FOUND
from wal_pipeline.postgres.server import PostgresServer
from wal_pipeline.postgres.server_facts import ServerFacts

_NAME: Final = "data directory"


def with_data_directory(plan: SetupPlan, server: PostgresServer, facts: ServerFacts) -> SetupPlan:
    """Return the plan with the finding about the data directory; the same where nothing is wrong with it.

    It is the same too where the role may not look, or the server does not answer any more: then others say so.
    """
    try:
        closed = server.has_closed_folder(LOST_AND_FOUND)
    except PostgresError:
        return plan
    return replace(plan, findings=(*plan.findings, _closed(facts))) if closed else plan


def judge_clone(facts: ServerFacts, wanted: WantedArchiving) -> Finding | None:
    """Return the finding about a data directory that is a clone's, by the settings or the server; else None.

    A clone has the system identifier of its original, and would archive into its archive. A folder that cannot be
    looked at from here is not judged.
    """
    folders = (wanted.pgdata, None if facts.data_directory is None else Path(facts.data_directory))
    for folder in folders:
        try:
            name = None if folder is None else wanted.clone_of(folder)
        except OSError:
            continue
        if name is not None:
            message = (
                f"'{folder}' is the clone '{name}', which lasts for a while and has no archive of its own: it would "
                "archive into that of its original"
            )
            lines = (
                "use the settings of the original: PGDATA and WAL_PIPELINE_CONNINFO lead to a clone",
                "for a server that stays, restore into a folder of its own: wal-pipeline restore --pgdata FOLDER",
            )
            return Finding(_NAME, Level.PROBLEM, message, lines=lines)
    return None


def _closed(facts: ServerFacts) -> Finding:
    pgdata = Path(facts.data_directory or "PGDATA")
    message = (
        f"'{pgdata / LOST_AND_FOUND}' cannot be opened by the server: the data directory is the top of a file system, "
        "and every base backup fails"
    )
    folder = shlex.quote(str(pgdata / LOST_AND_FOUND))
    line = f"sudo chown --reference={shlex.quote(str(pgdata))} {folder}"
    return Finding(_NAME, Level.PROBLEM, message, lines=(line,))
