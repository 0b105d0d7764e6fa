"""A store is opened as its settings say, and each setting that it lacks is named."""

from pathlib import Path

import pytest

from testbed.ports import LOOPBACK
from testbed.tls import TlsFiles
from wal_pipeline.errors import ObjectMissingError, SettingsError
from wal_pipeline.settings import STORE_NAMES, Settings, load_settings
from wal_pipeline.stores.s3.profiles import PROFILES
from wal_pipeline.stores.s3.store import S3Store
from wal_pipeline.wiring.stores import missing_settings, open_store
from wal_pipeline_tests.support.connect_proxy import ConnectProxy
from wal_pipeline_tests.support.scripted_server import ScriptedServer, error_reply

KEYS = {f"{store}_{name}": "x" for store in ("R2", "B2") for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")}
BUCKETS = KEYS | {"R2_BUCKET_NAME": "ours", "B2_BUCKET_NAME": "ours"}


def settings_of(folder: Path, **given: str) -> Settings:
    (file := folder / "settings.env").touch()
    return load_settings(BUCKETS | given, file)


@pytest.mark.parametrize(
    ("name", "given", "endpoint_url", "region"),
    [
        ("r2", {"R2_ACCOUNT_ID": "Account"}, "https://account.r2.cloudflarestorage.com", "auto"),
        ("r2", {"R2_ENDPOINT_URL": "https://s3.example.org"}, "https://s3.example.org", "auto"),
        ("b2", {"B2_REGION": "us-east-005"}, "https://s3.us-east-005.backblazeb2.com", "us-east-005"),
        ("b2", {"B2_ENDPOINT_URL": "https://s3.eu-1.example.org"}, "https://s3.eu-1.example.org", "eu-1"),
        ("b2", {"B2_ENDPOINT_URL": "https://s3.example", "B2_REGION": "eu-2"}, "https://s3.example", "eu-2"),
    ],
)
def test_where_a_bucket_is_reached(
    tmp_path: Path, name: str, given: dict[str, str], endpoint_url: str, region: str
) -> None:
    """The endpoint is made from the account or the region, unless it is set; twice as many connections as copies."""
    settings = settings_of(tmp_path, WAL_PIPELINE_CONCURRENCY="3", **given)
    assert missing_settings(settings, name) == []
    store = open_store(settings, name)
    assert isinstance(store, S3Store)
    assert store.profile is PROFILES[name]
    connection = store._client.connection
    assert (connection.store, connection.bucket) == (name, "ours")
    assert (connection.endpoint_url, connection.region, connection.concurrency) == (endpoint_url, region, 6)


def test_a_region_that_no_setting_names(tmp_path: Path) -> None:
    """An endpoint that does not name one needs the setting."""
    with pytest.raises(SettingsError) as raised:
        open_store(settings_of(tmp_path, B2_ENDPOINT_URL="https://127.0.0.1:9000"), "b2")
    assert raised.value.hint == "Set B2_REGION."


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("r2", ["R2_ACCOUNT_ID", "R2_BUCKET_NAME", "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY"]),
        ("b2", ["B2_REGION", "B2_BUCKET_NAME", "B2_ACCESS_KEY_ID", "B2_SECRET_ACCESS_KEY"]),
        ("local", ["WAL_PIPELINE_LOCAL_STORE_FOLDER"]),
    ],
)
def test_what_a_store_needs(tmp_path: Path, name: str, missing: list[str]) -> None:
    """Every store's settings are named, in the order in which a person sets them."""
    (file := tmp_path / "settings.env").touch()
    assert missing_settings(load_settings({}, file), name) == missing


def test_every_store_has_settings(tmp_path: Path) -> None:
    """No name can be chosen that nothing opens."""
    for name in STORE_NAMES:
        assert missing_settings(settings_of(tmp_path), name)


def test_no_folder(tmp_path: Path) -> None:
    """A local store without a folder names its setting."""
    with pytest.raises(SettingsError, match=r"^settings are missing: WAL_PIPELINE_LOCAL_STORE_FOLDER\n"):
        open_store(settings_of(tmp_path), "local")


def test_no_store(tmp_path: Path) -> None:
    """A misspelt name is said, with the names that there are."""
    with pytest.raises(SettingsError) as raised:
        missing_settings(settings_of(tmp_path), "s3")
    assert raised.value.message == "'s3' is not a store, expected one of r2, b2, local"


@pytest.mark.parametrize("bypassed", [False, True])
def test_a_proxy_in_the_settings_file_is_not_ignored(tmp_path: Path, tls_files: TlsFiles, bypassed: bool) -> None:
    """A restore command has the file, and the environment of whatever started PostgreSQL."""
    with (
        ConnectProxy() as proxy,
        ScriptedServer(tls_files, [error_reply(404, "NoSuchKey"), error_reply(404, "NoSuchKey")]) as server,
    ):
        lines = {
            "HTTPS_PROXY": proxy.url,
            "NO_PROXY": LOOPBACK if bypassed else "example.org",
            "R2_ENDPOINT_URL": server.url,
            "WAL_PIPELINE_CA_BUNDLE": str(tls_files.ca_bundle),
        }
        (file := tmp_path / "settings.env").write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        store = open_store(load_settings(BUCKETS, file), "r2")
        with pytest.raises(ObjectMissingError), store.open("a/b"):
            pass
        assert proxy.targets == ([] if bypassed else [server.url.removeprefix("https://")])
