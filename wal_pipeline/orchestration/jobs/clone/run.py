"""Makes, moves, ends and lists clones as a run's configuration says, and shows all that stand.

Loaded by that run alone.
"""

import time
from pathlib import Path
from typing import Final

import dagster as dg

from wal_pipeline.commands.clone.options import CloneOptions
from wal_pipeline.commands.restore.options import RestoreOptionError
from wal_pipeline.errors import WalPipelineError
from wal_pipeline.orchestration.assets.accident_desk.clones import clone_sentence, clones_metadata, list_sentence
from wal_pipeline.orchestration.jobs.clone.config import DEFAULT_KEEP_FOR, LATEST, CloneAction, CloneConfig
from wal_pipeline.orchestration.jobs.restore.progress import RestoreLog
from wal_pipeline.orchestration.keys import Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.failures import RunError
from wal_pipeline.wiring.clone import clear_clones, list_clones, make_clone, move_clone, stop_clone

_NOT_READ: Final = ("what_they_take", "action")
_VERBS: Final = {CloneAction.MAKE: (make_clone, "made"), CloneAction.MOVE: (move_clone, "moved")}


def run_clone(context: dg.OpExecutionContext, config: CloneConfig, resource: WalPipelineResource, keys: Keys) -> None:
    """Do what the configuration says, and materialize the clones that stand.

    Raises: RunError, whose metadata says so, where nothing was changed yet; later as the verbs.
    """
    log = RestoreLog(context)
    try:
        answer, metadata = _done(context, config, resource, log)
    except WalPipelineError as error:
        if log.has_begun:
            raise
        raise RunError.of(error, nothing_changed=True) from None
    context.log_event(dg.AssetMaterialization(keys.clones, metadata=metadata))
    context.add_output_metadata({"result": answer})


def action_of(config: CloneConfig) -> CloneAction:
    """Return what a run shall do. Raises: RestoreOptionError for a word that is no action, or a missing name."""
    try:
        action = CloneAction(config.action.strip().lower())
    except ValueError:
        expected = ", ".join(CloneAction)
        raise RestoreOptionError(f"'{config.action}' is not an action, expected one of {expected}.") from None
    if action in (CloneAction.MOVE, CloneAction.STOP) and not config.name:
        raise RestoreOptionError(
            f"name is missing: which clone to {action.value}", hint="Start the job with action list to see their names."
        )
    return action


def clone_options(config: CloneConfig) -> CloneOptions:
    """Return the options that a run's configuration names. Raises: RestoreOptionError."""
    given = {name: value for name, value in dict(config).items() if value is not None and name not in _NOT_READ}
    if (config.to_time or "").strip().lower() in ("", LATEST):
        given.pop("to_time", None)
    if not config.name:
        del given["name"]
    if action_of(config) is CloneAction.MOVE and config.keep_for == DEFAULT_KEEP_FOR:
        given["keep_for"] = None
    given["only_databases"] = tuple(config.only_databases or ())
    return CloneOptions(**given)


def _done(
    context: dg.OpExecutionContext, config: CloneConfig, resource: WalPipelineResource, log: RestoreLog
) -> tuple[str, dict[str, dg.MetadataValue]]:
    """Do it, and return the answer and the asset's metadata."""
    action, options, pipeline = action_of(config), clone_options(config), resource.open()
    env_file = None if resource.env_file is None else Path(resource.env_file)
    by = f"run {context.run_id}"
    begun = time.monotonic()
    if action in _VERBS:
        stand, verb = _VERBS[action]
        state = stand(pipeline, options, log, env_file=env_file, by=by)
        answer, seconds = clone_sentence(state, verb), time.monotonic() - begun
        return answer, clones_metadata(answer, list_clones(pipeline), state=state, seconds=seconds)
    if action is CloneAction.STOP:
        stop_clone(pipeline, config.name, by=by)
        answer = f"clone '{config.name}' is ended and removed"
        return answer, clones_metadata(answer, list_clones(pipeline))
    removed = clear_clones(pipeline, env_file=env_file)
    standing = list_clones(pipeline)
    answer = list_sentence(standing)
    return answer, clones_metadata(answer, standing, removed=removed)
