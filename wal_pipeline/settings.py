"""Reads the settings from environment variables and a .env file into one model."""

import os
import re
from collections.abc import Iterable, Mapping, MutableMapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Final, Literal, Self, get_args

from pydantic import (
    AliasChoices,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from wal_pipeline.accident_settings import AccidentSettings
from wal_pipeline.archive.cost import B2_PRICES, R2_PRICES, Prices
from wal_pipeline.archive.format.keys import check_key_part, cluster_prefix
from wal_pipeline.archive.records import Codec
from wal_pipeline.backup_settings import BackupSettings
from wal_pipeline.errors import SettingsError
from wal_pipeline.host.env_file import find_env_file, read_env_file
from wal_pipeline.host.given_values import (
    absolute_path,
    absolute_url,
    clean_values,
    describe_faults,
    place_values,
    require_key_text,
    split_recipients,
    split_urls,
    split_words,
)
from wal_pipeline.host.libpq_variables import CONNECTION_VARIABLES, absolute_files, check_variables

PREFIX: Final = "WAL_PIPELINE_"
ENV_FILE_VARIABLE: Final = "WAL_PIPELINE_ENV_FILE"
_ENDPOINT: Final = re.compile(r"https://|http://(?:127\.0\.0\.1|localhost|\[::1\])(?::|/|\Z)", re.IGNORECASE)
# Where a list may be written over several lines, and where libpq takes any white space.
_MANY_LINES: Final = ("WAL_PIPELINE_AGE_RECIPIENTS", "WAL_PIPELINE_NOTIFICATION_URLS", "WAL_PIPELINE_CONNINFO")
_HINT: Final = "Every setting is explained in .env.example."
_PATHS: Final = (
    "state_folder",
    "spool_folder",
    "quarantine_folder",
    "local_store_folder",
    "ca_bundle",
    "pgdata",
    "pgbindir",
    "age_identity_file",
    "base_backup_staging_folder",
    "clone_folder",
    "drill_folder",
    "drill_sql_file",
)
_WORDS: Final = dict.fromkeys(("stores", "owners"), split_words)
_SPLITTERS: Final = _WORDS | {"age_recipients": split_recipients, "notification_urls": split_urls}
DEFAULT_STATE_FOLDER: Final = Path("~/.local/state/wal-pipeline")

StoreName = Literal["r2", "b2", "local"]
STORE_NAMES: Final[tuple[str, ...]] = get_args(StoreName)
Words = Annotated[tuple[str, ...], NoDecode]
Secrets = Annotated[tuple[SecretStr, ...], NoDecode]
Price = Annotated[Decimal, Field(ge=0)]


class Settings(AccidentSettings, BackupSettings, BaseSettings):
    """All settings. The environment wins over the ``.env`` file; an unknown ``WAL_PIPELINE_*`` name is refused."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", frozen=True, case_sensitive=False
    )

    # The cluster
    owners: Words = ()
    pgdata: Path | None = Field(None, validation_alias="PGDATA")
    spool_folder: Path | None = Field(None, validation_alias="PG_WAL_ARCHIVE_DIR")
    conninfo: SecretStr = SecretStr("")
    pgbindir: Path | None = Field(None, validation_alias="PGBINDIR")
    system_identifier: int | None = Field(None, ge=1, lt=2**64)
    archive_timeout_seconds: int = Field(300, ge=1)

    # The stores
    stores: Annotated[tuple[StoreName, ...], NoDecode] = ("r2", "b2")
    prefix: str = ""
    ca_bundle: Path | None = None
    r2_account_id: str | None = Field(None, validation_alias="R2_ACCOUNT_ID")
    r2_bucket_name: str | None = Field(None, validation_alias="R2_BUCKET_NAME")
    r2_access_key_id: SecretStr | None = Field(None, validation_alias="R2_ACCESS_KEY_ID")
    r2_secret_access_key: SecretStr | None = Field(None, validation_alias="R2_SECRET_ACCESS_KEY")
    r2_endpoint_url: str | None = Field(None, validation_alias="R2_ENDPOINT_URL")
    b2_bucket_name: str | None = Field(None, validation_alias="B2_BUCKET_NAME")
    b2_region: str | None = Field(None, validation_alias="B2_REGION")
    b2_access_key_id: SecretStr | None = Field(None, validation_alias="B2_ACCESS_KEY_ID")
    b2_secret_access_key: SecretStr | None = Field(None, validation_alias="B2_SECRET_ACCESS_KEY")
    b2_endpoint_url: str | None = Field(None, validation_alias="B2_ENDPOINT_URL")
    local_store_folder: Path | None = None
    https_proxy: SecretStr | None = Field(None, validation_alias="HTTPS_PROXY")
    no_proxy: str = Field("", validation_alias="NO_PROXY")

    # Archiving
    codec: Codec = Codec.GZIP
    codec_level: int | None = Field(None, ge=-22, le=22)
    age_recipients: Words = ()
    age_identity_file: Path | None = None
    concurrency: int = Field(4, ge=1, le=64)
    memory_bytes: int = Field(160 * 2**20, ge=2**21)
    read_back: bool = True
    unreadable_wal: Literal["refuse", "archive"] = "refuse"
    settle_seconds: float = Field(60.0, ge=0)
    linger_seconds: float = Field(1800.0, ge=0)
    max_run_seconds: float = Field(900.0, gt=0)
    max_run_age_seconds: float = Field(7200.0, gt=0)
    sensor_interval_seconds: int = Field(5, ge=1)
    sensor_wait_seconds: float = Field(20.0, ge=0, le=50)
    max_backoff_seconds: float = Field(300.0, gt=0)
    lost_run_seconds: float = Field(30.0, ge=1)

    # Folders and records
    state_folder: Path = Field(
        DEFAULT_STATE_FOLDER, validation_alias=AliasChoices("WAL_PIPELINE_STATE_DIR", "WAL_PIPELINE_STATE_FOLDER")
    )
    quarantine_folder: Path | None = None
    catalog_url: SecretStr | None = None

    # Recovery
    base_backup_codec: Codec = Codec.ZSTD
    base_backup_codec_level: int | None = Field(None, ge=-22, le=22)
    base_backup_threads: int | None = Field(None, ge=1, le=64)
    base_backup_label: str = "wal-pipeline"
    base_backup_fast_checkpoint: bool = True
    base_backup_max_rate_kib: int | None = Field(None, ge=32, le=1048576)
    base_backup_volume_mib: int = Field(64, ge=1, le=16384)
    base_backup_staging_folder: Path | None = None
    base_backup_wal_timeout_seconds: float = Field(600.0, gt=0)
    base_backup_archiver_timeout_seconds: float = Field(14400.0, gt=0)
    relations_cron: str = "15 14 * * *"
    drill_cron: str = "45 4 1 * *"
    drill_folder: Path | None = None
    drill_owner: str | None = None
    drill_role: str = "postgres"
    drill_database: str = "postgres"
    drill_amcheck: bool = True
    drill_sql_file: Path | None = None
    retention_days: int = Field(30, ge=1)
    min_base_backups: int = Field(2, ge=1)
    retention_cron: str = "10 5 * * *"
    verify_cron: str = "30 4 * * *"
    deep_verify_cron: str = "20 6 * * 0"
    deep_verify_share: float = Field(0.25, gt=0, le=1)
    verify_repair: bool = True
    dagster_retention_days: int = Field(90, ge=1)
    dagster_purge_runs: int = Field(20_000, ge=0)
    dagster_purge_seconds: float = Field(1800.0, gt=0)

    # Notifications
    notification_urls: Secrets = ()

    # Health
    health_interval_seconds: int = Field(60, ge=5)
    lag_goal_seconds: float = Field(300.0, gt=0)
    success_rate_goal: float = Field(0.99, gt=0, le=1)
    spool_limit_bytes: int = Field(10 * 2**30, ge=2**20)
    spool_near_full_share: float = Field(0.8, gt=0, le=1)
    disk_low_share: float = Field(0.1, ge=0, lt=1)
    store_down_failures: int = Field(3, ge=1)
    copy_failed_tries: int = Field(3, ge=1)
    base_backup_max_age_hours: float = Field(50.0, gt=0)
    drill_max_age_days: float = Field(35.0, gt=0)
    audit_max_bytes: int = Field(10 * 2**20, ge=2**16)
    audit_files: int = Field(10, ge=1)
    check_cron: str = "40 5 * * *"
    cost_cron: str = "0 7 1 1,4,7,10 *"

    # Prices in US dollars: per GB (10**9 bytes) and month stored, per million requests, per GB downloaded
    r2_usd_per_gb_month: Price = R2_PRICES.storage_gb_month
    r2_usd_per_million_class_a: Price = R2_PRICES.class_a_million
    r2_usd_per_million_class_b: Price = R2_PRICES.class_b_million
    r2_usd_per_gb_egress: Price = R2_PRICES.egress_gb
    b2_usd_per_gb_month: Price = B2_PRICES.storage_gb_month
    b2_usd_per_million_class_a: Price = B2_PRICES.class_a_million
    b2_usd_per_million_class_b: Price = B2_PRICES.class_b_million
    b2_usd_per_gb_egress: Price = B2_PRICES.egress_gb
    local_usd_per_gb_month: Price = Decimal(0)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic-settings' signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values from ``load_settings`` alone, which refuses unknown names in the environment and the file."""
        return (init_settings,)

    # Names in the settings file, libpq's variables of it, and the folder of relative paths in the connection string.
    _names_in_file: tuple[str, ...] = PrivateAttr(())
    _server_variables: Mapping[str, SecretStr] = PrivateAttr(default_factory=dict)
    _conninfo_folder: Path = PrivateAttr(default_factory=Path.cwd)

    @field_validator(*_SPLITTERS, mode="before")
    @classmethod
    def _split(cls, value: object, info: ValidationInfo) -> object:
        return _SPLITTERS[info.field_name or ""](value) if isinstance(value, str) else value

    @field_validator(*_PATHS)
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        """Make a path absolute, so that it stays the same wherever the program is started."""
        return None if value is None else absolute_path(str(value), Path.cwd())

    @field_validator("r2_access_key_id", "r2_secret_access_key", "b2_access_key_id", "b2_secret_access_key")
    @classmethod
    def _is_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            require_key_text(value.get_secret_value())
        return value

    @field_validator("catalog_url")
    @classmethod
    def _absolute_catalog(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else SecretStr(absolute_url(value.get_secret_value(), Path.cwd()))

    @field_validator("r2_endpoint_url", "b2_endpoint_url")
    @classmethod
    def _encrypted_on_the_way(cls, value: str | None) -> str | None:
        """Require TLS, without which anyone on the network path reads the database; only loopback may do without."""
        if value is not None and not _ENDPOINT.match(value):
            raise ValueError("must begin with https://")
        return value

    @model_validator(mode="after")
    def _keys(self) -> Self:
        try:
            cluster_prefix(self.prefix, check_key_part("the cluster's name", self.cluster))
        except SettingsError as error:
            raise ValueError(error.message) from error
        if not self.stores or len(set(self.stores)) != len(self.stores):
            raise ValueError("WAL_PIPELINE_STORES must name each store once, and at least one")
        return self

    def require_spool_folder(self) -> Path:
        """Return the spool. Raises: SettingsError where ``PG_WAL_ARCHIVE_DIR`` is not set."""
        if self.spool_folder is None:
            hint = "Set it to the folder into which PostgreSQL archives its WAL."
            raise SettingsError("PG_WAL_ARCHIVE_DIR is not set", hint=hint)
        return self.spool_folder

    def quarantine(self) -> Path:
        """Return the folder for files that cannot be archived: by default beside the spool."""
        spool = self.require_spool_folder()
        return self.quarantine_folder or spool.with_name(spool.name + "-quarantine")

    def scratch_folder(self) -> Path:
        """Return the folder in which a drill makes its cluster; PostgreSQL's user must be able to enter root's."""
        default = Path("/var/tmp") if os.geteuid() == 0 else self.state_folder  # noqa: S108 - made 0711, refused if there
        return self.drill_folder or default / f"wal-pipeline-drill-{self.cluster}"

    def catalog(self) -> str:
        """Return the catalog's URL: by default an SQLite file in the state folder."""
        if self.catalog_url is not None:
            return self.catalog_url.get_secret_value()
        return f"sqlite:///{self.state_folder / 'catalog.sqlite'}"

    def prices(self) -> dict[str, Prices]:
        """Return the prices of each configured store."""
        return {store: self._prices(store) for store in self.stores}

    def _prices(self, store: str) -> Prices:
        if store == "local":
            return Prices(self.local_usd_per_gb_month)
        names = ("gb_month", "million_class_a", "million_class_b", "gb_egress")
        return Prices(*(getattr(self, f"{store}_usd_per_{name}") for name in names))

    def secret_values(self) -> tuple[str, ...]:
        """Return every secret's value, for tests and for code that must never show one."""
        fields = [getattr(self, name) for name in type(self).model_fields] + [self._server_variables.get("PGPASSWORD")]
        flat = [item for field in fields for item in (field if isinstance(field, tuple) else (field,))]
        secrets = [item for item in flat if isinstance(item, SecretStr)]
        return tuple(item.get_secret_value() for item in secrets if item.get_secret_value())

    @property
    def names_in_file(self) -> tuple[str, ...]:
        """The names that the settings file sets, also those that are no setting."""
        return self._names_in_file

    @property
    def server_variables(self) -> dict[str, str]:
        """libpq's variables of the settings file that the environment does not set. They may hold a password."""
        return {name: value.get_secret_value() for name, value in self._server_variables.items()}

    @property
    def conninfo_folder(self) -> Path:
        """The folder at which relative paths in the connection string begin."""
        return self._conninfo_folder


def load_settings(environment: Mapping[str, str] | None = None, env_file: Path | None = None) -> Settings:
    """Read the settings from the environment and the ``.env`` file.

    The file is ``env_file``, else the one that ``WAL_PIPELINE_ENV_FILE`` names, else ``.env`` in the current folder. A
    relative path in it begins at its folder, one in the environment at the current folder.

    Raises: SettingsError, which names each wrong setting and never shows a value.
    """
    environment = os.environ if environment is None else environment
    file = find_env_file(env_file or environment.get(ENV_FILE_VARIABLE))
    in_file = {} if file is None else read_env_file(file, _is_ours)
    folder = Path.cwd() if file is None else file.parent
    _refuse_unknown({**in_file, **environment})
    check_variables(in_file)
    given = {name.upper(): value for name, value in environment.items()}
    from_file = {name.upper(): value for name, value in in_file.items() if name.upper() not in given}
    values = {**_placed(_cleaned(from_file), folder), **_cleaned(given)}
    try:
        settings = Settings.model_validate(_by_alias(values))
    except ValidationError as error:
        faults = "\n".join(describe_faults(error, variable_names()))
        raise SettingsError(faults, hint=_HINT) from None  # pydantic's text repeats the values
    settings._names_in_file = tuple(in_file)
    variables = {name: value for name, value in from_file.items() if name in CONNECTION_VARIABLES and value}
    settings._server_variables = {name: SecretStr(value) for name, value in absolute_files(variables, folder).items()}
    if {"WAL_PIPELINE_CONNINFO", "WAL_PIPELINE_BACKUP_CONNINFO"} & from_file.keys():
        settings._conninfo_folder = folder
    return settings


def pin_paths(environment: MutableMapping[str, str]) -> None:
    """Make relative paths absolute, which a ``restore_command`` reads in another folder. Raises: SettingsError."""
    fields = variable_names()
    paths = {name for field in (*_PATHS, "catalog_url") for name in fields[field]} & environment.keys()
    environment.update(_placed(_cleaned({name: environment[name] for name in paths}), Path.cwd()))


def settings_file(given: Path | None = None) -> Path | None:
    """Return the settings file that is read, absolute; None where there is none. Raises: SettingsError."""
    return find_env_file(given or os.environ.get(ENV_FILE_VARIABLE))


def variable_names() -> dict[str, tuple[str, ...]]:
    """Return each field's environment variables, the one to use first."""
    return {name: _aliases(name) for name in Settings.model_fields}


def _aliases(field: str) -> tuple[str, ...]:
    alias = Settings.model_fields[field].validation_alias
    if isinstance(alias, AliasChoices):
        return tuple(str(choice) for choice in alias.choices)
    return (str(alias),) if alias is not None else ((PREFIX + field).upper(),)


def _by_alias(values: Mapping[str, str]) -> dict[str, str]:
    chosen = {}
    for field, names in variable_names().items():
        present = [name for name in names if name in values]
        if present:
            key = field if Settings.model_fields[field].validation_alias is None else present[0]
            chosen[key] = values[present[0]]
    return chosen


def _is_ours(name: str) -> bool:
    """Whether a name in a file is one that this program reads, or would read but for a spelling mistake."""
    return name.upper().startswith((PREFIX, "R2_", "B2_", "PG"))


def _cleaned(values: Mapping[str, str]) -> dict[str, str]:
    """Return our values, cleaned. Raises: SettingsError."""
    names = {alias for aliases in variable_names().values() for alias in aliases}
    cleaned, faults = clean_values({name: value for name, value in values.items() if name in names}, _MANY_LINES)
    if faults:
        raise SettingsError("\n".join(faults), hint=_HINT)
    return cleaned


def _placed(values: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Let the relative paths of a settings file begin at its folder. Raises: SettingsError."""
    names = variable_names()
    try:
        return place_values(values, [name for field in _PATHS for name in names[field]], names["catalog_url"], folder)
    except ValueError as error:
        raise SettingsError(str(error), hint=_HINT) from None


def _refuse_unknown(names: Iterable[str]) -> None:
    known = {alias for aliases in variable_names().values() for alias in aliases} | {ENV_FILE_VARIABLE}
    unknown = sorted(name for name in names if name.upper().startswith(PREFIX) and name.upper() not in known)
    if unknown:
        raise SettingsError(
            "unknown settings: " + ", ".join(f"'{name}'" for name in unknown),
            hint="Look for a spelling mistake: every setting is listed in .env.example.",
        )
