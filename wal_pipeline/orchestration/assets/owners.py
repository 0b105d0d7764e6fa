"""Names the owners of the assets, and refuses what Dagster would refuse with a stack of its own."""

from collections.abc import Iterable, Sequence

import dagster as dg
from dagster._core.definitions.utils import is_valid_owner

from wal_pipeline.errors import SettingsError


def with_owners(
    assets: Iterable[dg.AssetsDefinition | dg.AssetSpec], owners: Sequence[str]
) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """Return the assets with their owners. Raises: SettingsError where one is neither an e-mail address nor a team."""
    for owner in owners:
        if not is_valid_owner(owner):
            raise SettingsError(
                f"WAL_PIPELINE_OWNERS has '{owner}', which is neither an e-mail address nor a team",
                hint="Write 'dba@example.com' or 'team:dba', several with commas or spaces between them.",
            )
    return [_owned(one, list(owners)) for one in assets]


def _owned(asset: dg.AssetsDefinition | dg.AssetSpec, owners: list[str]) -> dg.AssetsDefinition | dg.AssetSpec:
    if isinstance(asset, dg.AssetSpec):
        return asset.replace_attributes(owners=owners)
    return asset.map_asset_specs(lambda spec: spec.replace_attributes(owners=owners))
