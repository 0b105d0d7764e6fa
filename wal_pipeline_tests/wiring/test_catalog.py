"""A catalog that cannot be opened says which setting to look at."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from wal_pipeline.errors import CatalogError
from wal_pipeline.settings import load_settings
from wal_pipeline.wiring.catalog import open_configured_catalog


def refused(folder: Path, **given: str) -> CatalogError:
    (file := folder / "settings.env").touch()
    with pytest.raises(CatalogError) as raised:
        open_configured_catalog(load_settings(given, file), lambda: datetime.now(UTC))
    return raised.value


def test_the_hint_names_the_setting_that_was_set(tmp_path: Path) -> None:
    """Where only the state folder is set, the hint names it; the message says what happened either way."""
    (tmp_path / "file").touch()
    by_folder = refused(tmp_path, WAL_PIPELINE_STATE_DIR=str(tmp_path / "file"))
    by_url = refused(tmp_path, WAL_PIPELINE_CATALOG_URL=f"sqlite:///{tmp_path}/file/catalog.sqlite")
    assert by_folder.message == by_url.message
    assert by_folder.hint == (
        "WAL_PIPELINE_STATE_DIR must be a folder that this user can write: the catalog is kept there, unless "
        "WAL_PIPELINE_CATALOG_URL names another place."
    )
    assert by_url.hint is not None
    assert by_url.hint.startswith("Set WAL_PIPELINE_CATALOG_URL to a file in a folder that can be written.")
