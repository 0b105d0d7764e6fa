"""Opens the catalog that the settings describe."""

from collections.abc import Callable
from datetime import datetime
from typing import Final

from wal_pipeline.catalog.catalog import Catalog, open_catalog
from wal_pipeline.catalog.engine import sqlite_file
from wal_pipeline.errors import CatalogError
from wal_pipeline.settings import Settings

_URL_VARIABLE: Final = "WAL_PIPELINE_CATALOG_URL"
_FOLDER_HINT: Final = (
    "WAL_PIPELINE_STATE_DIR must be a folder that this user can write: the catalog is kept there, unless "
    f"{_URL_VARIABLE} names another place."
)


def require_catalog(settings: Settings) -> None:
    """Refuse to make a catalog where this host has none. Raises: CatalogError."""
    file = sqlite_file(settings.catalog())
    if file is not None and not file.exists():
        raise CatalogError(f"this host has no catalog: '{file}' does not exist")


def open_configured_catalog(settings: Settings, clock: Callable[[], datetime]) -> Catalog:
    """Open the catalog. Where only the state folder is set, a hint about the URL names that folder's setting instead.

    Raises: CatalogError.
    """
    try:
        return open_catalog(settings.catalog(), settings.cluster, clock=clock)
    except CatalogError as error:
        if settings.catalog_url is None and error.hint is not None and _URL_VARIABLE in error.hint:
            raise type(error)(error.message, hint=_FOLDER_HINT) from error
        raise
