"""Looks at everything once, settles the alerts by the facts, and sends the notifications."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from wal_pipeline.archive.alerts import AlertKind, Observation
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.commands.alerts.catalog_outage import CatalogOutage, OutageDelivery, tell_end, tell_outage
from wal_pipeline.commands.alerts.deliver import Delivery, deliver_alerts
from wal_pipeline.commands.alerts.destinations import Destination
from wal_pipeline.commands.health.facts import FactSources, HealthFacts, look_at_everything, look_without_catalog
from wal_pipeline.commands.health.rules import HealthLimits, observe
from wal_pipeline.errors import CatalogError


@dataclass(frozen=True, slots=True)
class HealthReport:
    """The facts and causes that one look found, and the notifications that it sent.

    ``outage`` must be passed to the next look: the catalog cannot keep it.
    """

    facts: HealthFacts
    observed: Mapping[AlertKind, Sequence[Observation]]
    delivery: Delivery = field(default_factory=Delivery)
    outage: CatalogOutage | None = None

    @property
    def problems(self) -> int:
        """The number of causes of alerts that are there now."""
        return sum(len(found) for found in self.observed.values())

    def describe(self) -> str:
        """Say it in one line, for a sensor's tick."""
        kinds = [f"{len(found)} {kind.value}" for kind, found in self.observed.items() if found]
        told = f"; {self.delivery.told} told" if self.delivery.told else ""
        failures = "".join(f"; {reason}" for reason in self.delivery.failures.values())
        return (", ".join(kinds) if kinds else "nothing needs a person") + told + failures


def watch_health(
    sources: FactSources,
    limits: HealthLimits,
    destinations: Callable[[], Sequence[Destination]],
    *,
    cluster: str = "",
    outage: CatalogOutage | None = None,
) -> HealthReport:
    """Look once, settle the alerts and deliver the new ones.

    Where the catalog cannot be read or written, the spool, the disks and the server are judged all the same, and people
    are notified without it. ``cluster`` names the cluster where the catalog could not be opened; ``outage`` is the one
    that the look before returned.
    """
    facts: HealthFacts | None = None
    try:
        facts = look_at_everything(sources)
        observed = observe(facts, limits)
        catalog = sources.opened_catalog()
        settle(catalog, observed, facts.at)
        delivery = deliver_alerts(catalog, destinations(), facts.at)
    except CatalogError as error:
        seen = facts or look_without_catalog(sources, sources.cluster_or(cluster), error)
        return _watch_without_catalog(seen, limits, destinations, error, outage)
    ended = tell_end(facts.cluster, destinations() if outage else (), outage, facts.at)
    return HealthReport(facts, observed, _with(delivery, ended), ended.outage)


def settle(catalog: Catalog, observed: Mapping[AlertKind, Sequence[Observation]], at: datetime) -> None:
    """Make the observed causes the open alerts of each kind; a kind with neither costs nothing."""
    open_kinds = {alert.kind for alert in catalog.alerts.active()}
    for kind, found in observed.items():
        if found or kind in open_kinds:
            catalog.alerts.settle(kind, found, at)


def _watch_without_catalog(
    facts: HealthFacts,
    limits: HealthLimits,
    destinations: Callable[[], Sequence[Destination]],
    error: CatalogError,
    outage: CatalogOutage | None,
) -> HealthReport:
    observed = observe(facts, limits) | {AlertKind.CATALOG_DOWN: [Observation("catalog", error.message)]}
    told = tell_outage(facts.cluster, observed, destinations(), outage, facts.at)
    return HealthReport(facts, observed, _with(Delivery(), told), told.outage)


def _with(delivery: Delivery, more: OutageDelivery) -> Delivery:
    return Delivery(delivery.told + more.told, delivery.waiting, {**delivery.failures, **more.failures})
