"""Makes the drills that the settings describe."""

import socket
from collections.abc import Callable
from random import Random

from wal_pipeline.commands.drill.drill import Drill
from wal_pipeline.commands.drill.result import DrillOptions
from wal_pipeline.commands.restore.contents import find_system_identifier
from wal_pipeline.commands.restore_times import read_times
from wal_pipeline.host.mounts import removable
from wal_pipeline.wiring.pipeline import Pipeline


def drills_of(pipeline: Pipeline, *, seed: int | None = None) -> Callable[[str], Drill]:
    """Return a function that makes the drill of a store, by its name; ``seed`` draws the same moments again."""
    settings, random = pipeline.settings, Random(seed)  # noqa: S311 - a drill's moment is no secret
    options = DrillOptions(
        folder=removable(settings.scratch_folder(), f"wal-pipeline-drill-{settings.cluster}"),
        owner=settings.drill_owner,
        role=settings.drill_role,
        database=settings.drill_database,
        amcheck=settings.drill_amcheck,
        sql_file=settings.drill_sql_file,
        bindir=settings.pgbindir,
    )

    def open_drill(name: str) -> Drill:
        store = pipeline.open_stores([name])[name]
        identifier = find_system_identifier(
            [store], settings.prefix, settings.cluster, pipeline.ask_system_identifier() or settings.system_identifier
        )
        return Drill(
            store=store,
            layout=pipeline.layout(identifier),
            identities=pipeline.identities,
            options=options,
            clock=pipeline.clock,
            random=random,
            host=socket.gethostname(),
            known=read_times(pipeline.catalog),
        )

    return open_drill
