"""Look at everything, settle the alerts by what was seen, and tell people."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from wal_pipeline.archive.alerts import AlertKind, Observation
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.commands.alerts import Delivery, deliver_alerts
from wal_pipeline.commands.health_facts import FactSources, HealthFacts, look
from wal_pipeline.commands.health_rules import HealthLimits, observe
from wal_pipeline.commands.notifications import Destination


@dataclass(frozen=True, slots=True)
class HealthReport:
    """What one look found, and what people were told."""

    facts: HealthFacts
    observed: Mapping[AlertKind, Sequence[Observation]]
    delivery: Delivery = field(default_factory=Delivery)

    @property
    def problems(self) -> int:
        """How many causes of alerts are there now."""
        return sum(len(found) for found in self.observed.values())

    def describe(self) -> str:
        """Say it in one line, for a sensor's tick."""
        kinds = [f"{len(found)} {kind.value}" for kind, found in self.observed.items() if found]
        told = f"; {self.delivery.told} told" if self.delivery.told else ""
        failures = "".join(f"; {reason}" for reason in self.delivery.failures.values())
        return (", ".join(kinds) if kinds else "nothing needs a person") + told + failures


def watch_health(
    sources: FactSources, limits: HealthLimits, destinations: Callable[[], Sequence[Destination]]
) -> HealthReport:
    """Look once, settle the alerts and deliver what is new.

    Raises: CatalogError, SettingsError where a notification URL cannot be read: the alerts are settled before.
    """
    facts = look(sources)
    observed = observe(facts, limits)
    settle(sources.catalog, observed, facts.at)
    return HealthReport(facts, observed, deliver_alerts(sources.catalog, destinations(), facts.at))


def settle(catalog: Catalog, observed: Mapping[AlertKind, Sequence[Observation]], at: datetime) -> None:
    """Make the open alerts of each kind those that were observed; a kind without any, open or seen, costs nothing."""
    open_kinds = {alert.kind for alert in catalog.alerts.active()}
    for kind, found in observed.items():
        if found or kind in open_kinds:
            catalog.alerts.settle(kind, found, at)
