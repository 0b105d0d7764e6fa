"""Runs a rescue: the options come from the run's configuration, what it brings goes to the asset.

Loaded by that run alone.
"""

from pathlib import Path
from typing import Any, Final

import dagster as dg

from wal_pipeline.commands.rescue.options import RescueOptions
from wal_pipeline.commands.rescue.result import RescueEvents
from wal_pipeline.commands.rescue.wanted import RescueOptionError
from wal_pipeline.commands.restore.prepare import PreparedRestore
from wal_pipeline.errors import WalPipelineError
from wal_pipeline.orchestration.assets.accident_desk.rescued_tables import rescued_metadata, rescued_sentence
from wal_pipeline.orchestration.jobs.rescue.config import NO_DATABASE, NO_TABLE, NO_XID, RescueConfig
from wal_pipeline.orchestration.jobs.restore.progress import RestoreLog, copy_rows, planned_metadata
from wal_pipeline.orchestration.keys import Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.failures import RunError
from wal_pipeline.wiring.rescue import rescue_of

_NOT_READ: Final = ("what_they_take",)
_FOLDERS: Final = ("output", "folder")


def run_rescue(context: dg.OpExecutionContext, config: RescueConfig, resource: WalPipelineResource, keys: Keys) -> None:
    """Bring the tables back, and materialize what came. With plan_only, only the op's metadata has the plan.

    Raises: RunError, whose metadata says so, where nothing was written yet; later as ``Rescue.run``.
    """
    log = _RunLog(context)
    try:
        rescue = rescue_of(resource.open(), rescue_options(config), by=f"run {context.run_id}")
        result = rescue.run(log)
    except WalPipelineError as error:
        if log.has_begun:
            raise
        raise RunError.of(error, nothing_changed=True) from None
    if result is None:
        context.add_output_metadata(log.plan)
        return
    as_of = f"{rescue.target}{'' if rescue.target.inclusive else ', just before it'}"
    context.log_event(dg.AssetMaterialization(keys.rescued_tables, metadata=rescued_metadata(result, as_of)))
    context.add_output_metadata({"result": rescued_sentence(result)})


def rescue_options(config: RescueConfig) -> RescueOptions:
    """Return the options that a run's configuration names. Raises: RescueOptionError for what is not filled in."""
    given = {name: value for name, value in dict(config).items() if value is not None and name not in _NOT_READ}
    if given["before_xid"] == NO_XID:
        del given["before_xid"]
    if given.get("into", "").strip() in ("", f"dbname={NO_DATABASE}"):
        given.pop("into", None)
    given["tables"] = tuple(table for table in config.tables if table != NO_TABLE)
    given |= {name: _path(name, given[name]) for name in _FOLDERS if name in given}
    _require_filled_in(given)
    return RescueOptions(**given)


def _path(name: str, text: str) -> Path:
    path = Path(text)
    if not path.is_absolute():
        raise RescueOptionError(
            f"{name} is '{text}', expected a path that begins with '/'",
            hint="Write a path on the database's host, such as /var/tmp/orders.dump.",
        )
    return path


def _require_filled_in(given: dict[str, Any]) -> None:
    """Say in the launchpad's words what is missing. Raises: RescueOptionError."""
    if not given["tables"] and not given.get("whole_database"):
        raise RescueOptionError(
            f"tables is still '{NO_TABLE}', expected the table to bring back",
            hint="The asset found_transactions names it, and shows this configuration filled in.",
        )
    if not given.keys() & {"before_xid", "to_time", "to_lsn", "to_xid", "to_name"}:
        raise RescueOptionError(
            "before_xid is still 0, and no other moment is given",
            hint="The asset found_transactions names the transaction; to_time takes a moment.",
        )
    if not given.keys() & {"into", "output"}:
        raise RescueOptionError(
            f"into is still 'dbname={NO_DATABASE}', and no output is given",
            hint="Write such as dbname=shop to load into a new schema there, or the path of a new dump as output.",
        )


class _RunLog(RestoreLog, RescueEvents):
    """Writes a rescue's plan and steps into the run's log; ``plan`` is the result of a run that only plans."""

    def __init__(self, context: dg.OpExecutionContext) -> None:
        super().__init__(context)
        self.plan: dict[str, dg.MetadataValue] = {}

    def planned(self, prepared: PreparedRestore) -> None:
        """Log the plan, and keep it."""
        super().planned(prepared)
        self.plan = planned_metadata(copy_rows(prepared), prepared, "rescue")

    def step(self, name: str) -> None:
        """Log the step."""
        self._context.log.info(name)
