"""The stores that the settings describe."""

from typing import TYPE_CHECKING

from pydantic import SecretStr

from wal_pipeline.settings import Settings
from wal_pipeline.stores.base import Store

if TYPE_CHECKING:
    from wal_pipeline.stores.s3.profiles import StoreProfile


def open_store(settings: Settings, name: str) -> Store:
    """Return a store whose settings are all there. Opens no connection. Raises: SettingsError."""
    if name == "local":
        from wal_pipeline.stores.local.store import LocalFolderStore

        assert settings.local_store_folder is not None  # noqa: S101 - open_stores has looked
        return LocalFolderStore("local", settings.local_store_folder)
    from wal_pipeline.stores.s3.profiles import PROFILES
    from wal_pipeline.stores.s3.store import open_s3_store

    profile = PROFILES[name]
    endpoint_url = _endpoint(settings, profile)
    return open_s3_store(
        profile,
        bucket=_text(getattr(settings, f"{name}_bucket_name")),
        access_key_id=_text(getattr(settings, f"{name}_access_key_id")),
        secret_access_key=_text(getattr(settings, f"{name}_secret_access_key")),
        endpoint_url=endpoint_url,
        region=settings.b2_region if name == "b2" and settings.b2_region else profile.region_of(endpoint_url),
        ca_bundle=settings.ca_bundle,
        concurrency=2 * settings.concurrency,
    )


def missing_settings(settings: Settings, store: str) -> list[str]:
    """Return the variables that a store needs and that are not set."""
    if store == "local":
        return [] if settings.local_store_folder else ["WAL_PIPELINE_LOCAL_STORE_FOLDER"]
    place = {"r2": "account_id", "b2": "region"}[store]
    wanted = ["bucket_name", "access_key_id", "secret_access_key"]
    if getattr(settings, f"{store}_endpoint_url") is None:
        wanted.insert(0, place)
    return [f"{store}_{field}".upper() for field in wanted if not getattr(settings, f"{store}_{field}")]


def _endpoint(settings: Settings, profile: "StoreProfile") -> str:
    given = getattr(settings, f"{profile.name}_endpoint_url")
    place = settings.r2_account_id if profile.name == "r2" else settings.b2_region
    return _text(given) if given is not None else profile.endpoint_url(_text(place))


def _text(value: SecretStr | str | None) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value or "")
