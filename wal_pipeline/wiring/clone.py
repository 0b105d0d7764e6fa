"""Makes, moves, lists and ends clones as the settings describe them."""

import logging
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from wal_pipeline.archive.alerts import AlertKind, Observation
from wal_pipeline.commands.clone.end import CloneEnder
from wal_pipeline.commands.clone.folder import CloneFolder
from wal_pipeline.commands.clone.keeper import keep_clone, start_keeper
from wal_pipeline.commands.clone.make import CloneMaker
from wal_pipeline.commands.clone.options import CloneOptions, require_clone_name
from wal_pipeline.commands.clone.record import CloneState
from wal_pipeline.commands.clone.states import clone_states
from wal_pipeline.commands.restore.options import RestoreOptions
from wal_pipeline.commands.restore.perform import RestoreEvents
from wal_pipeline.commands.restore.run import Restore
from wal_pipeline.errors import CatalogError
from wal_pipeline.host.file_owner import name_of_user
from wal_pipeline.settings import Settings, settings_file
from wal_pipeline.wiring.pipeline import Pipeline
from wal_pipeline.wiring.restore import restore_of

_log = logging.getLogger(__name__)


def make_clone(
    pipeline: Pipeline,
    options: CloneOptions,
    events: RestoreEvents,
    *,
    env_file: Path | None = None,
    by: str | None = None,
) -> CloneState:
    """Make a clone and return how it stands. ``env_file`` is the settings file that was named: its keeper reads it too.

    ``by``: who or what asked for it, as the audit log shall say; by default the user.

    Raises: as ``CloneMaker.make``, and SettingsError.
    """
    return _maker(pipeline, env_file, by).make(options, events)


def move_clone(
    pipeline: Pipeline,
    options: CloneOptions,
    events: RestoreEvents,
    *,
    env_file: Path | None = None,
    by: str | None = None,
) -> CloneState:
    """Take the clone ``options.name`` to another moment. Raises: as ``CloneMaker.move``, and SettingsError."""
    clear_clones(pipeline, env_file=env_file)
    return _maker(pipeline, env_file, by).move(options, events)


def stop_clone(pipeline: Pipeline, name: str, *, by: str | None = None) -> CloneState:
    """End a clone now. ``by``: as for ``make_clone``. Raises: RestoreError."""
    return _ender(pipeline, by).stop(require_clone_name(name))


def list_clones(pipeline: Pipeline) -> tuple[CloneState, ...]:
    """Return the clones that stand, by name. Changes nothing. Raises: RestoreError."""
    return clone_states(_root(pipeline))


def clear_clones(pipeline: Pipeline, *, adopt: bool = True, env_file: Path | None = None) -> tuple[str, ...]:
    """Remove clones that are over, and what was left by killed commands; return one sentence for each.

    ``adopt``: one that runs without a keeper gets a new one. Raises: RestoreError.
    """
    return _ender(pipeline).clear(_starter(env_file) if adopt else None)


def keep(pipeline: Pipeline, name: str, on_ready: Callable[[], None]) -> None:
    """Be a clone's keeper: return when it is gone. Raises: RestoreError."""
    folder = CloneFolder(_root(pipeline), require_clone_name(name))
    keep_clone(folder, _ender(pipeline), pipeline.clock, on_ready)


def _root(pipeline: Pipeline) -> Path:
    return pipeline.settings.folder_of_clones(pipeline.settings.state_folder)


def _ender(pipeline: Pipeline, by: str | None = None) -> CloneEnder:
    audit, cluster = pipeline.audit.signed(by), pipeline.settings.cluster
    return CloneEnder(_root(pipeline), cluster, pipeline.clock, audit, lambda seen: _alert(pipeline, seen))


def _alert(pipeline: Pipeline, seen: Observation) -> None:
    """Open the alert about a clone that ended. The clone is gone, and a catalog that is down brings nobody back."""
    try:
        pipeline.catalog.alerts.observe(AlertKind.CLONE_ENDED, seen, pipeline.clock())
    except CatalogError as error:
        _log.warning("nobody is alerted that clone '%s' ended: %s", seen.subject, error.message)


def _maker(pipeline: Pipeline, env_file: Path | None, by: str | None) -> CloneMaker:
    settings = pipeline.settings
    return CloneMaker(
        root=_root(pipeline),
        cluster=settings.cluster,
        pgdata=settings.pgdata,
        role=settings.drill_role,
        database=settings.drill_database,
        clock=pipeline.clock,
        audit=pipeline.audit.signed(by),
        open_restore=lambda options, pgdata: _restore(pipeline, options, pgdata),
        start_keeper=_starter(env_file),
        ender=_ender(pipeline, by),
    )


def _restore(pipeline: Pipeline, options: CloneOptions, pgdata: Path) -> Restore:
    chosen = RestoreOptions(
        pgdata=pgdata,
        to_time=options.to_time,
        to_lsn=options.to_lsn,
        to_xid=options.to_xid,
        to_name=options.to_name,
        inclusive=options.inclusive,
        timeline=options.timeline,
        store=options.store,
        base_backup=options.base_backup,
        system_identifier=options.system_identifier,
        owner=options.owner,
        archiving=False,
        only_databases=options.only_databases,
    )
    restore = restore_of(pipeline, chosen)
    return replace(restore, request=replace(restore.request, owner=_owner(pipeline.settings, options)))


def _owner(settings: Settings, options: CloneOptions) -> str | None:
    """Return the user who runs a clone's server, where root makes it: by default the cluster's own."""
    if options.owner is not None or os.geteuid() != 0 or settings.pgdata is None or not settings.pgdata.exists():
        return options.owner
    owner = settings.pgdata.stat().st_uid
    return None if owner == 0 else name_of_user(owner)


def _starter(env_file: Path | None) -> Callable[[CloneFolder], None]:
    named = settings_file(env_file)
    words = [sys.executable, "-P", "-m", "wal_pipeline.cli"]
    command = words if named is None else [*words, "--env-file", str(named)]
    return lambda folder: start_keeper(folder, command)
