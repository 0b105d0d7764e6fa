"""Opens the stores that the settings describe, and names the settings that one lacks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from wal_pipeline.errors import SettingsError
from wal_pipeline.host.proxy import proxy_for
from wal_pipeline.settings import STORE_NAMES, Settings
from wal_pipeline.stores.base import Store

if TYPE_CHECKING:
    from pydantic import SecretStr

_LOCAL_FOLDER: Final = "WAL_PIPELINE_LOCAL_STORE_FOLDER"


def open_store(settings: Settings, name: str) -> Store:
    """Return a store whose settings are all there. Opens no connection.

    Raises: SettingsError where a setting cannot be used, or there is no such store.
    """
    if name == "local":
        return _open_folder(settings)
    from wal_pipeline.stores.s3.client import Connection
    from wal_pipeline.stores.s3.profiles import PROFILES
    from wal_pipeline.stores.s3.store import open_s3_store

    bucket = _bucket_settings(settings, name)
    profile = PROFILES[name]
    endpoint_url = bucket.endpoint_url or profile.endpoint_url(bucket.place.value)
    connection = Connection(
        store=name,
        bucket=bucket.name.value,
        endpoint_url=endpoint_url,
        region=bucket.region or profile.region_of(endpoint_url),
        access_key_id=bucket.access_key_id.value,
        secret_access_key=bucket.secret_access_key.value,
        ca_bundle=settings.ca_bundle,
        proxy_url=proxy_for(endpoint_url, _revealed(settings.https_proxy), settings.no_proxy),
        concurrency=2 * settings.concurrency,
    )
    return open_s3_store(profile, connection)


def missing_settings(settings: Settings, name: str) -> list[str]:
    """Return the variables that a store needs and that are not set. Raises: SettingsError for an unknown store."""
    if name == "local":
        return [] if settings.local_store_folder else [_LOCAL_FOLDER]
    return _bucket_settings(settings, name).missing()


def missing_of(settings: Settings, names: Iterable[str]) -> list[str]:
    """Return the variables without which one of these stores cannot be asked."""
    return [variable for name in names for variable in missing_settings(settings, name)]


def missing_error(variables: Sequence[str]) -> SettingsError:
    """Return the error that names every variable that is not set."""
    return SettingsError(
        "settings are missing: " + ", ".join(variables),
        hint="Set them in the environment or in .env; WAL_PIPELINE_STORES says which stores are used.",
    )


def _open_folder(settings: Settings) -> Store:
    from wal_pipeline.stores.local.store import LocalFolderStore

    if settings.local_store_folder is None:
        raise missing_error([_LOCAL_FOLDER])
    return LocalFolderStore("local", settings.local_store_folder)


@dataclass(frozen=True, slots=True)
class _Given:
    """One setting: its variable, and its value, which is empty where it is not set."""

    variable: str
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _BucketSettings:
    """The settings of a store on an S3 server. Without ``endpoint_url`` the endpoint is made from ``place``."""

    place: _Given
    name: _Given
    access_key_id: _Given
    secret_access_key: _Given
    endpoint_url: str | None
    region: str | None

    def missing(self) -> list[str]:
        """Return the variables that are needed and not set."""
        needed = [self.name, self.access_key_id, self.secret_access_key]
        if self.endpoint_url is None:
            needed.insert(0, self.place)
        return [one.variable for one in needed if not one.value]


def _bucket_settings(settings: Settings, name: str) -> _BucketSettings:
    if name not in _BUCKETS:
        raise SettingsError(f"'{name}' is not a store, expected one of {', '.join(STORE_NAMES)}")
    return _BUCKETS[name](settings)


def _r2(settings: Settings) -> _BucketSettings:
    return _BucketSettings(
        place=_Given("R2_ACCOUNT_ID", settings.r2_account_id or ""),
        name=_Given("R2_BUCKET_NAME", settings.r2_bucket_name or ""),
        access_key_id=_Given("R2_ACCESS_KEY_ID", _revealed(settings.r2_access_key_id)),
        secret_access_key=_Given("R2_SECRET_ACCESS_KEY", _revealed(settings.r2_secret_access_key)),
        endpoint_url=settings.r2_endpoint_url,
        region=None,
    )


def _b2(settings: Settings) -> _BucketSettings:
    return _BucketSettings(
        place=_Given("B2_REGION", settings.b2_region or ""),
        name=_Given("B2_BUCKET_NAME", settings.b2_bucket_name or ""),
        access_key_id=_Given("B2_ACCESS_KEY_ID", _revealed(settings.b2_access_key_id)),
        secret_access_key=_Given("B2_SECRET_ACCESS_KEY", _revealed(settings.b2_secret_access_key)),
        endpoint_url=settings.b2_endpoint_url,
        region=settings.b2_region,
    )


_BUCKETS: Final[Mapping[str, Callable[[Settings], _BucketSettings]]] = {"r2": _r2, "b2": _b2}


def _revealed(secret: "SecretStr | None") -> str:
    return "" if secret is None else secret.get_secret_value()
