"""Verifies the lists of relations: each against what it says of itself, and each store against the others.

A list that a store lacks is looked for only back to the oldest base backup of that store: an older one may have
expired. A repair copies a list from a store that has it whole. No recovery needs a list, so nothing else waits for it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from wal_pipeline.archive.format.keys import moment_name
from wal_pipeline.commands.copies.stored_bytes import WrongSizeError
from wal_pipeline.commands.inventory.survey import ClusterSurvey
from wal_pipeline.commands.relations.stored_list import StoredList, check_list, copy_list
from wal_pipeline.commands.verify.results import FaultKind, ListFault, ListTally
from wal_pipeline.errors import (
    CodecError,
    DamagedCopyError,
    ObjectMissingError,
    RelationListError,
    StoreError,
    WalPipelineError,
)
from wal_pipeline.stores.base import Store
from wal_pipeline.stores.cluster_store import ClusterStore

_MOMENT_LENGTH: Final = len("20261122T174500Z")
_ON_ITS_WAY: Final = timedelta(hours=1)
_HEALED: Final = (FaultKind.MISSING, FaultKind.TRUNCATED, FaultKind.CORRUPT)
WriteRepair = Callable[[str, str, str, str], None]
"""Write a repair down: the key, the store, the source, what was wrong."""


@dataclass(slots=True)
class ListVerification:
    """The findings of all lists: counts by store, and faults."""

    tallies: dict[str, ListTally]
    faults: list[ListFault] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ListVerifier:
    """Verifies the lists of one cluster. Without ``identities`` encrypted ones are compared as stored, not opened."""

    stores: Mapping[str, Store]
    identities: Sequence[Any]
    now: datetime

    def verify(
        self,
        survey: ClusterSurvey,
        found: ListVerification,
        silent: dict[str, str],
        *,
        deep: bool,
        repaired: WriteRepair | None,
    ) -> None:
        """Add the findings of each store that answers; ``repaired`` is given where what is wrong is to be healed.

        A store that fails is added to ``silent``.
        """
        good: dict[str, list[StoredList]] = {}
        faults: list[ListFault] = []
        for store in survey.listings:
            if store in silent:
                continue
            try:
                faults += self._look(survey, store, found.tallies[store], good, deep=deep)
            except StoreError as error:
                silent[store] = error.message
        answered = [store for store in survey.listings if store not in silent]
        faults += [fault for store in answered for fault in self._missing(survey, store, good)]
        if repaired is not None:
            faults = [self._repaired(survey, fault, good, repaired) for fault in faults]
        found.faults += faults

    def _look(
        self, survey: ClusterSurvey, store: str, tally: ListTally, good: dict[str, list[StoredList]], *, deep: bool
    ) -> list[ListFault]:
        place, faults = ClusterStore(self.stores[store], survey.layout), []
        for moment, items in survey.listings[store].relations.items():
            for item in items:
                one = StoredList(store, moment, item.key, item.size_bytes)
                tally.lists += 1
                tally.stored_bytes += item.size_bytes
                try:
                    read_bytes = check_list(place, one, self.identities, deep=deep)
                except ObjectMissingError:  # expired since it was listed; another store's says so if it did not
                    continue
                except (DamagedCopyError, RelationListError, CodecError) as error:
                    faults.append(_fault(one, error))
                    continue
                tally.read += deep
                tally.read_bytes += read_bytes
                good.setdefault(moment, []).append(one)
        return faults

    def _missing(self, survey: ClusterSurvey, store: str, good: Mapping[str, Sequence[StoredList]]) -> list[ListFault]:
        """Return the lists that other stores have and this one lacks, back to the oldest base backup here."""
        listing = survey.listings[store]
        if not listing.finished:
            return []
        since = listing.finished[0][:_MOMENT_LENGTH]
        latest = moment_name(self.now - _ON_ITS_WAY)
        before = max((moment for moment in good if moment <= since), default="")
        lacking = (moment for moment in good if before <= moment <= latest and moment not in listing.relations)
        return [
            ListFault(
                store,
                moment,
                good[moment][0].key,
                FaultKind.MISSING,
                f"{store}: the list of relations of {moment} does not exist, and {good[moment][0].store} has it",
            )
            for moment in sorted(lacking)
        ]

    def _repaired(
        self,
        survey: ClusterSurvey,
        fault: ListFault,
        good: Mapping[str, Sequence[StoredList]],
        repaired: WriteRepair,
    ) -> ListFault:
        """Copy a list from a store that has it whole, and say from which; the damaged object goes then."""
        if fault.kind not in _HEALED:
            return fault
        target, reasons = ClusterStore(self.stores[fault.store], survey.layout), []
        for source in good.get(fault.moment, ()):
            if source.store == fault.store:
                continue
            try:
                copy_list(ClusterStore(self.stores[source.store], survey.layout), source, target)
                if fault.key != source.key:
                    target.store.delete(fault.key)
            except WalPipelineError as error:
                reasons.append(error.message)
                continue
            repaired(fault.key, fault.store, source.store, fault.message)
            return replace(fault, repaired_from=source.store)
        return replace(fault, repair_error="; ".join(reasons) or "no store has a good copy")


def _fault(one: StoredList, error: WalPipelineError) -> ListFault:
    kind = FaultKind.CORRUPT if isinstance(error, DamagedCopyError) else FaultKind.UNREADABLE
    kind = FaultKind.TRUNCATED if isinstance(error, WrongSizeError) else kind
    text = error.message if isinstance(error, StoreError) else f"{one.store}: {error.message}"
    return ListFault(one.store, one.moment, one.key, kind, text)
