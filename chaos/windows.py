"""Checks the recovery windows after a schedule, on a machine that has nothing but the stores."""

from datetime import datetime
from typing import Any

from chaos.world import World
from wal_pipeline.commands.health.facts import look_at_everything
from wal_pipeline.commands.rebuild_catalog import rebuild
from wal_pipeline.commands.status.as_json import status_as_json
from wal_pipeline.commands.status.status import judge
from wal_pipeline.settings import load_settings
from wal_pipeline.wiring.health import fact_sources, health_limits
from wal_pipeline.wiring.pipeline import Pipeline

_TIMES = """
SELECT pg_xact_commit_timestamp(xmin) AT TIME ZONE 'UTC' || '+00' FROM ledger ORDER BY n DESC LIMIT 1;
SELECT timestamp AT TIME ZONE 'UTC' || '+00' FROM pg_last_committed_xact();
SELECT timeline_id FROM pg_control_checkpoint();
"""


def window_problems(world: World, base_backups: int) -> list[str]:
    """Make a new catalog from the stores alone, and return what its recovery windows lack.

    On each store, and on all together: one window on the newest timeline that reaches from the first base backup to
    PostgreSQL's own last commit, and no gap. ``base_backups``: how many succeeded.
    """
    status = _status(world)
    ledger_at, last_at, timeline = world.cluster.psql(_TIMES).splitlines()
    wanted = datetime.fromisoformat(ledger_at), datetime.fromisoformat(last_at)
    views = {"all stores": status, **status["stores"]}
    problems = [text for name, view in views.items() for text in _faults(name, view, int(timeline), wanted)]
    known = {backup for window in status["windows"] for backup in window["base_backups"]}
    if len(known) < base_backups:
        problems.append(f"{base_backups} base backups succeeded, and {len(known)} can be restored: {sorted(known)}")
    return problems


def _status(world: World) -> dict[str, Any]:
    """Run ``catalog rebuild`` on a machine that knows nothing, and return its ``status --no-server --json``."""
    another = world.folder / "another"
    (another / "spool").mkdir(parents=True)
    environment = {
        **world.stage.store_environment(world.prefix),
        "PG_WAL_ARCHIVE_DIR": str(another / "spool"),
        "WAL_PIPELINE_STATE_FOLDER": str(another / "state"),
    }
    pipeline = Pipeline(load_settings(environment))
    settings = pipeline.settings
    rebuild(list(pipeline.stores.values()), pipeline.catalog, settings.prefix, settings.cluster)
    status = judge(look_at_everything(fact_sources(pipeline, ask_server=False)), health_limits(pipeline))
    pipeline.catalog.close()
    return status_as_json(status)


def _faults(name: str, view: dict[str, Any], timeline: int, wanted: tuple[datetime, datetime]) -> list[str]:
    problems = [f"{name}: the recovery window has a gap: {gap}" for gap in view["gaps"]]
    newest = [window for window in view["windows"] if window["timeline"] == timeline]
    if len(newest) != 1 or newest[0]["ended_by"] != "end":
        return [*problems, f"{name}: not one window on timeline {timeline} that reaches the end: {view['windows']}"]
    if newest[0]["latest_commit_at"] is None:
        return [
            *problems,
            f"{name}: the window ends at no commit, expected PostgreSQL's own {wanted[0]} to {wanted[1]}",
        ]
    latest_at = datetime.fromisoformat(newest[0]["latest_commit_at"])
    if not wanted[0] <= latest_at <= wanted[1]:
        problems.append(f"{name}: the window ends at {latest_at}, expected PostgreSQL's own {wanted[0]} to {wanted[1]}")
    return problems
