"""Connects a sensor with the assets that its jobs update, so that the UI names it on their pages."""

from collections.abc import Iterable
from typing import Any, Self

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition


class LinkedSensor(dg.SensorDefinition):
    """A sensor that starts jobs of ops, and that the UI names on the pages of the assets which these jobs update.

    Dagster connects a sensor with either jobs or assets. It reads both where a sensor has a job for assets without a
    name, so this one says that it has one. A job of ops cannot be connected: as a job for assets it has no launchpad.
    """

    _assets: tuple[dg.AssetKey, ...] = ()

    @classmethod
    def of(cls, sensor: dg.SensorDefinition, assets: Iterable[dg.AssetKey]) -> Self:
        """Return a sensor as the given one, connected with these assets."""
        made = cls(
            name=sensor.name,
            evaluation_fn=sensor._raw_fn,
            jobs=[target.job_def for target in sensor.targets],
            minimum_interval_seconds=sensor.minimum_interval_seconds,
            description=sensor.description,
            default_status=sensor.default_status,
            tags=sensor.tags,
        )
        made._assets = tuple(assets)
        return made

    def with_attributes(self, **changed: Any) -> "LinkedSensor":
        """Return a copy with other attributes: Dagster makes one when it gives the jobs their resources."""
        return type(self).of(super().with_attributes(**changed), self._assets)

    @property
    def has_anonymous_job(self) -> bool:
        """Whether Dagster is to read the assets from ``job``."""
        return bool(self._assets)

    @property
    def job(self) -> dg.JobDefinition | UnresolvedAssetJobDefinition:
        """The job whose assets Dagster reads. Nothing runs it."""
        if not self._assets:
            return super().job
        return dg.define_asset_job(f"links_of_{self.name}", dg.AssetSelection.assets(*self._assets))
