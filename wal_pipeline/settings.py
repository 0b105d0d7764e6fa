"""Reads the settings from environment variables and a .env file into one model."""

import os
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Final, Literal, Self, get_args

from dotenv import dotenv_values
from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from wal_pipeline.archive.cost import B2_PRICES, R2_PRICES, Prices
from wal_pipeline.archive.format.keys import check_key_part, cluster_prefix
from wal_pipeline.archive.records import Codec
from wal_pipeline.errors import SettingsError

PREFIX: Final = "WAL_PIPELINE_"
ENV_FILE_VARIABLE: Final = "WAL_PIPELINE_ENV_FILE"
_ENDPOINT: Final = re.compile(r"https://|http://(?:127\.0\.0\.1|localhost|\[::1\])(?::|/|\Z)", re.IGNORECASE)
_FILE_HINT: Final = (
    "Name a copy of .env.example with --env-file or WAL_PIPELINE_ENV_FILE; without either, ./.env is read."
)
DEFAULT_STATE_FOLDER: Final = Path("~/.local/state/wal-pipeline")

StoreName = Literal["r2", "b2", "local"]
STORE_NAMES: Final[tuple[str, ...]] = get_args(StoreName)
Words = Annotated[tuple[str, ...], NoDecode]
Secrets = Annotated[tuple[SecretStr, ...], NoDecode]
Price = Annotated[Decimal, Field(ge=0)]


class Settings(BaseSettings):
    """All settings. The environment wins over the ``.env`` file; an unknown ``WAL_PIPELINE_*`` name is refused."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", frozen=True, case_sensitive=False
    )

    # The cluster
    cluster: str = "main"
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

    # Archiving
    codec: Codec = Codec.GZIP
    codec_level: int | None = Field(None, ge=-22, le=22)
    age_recipients: Words = ()
    age_identity_file: Path | None = None
    concurrency: int = Field(4, ge=1, le=64)
    memory_bytes: int = Field(160 * 2**20, ge=2**21)
    read_back: bool = True
    settle_seconds: float = Field(60.0, ge=0)
    linger_seconds: float = Field(10.0, ge=0)
    max_run_seconds: float = Field(900.0, gt=0)
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
    base_backup_cron: str = "15 2 * * *"
    base_backup_label: str = "wal-pipeline"
    base_backup_fast_checkpoint: bool = True
    base_backup_max_rate_kib: int | None = Field(None, ge=32, le=1048576)
    base_backup_volume_mib: int = Field(256, ge=1, le=16384)
    base_backup_staging_folder: Path | None = None
    base_backup_wal_timeout_seconds: float = Field(600.0, gt=0)
    base_backup_archiver_timeout_seconds: float = Field(14400.0, gt=0)
    drill_cron: str = "45 4 1 * *"
    drill_folder: Path | None = None
    drill_owner: str | None = None
    drill_role: str = "postgres"
    drill_database: str = "postgres"
    drill_amcheck: bool = True
    drill_sql_file: Path | None = None
    retention_days: int = Field(30, ge=1)
    min_base_backups: int = Field(2, ge=1)
    retention_cron: str = "30 4 * * *"
    verify_cron: str = "10 5 * * *"
    deep_verify_cron: str = "20 6 * * 0"
    deep_verify_share: float = Field(0.25, gt=0, le=1)
    verify_repair: bool = True
    dagster_retention_days: int = Field(90, ge=1)
    dagster_purge_runs: int = Field(1000, ge=0)

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

    @field_validator("stores", "age_recipients", "notification_urls", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """Read a list as words separated by commas or white space."""
        return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value

    @field_validator(
        "state_folder",
        "spool_folder",
        "quarantine_folder",
        "local_store_folder",
        "ca_bundle",
        "pgdata",
        "base_backup_staging_folder",
        "drill_folder",
        "drill_sql_file",
    )
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        """Make a path absolute, so that it stays the same wherever the program is started."""
        return None if value is None else value.expanduser().absolute()

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
            raise SettingsError(
                "PG_WAL_ARCHIVE_DIR is not set",
                hint="Set it to the folder into which PostgreSQL archives its WAL.",
            )
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
        fields = [getattr(self, name) for name in type(self).model_fields]
        flat = [item for field in fields for item in (field if isinstance(field, tuple) else (field,))]
        return tuple(
            item.get_secret_value() for item in flat if isinstance(item, SecretStr) and item.get_secret_value()
        )


def load_settings(environment: Mapping[str, str] | None = None, env_file: Path | None = None) -> Settings:
    """Read the settings from the environment and the ``.env`` file.

    The file is ``env_file``, else the one that ``WAL_PIPELINE_ENV_FILE`` names, else ``.env`` in the current folder.

    Raises: SettingsError, which names each wrong setting and never shows a value.
    """
    environment = os.environ if environment is None else environment
    merged = {**_file_values(environment, env_file), **environment}
    _refuse_unknown(merged)
    known = {name.upper(): value for name, value in merged.items() if value != ""}
    try:
        return Settings.model_validate(_by_alias(known))
    except ValidationError as error:
        raise SettingsError(
            "\n".join(_describe(error)), hint="Every setting is explained in .env.example."
        ) from None  # pydantic's own text repeats the values


def settings_file(given: Path | None = None) -> Path | None:
    """Return the settings file that is read, absolute; None where there is none."""
    named = given or os.environ.get(ENV_FILE_VARIABLE)
    path = Path(named or ".env").absolute()
    return path if named or path.is_file() else None


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


def _file_values(environment: Mapping[str, str], env_file: Path | None) -> dict[str, str]:
    named = env_file or (Path(environment[ENV_FILE_VARIABLE]) if environment.get(ENV_FILE_VARIABLE) else None)
    path = named or Path(".env")
    if not path.is_file():
        if named is None:
            return {}
        raise SettingsError(f"settings file '{path}' does not exist", hint=_FILE_HINT)
    try:
        return {name: value for name, value in dotenv_values(path).items() if value is not None}
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"settings file '{path}' is no UTF-8 text: byte {error.start + 1} cannot be read", hint=_FILE_HINT
        ) from None  # the error's own text repeats the values
    except OSError as error:
        raise SettingsError(f"settings file '{path}' cannot be read: {error.strerror}", hint=_FILE_HINT) from error


def _refuse_unknown(names: Iterable[str]) -> None:
    known = {alias for aliases in variable_names().values() for alias in aliases} | {ENV_FILE_VARIABLE}
    unknown = sorted(name for name in names if name.upper().startswith(PREFIX) and name.upper() not in known)
    if unknown:
        raise SettingsError(
            "unknown settings: " + ", ".join(f"'{name}'" for name in unknown),
            hint="Look for a spelling mistake: every setting is listed in .env.example.",
        )


def _describe(error: ValidationError) -> list[str]:
    names = variable_names()
    lines = []
    for item in error.errors(include_input=False, include_url=False, include_context=False):
        field = str(item["loc"][0]) if item["loc"] else ""
        variable = names[field][0] if field in names else field
        message = item["msg"].removeprefix("Value error, ")
        lines.append(f"{variable}: {message}" if variable else message)
    return lines
