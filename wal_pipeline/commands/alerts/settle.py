"""Settles the alerts of a command that looked at some stores and could not look at others."""

from collections.abc import Collection, Sequence
from datetime import datetime

from wal_pipeline.archive.alerts import AlertKind, Observation
from wal_pipeline.catalog.catalog import Catalog


def settle_seen(
    catalog: Catalog, kind: AlertKind, observed: Sequence[Observation], now: datetime, *, silent: Collection[str]
) -> None:
    """Open, refresh and resolve the alerts of a kind; those of a silent store stay as they are.

    A subject begins with its store's name; one that does not concerns all stores. Raises: CatalogError.
    """
    for item in observed:
        catalog.alerts.observe(kind, item, now)
    seen = {item.subject for item in observed}
    for alert in catalog.alerts.active():
        if alert.kind is kind and alert.subject not in seen and not _is_of(alert.subject, silent):
            catalog.alerts.resolve(kind, alert.subject, now)


def _is_of(subject: str, silent: Collection[str]) -> bool:
    return bool(silent) and (subject.partition("/")[0] in silent or subject.startswith("every store"))
