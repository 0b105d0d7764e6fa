"""Tests that a wrong owner is named with the way out, and not refused by Dagster with a stack."""

import dagster as dg
import pytest

from wal_pipeline.errors import SettingsError
from wal_pipeline.orchestration.assets.owners import with_owners


@dg.asset
def some_asset() -> None:
    """Do nothing."""


def test_each_asset_gets_the_owners() -> None:
    """An external asset has owners too."""
    made = with_owners([some_asset, dg.AssetSpec("other")], ["dba@example.com", "team:dba"])
    specs = [spec for one in made for spec in ([one] if isinstance(one, dg.AssetSpec) else one.specs)]
    assert [list(spec.owners) for spec in specs] == [["dba@example.com", "team:dba"]] * 2


@pytest.mark.parametrize("owner", ["dba", "team:", "dba@"])
def test_a_wrong_owner_is_named(owner: str) -> None:
    """Definitions that do not load would stop the archiving, so the error says what to write."""
    with pytest.raises(SettingsError) as raised:
        with_owners([some_asset], [owner])
    assert raised.value.message == f"WAL_PIPELINE_OWNERS has '{owner}', which is neither an e-mail address nor a team"
    assert raised.value.hint == "Write 'dba@example.com' or 'team:dba', several with commas or spaces between them."
