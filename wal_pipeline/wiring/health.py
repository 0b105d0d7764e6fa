"""Turns the settings into the sources and thresholds of health, status, metrics and reports."""

import os
from typing import Final

from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.commands.alerts.destinations import Destination, apprise_destinations
from wal_pipeline.commands.archive_get.wal_source import WalSource
from wal_pipeline.commands.health.facts import FactSources, UnopenedCatalog
from wal_pipeline.commands.health.history_source import HistoryFetch
from wal_pipeline.commands.health.reach import UnarchivedWal
from wal_pipeline.commands.health.rules import HealthLimits
from wal_pipeline.commands.health.shipping import HeldWal, ShipGoal, SlotLook
from wal_pipeline.errors import CatalogError
from wal_pipeline.postgres.waldump import PgWaldump
from wal_pipeline.settings import Settings
from wal_pipeline.stores.base import Store
from wal_pipeline.wiring.pipeline import Pipeline
from wal_pipeline.wiring.slot import slot_state, slot_was_made

_WALDUMP_SECONDS: Final = 3.0  # a screen waits no longer


def fact_sources(
    pipeline: Pipeline, *, ask_server: bool = True, ask_stores: bool = True, need_catalog: bool = True
) -> FactSources:
    """Return the sources of the facts for health, status and metrics.

    ``ask_stores``: fetch the timeline histories that the catalog does not hold yet. A store whose settings are missing
    is shown and never asked. Without ``need_catalog`` the facts can be seen while the catalog cannot be opened.

    Raises: CatalogError where the catalog is needed and cannot be opened.
    """
    settings = pipeline.settings
    spool = pipeline.spool if settings.spool_folder is not None else None
    return FactSources(
        catalog=pipeline.catalog if need_catalog else _catalog_or_reason(pipeline),
        stores=settings.stores,
        clock=pipeline.clock,
        spool=spool,
        server=pipeline.server if ask_server else None,
        fetch=fetch_history(pipeline) if ask_stores else None,
        system_identifier=settings.system_identifier,
        disk_folders=(*(() if spool is None else (spool.folder,)), settings.state_folder),
        failed_tries=settings.copy_failed_tries,
        unarchived=_unarchived(pipeline),
        ship_goal=ship_goal(pipeline.settings),
        slot=_slot(pipeline) if ask_server else None,
    )


def ship_goal(settings: Settings) -> ShipGoal | None:
    """Return what the settings promise of the open segment's shipping; None where it is off."""
    interval = settings.ship_interval_seconds
    return None if interval is None else ShipGoal(interval, settings.ship_from)


def _slot(pipeline: Pipeline) -> SlotLook | None:
    """Return what asks for the receiver's slot; None where there is none of ours.

    One that was made and is used no more keeps WAL all the same, until the server's disk is full.
    """
    settings = pipeline.settings
    receives = settings.ship_interval_seconds is not None and settings.ship_from != "host"
    if not receives and not slot_was_made(pipeline):
        return None

    def look() -> HeldWal:
        state = slot_state(pipeline)
        return HeldWal(settings.ship_slot, 0 if state is None else state.held_bytes or 0)

    return look


def _unarchived(pipeline: Pipeline) -> UnarchivedWal:
    settings = pipeline.settings
    reader = PgWaldump(bindir=settings.pgbindir, timeout_seconds=_WALDUMP_SECONDS)
    return UnarchivedWal(reader, settings.spool_folder, settings.pgdata)


def _catalog_or_reason(pipeline: Pipeline) -> Catalog | UnopenedCatalog:
    try:
        return pipeline.catalog
    except CatalogError as error:
        return UnopenedCatalog(error)


def fetch_history(pipeline: Pipeline) -> HistoryFetch:
    """Return the reader that fetches a timeline history file from the store that answers first, within seconds."""
    stores: dict[str, Store] = {}

    def sources(system_identifier: int) -> dict[str, WalSource]:
        layout, identities = pipeline.layout(system_identifier), tuple(pipeline.identities)
        if not stores:
            stores.update(pipeline.open_stores(pipeline.usable_store_names))
        return {name: WalSource(layout, (store,), identities) for name, store in stores.items()}

    return HistoryFetch(sources)


def health_limits(pipeline: Pipeline) -> HealthLimits:
    """Return the alert thresholds."""
    settings = pipeline.settings
    return HealthLimits(
        archive_timeout_seconds=settings.archive_timeout_seconds,
        lag_goal_seconds=settings.lag_goal_seconds,
        success_rate_goal=settings.success_rate_goal,
        spool_limit_bytes=settings.spool_limit_bytes,
        spool_near_full_share=settings.spool_near_full_share,
        disk_low_share=settings.disk_low_share,
        store_down_failures=settings.store_down_failures,
        copy_failed_tries=settings.copy_failed_tries,
        base_backup_max_age_hours=settings.base_backup_max_age_hours,
        drill_max_age_days=settings.drill_max_age_days,
        health_interval_seconds=settings.health_interval_seconds,
        rto_objective_seconds=settings.rto_objective_seconds,
    )


def destinations(pipeline: Pipeline) -> list[Destination]:
    """Return the destinations of notifications.

    Apprise's library for HTTP reads a proxy from the environment alone: that of the settings file is put there.
    """
    settings = pipeline.settings
    if settings.https_proxy is not None:
        os.environ.setdefault("HTTPS_PROXY", settings.https_proxy.get_secret_value())
        os.environ.setdefault("NO_PROXY", settings.no_proxy)
    return apprise_destinations([url.get_secret_value() for url in pipeline.settings.notification_urls])
