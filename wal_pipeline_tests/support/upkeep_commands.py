"""Builds the surveyor, the expirer and the verifier of a test's stores and catalog."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from wal_pipeline.archive.retention.rules import RetentionRule
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.commands.audit import AuditLog
from wal_pipeline.commands.expire.damage import Unsettled
from wal_pipeline.commands.expire.expire import Expirer
from wal_pipeline.commands.inventory.survey import ClusterSurvey, Surveyor
from wal_pipeline.commands.verify.read_copy import CopyReader
from wal_pipeline.commands.verify.repair import Repairer
from wal_pipeline.commands.verify.unsettled import find_unsettled
from wal_pipeline.commands.verify.verdict import read_verdict
from wal_pipeline.commands.verify.verify import Verifier
from wal_pipeline.stores.base import Store


@dataclass(frozen=True, slots=True)
class UpkeepCommands:
    """The parts that expire and verify share. ``folder`` is for the damaged copies that a repair sets aside."""

    stores: Mapping[str, Store]
    catalog: Catalog
    cluster: str
    audit: AuditLog
    rule: RetentionRule
    clock: Callable[[], datetime]
    folder: Path

    def surveyor(self) -> Surveyor:
        return Surveyor(self.stores, self.catalog, "", self.cluster)

    def expirer(self, concurrency: int = 1, in_spool: Callable[[str], bool] = lambda _name: False) -> Expirer:
        def find_damage(survey: ClusterSurvey, now: datetime) -> Unsettled:
            return find_unsettled(survey, self.rule, now, in_spool, read_verdict(self.catalog))

        return Expirer(
            self.stores,
            self.catalog,
            self.surveyor(),
            self.audit,
            rule=self.rule,
            clock=self.clock,
            concurrency=concurrency,
            find_damage=find_damage,
        )

    def verifier(self, in_spool: Callable[[str], bool], concurrency: int = 1) -> Verifier:
        reader = CopyReader([])

        def repairer() -> Repairer:
            kept = self.folder / "set-aside"
            return Repairer(self.stores, self.catalog, reader, self.audit, clock=self.clock, kept_folder=kept)

        return Verifier(
            self.stores,
            self.catalog,
            self.surveyor(),
            reader,
            repairer,
            rule=self.rule,
            clock=self.clock,
            concurrency=concurrency,
            in_spool=in_spool,
        )
