"""What the program is told: names, values, their precedence, and that no error shows a value."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.archive.records import Codec
from wal_pipeline.errors import SettingsError
from wal_pipeline.settings import Settings, load_settings, variable_names
from wal_pipeline.wiring.pipeline import Pipeline

SECRET = "s3cr3t-value-that-must-not-be-seen"
STORES = {
    "R2_ACCOUNT_ID": "account",
    "R2_BUCKET_NAME": "bucket",
    "R2_ACCESS_KEY_ID": SECRET + "-r2-id",
    "R2_SECRET_ACCESS_KEY": SECRET + "-r2",
    "B2_BUCKET_NAME": "bucket",
    "B2_REGION": "us-east-005",
    "B2_ACCESS_KEY_ID": SECRET + "-b2-id",
    "B2_SECRET_ACCESS_KEY": SECRET + "-b2",
}


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder without a .env file."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(environment: dict[str, str]) -> SettingsError:
    with pytest.raises(SettingsError) as raised:
        load_settings(environment)
    return raised.value


def test_defaults() -> None:
    """Without any setting: the cluster 'main' on r2 and b2, gzip at its level 9, 30 days."""
    settings = load_settings({})
    assert (settings.cluster, settings.stores, settings.codec) == ("main", ("r2", "b2"), Codec.GZIP)
    assert (settings.codec_level, settings.retention_days, settings.archive_timeout_seconds) == (None, 30, 300)
    assert settings.catalog() == f"sqlite:///{settings.state_folder}/catalog.sqlite"
    assert settings.state_folder.is_absolute()


def test_the_given_names() -> None:
    """The names that were given are read as they are."""
    settings = load_settings(STORES | {"PGDATA": "/pgdata", "PG_WAL_ARCHIVE_DIR": "/spool"})
    assert (str(settings.pgdata), str(settings.spool_folder)) == ("/pgdata", "/spool")
    assert str(settings.quarantine()) == "/spool-quarantine"
    assert settings.r2_secret_access_key is not None
    assert settings.r2_secret_access_key.get_secret_value() == SECRET + "-r2"
    assert (settings.r2_account_id, settings.b2_region) == ("account", "us-east-005")


def test_every_name_is_read(tmp_path: Path) -> None:
    """Each field has a variable, and no two fields share one."""
    names = [name for aliases in variable_names().values() for name in aliases]
    assert len(names) == len(set(names))
    assert set(variable_names()) == set(Settings.model_fields)


@pytest.mark.parametrize(
    "name", ["WAL_PIPELINE_CODEK", "wal_pipeline_clusterr", "WAL_PIPELINE_", "WAL_PIPELINE_R2_REGION"]
)
def test_a_misspelt_name_is_refused(name: str) -> None:
    """An unknown name with our prefix is named, without its value."""
    error = refused({name: SECRET})
    assert error.message == f"unknown settings: '{name}'"
    assert error.hint == "Look for a spelling mistake: every setting is listed in .env.example."
    assert SECRET not in str(error)


def test_every_misspelt_name_is_named() -> None:
    """Both at once, in order, from the environment and the file."""
    Path(".env").write_text("WAL_PIPELINE_ZONE=1\n")
    assert refused({"WAL_PIPELINE_ALPHA": "1"}).message == "unknown settings: 'WAL_PIPELINE_ALPHA', 'WAL_PIPELINE_ZONE'"


def test_other_programs_names_are_none_of_ours() -> None:
    """What does not begin with our prefix may be anything."""
    assert (
        load_settings({"AWS_PROFILE": "x", "DAGSTER_HOME": "/x", "PGUSER": "me", "R2_SOMETHING": "x"}).cluster == "main"
    )


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("WAL_PIPELINE_CODEC", "brotli", "Input should be 'gzip', 'zstd', 'lz4' or 'none'"),
        ("WAL_PIPELINE_CONCURRENCY", "0", "Input should be greater than or equal to 1"),
        ("WAL_PIPELINE_CONCURRENCY", "four", "Input should be a valid integer, unable to parse string as an integer"),
        ("WAL_PIPELINE_RETENTION_DAYS", "-1", "Input should be greater than or equal to 1"),
        ("WAL_PIPELINE_READ_BACK", "perhaps", "Input should be a valid boolean, unable to interpret input"),
        ("WAL_PIPELINE_MEMORY_BYTES", "1000", "Input should be greater than or equal to 2097152"),
        ("WAL_PIPELINE_SYSTEM_IDENTIFIER", "0", "Input should be greater than or equal to 1"),
        ("WAL_PIPELINE_STORES", "r2,s4", "Input should be 'r2', 'b2' or 'local'"),
    ],
)
def test_a_wrong_value_is_named_by_its_setting(name: str, value: str, message: str) -> None:
    """The message says which setting and what is expected."""
    error = refused({name: value})
    assert error.message == f"{name}: {message}"
    assert error.hint == "Every setting is explained in .env.example."


def test_all_wrong_values_are_told_at_once() -> None:
    """One line each, so that they are mended in one go."""
    error = refused({"WAL_PIPELINE_CONCURRENCY": "0", "WAL_PIPELINE_CODEC": "x"})
    assert sorted(line.split(":")[0] for line in error.message.splitlines()) == [
        "WAL_PIPELINE_CODEC",
        "WAL_PIPELINE_CONCURRENCY",
    ]


@pytest.mark.parametrize("stores", ["r2,r2", ","])
def test_stores_are_named_once(stores: str) -> None:
    """A store twice, or none at all, is refused."""
    assert refused({"WAL_PIPELINE_STORES": stores}).message == (
        "WAL_PIPELINE_STORES must name each store once, and at least one"
    )


@pytest.mark.parametrize("cluster", ["../x", "a/b", "-a", "a b"])
def test_a_clusters_name_is_part_of_keys(cluster: str) -> None:
    """A name that cannot be part of a key is refused when the settings are read."""
    assert (
        f"the cluster's name '{cluster}' cannot be part of an object key"
        in refused({"WAL_PIPELINE_CLUSTER": cluster}).message
    )


def test_lists_are_parted_by_commas_or_spaces() -> None:
    """Both read the same."""
    for text in ("b2,local", "b2 local", " b2 , local "):
        assert load_settings({"WAL_PIPELINE_STORES": text}).stores == ("b2", "local")


def test_an_empty_value_is_no_value() -> None:
    """A line such as NAME= in a file leaves the default."""
    assert load_settings({"WAL_PIPELINE_CODEC": "", "R2_ENDPOINT_URL": ""}).codec is Codec.GZIP


def test_precedence(tmp_path: Path) -> None:
    """The environment wins over the file; a file that is named wins over .env; a named file must exist."""
    Path(".env").write_text("WAL_PIPELINE_CODEC=lz4\nWAL_PIPELINE_CLUSTER=from-dotenv\n")
    assert load_settings({}).cluster == "from-dotenv"
    assert load_settings({"WAL_PIPELINE_CODEC": "zstd"}).codec is Codec.ZSTD
    assert load_settings({"WAL_PIPELINE_CODEC": "zstd"}).cluster == "from-dotenv"
    (tmp_path / "other").write_text("WAL_PIPELINE_CLUSTER=from-other\n")
    assert load_settings({"WAL_PIPELINE_ENV_FILE": str(tmp_path / "other")}).cluster == "from-other"
    assert load_settings({}, tmp_path / "other").cluster == "from-other"
    with pytest.raises(SettingsError, match=r"settings file '/none/\.env' does not exist"):
        load_settings({}, Path("/none/.env"))


def test_folders_stay_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative folder is that of the start, wherever the program goes later."""
    settings = load_settings({"PG_WAL_ARCHIVE_DIR": "spool", "WAL_PIPELINE_STATE_DIR": "~/state"})
    assert settings.spool_folder == tmp_path / "spool"
    assert settings.state_folder == Path.home() / "state"


def test_missing_credentials_are_named() -> None:
    """Every missing setting of every store at once, and of no store that is not used."""
    pipeline = Pipeline(load_settings({"R2_BUCKET_NAME": "bucket"}))
    with pytest.raises(SettingsError) as raised:
        _ = pipeline.stores
    assert raised.value.message == (
        "settings are missing: R2_ACCOUNT_ID, R2_ACCESS_KEY_ID, R2_SECRET_ACCESS_KEY, "
        "B2_REGION, B2_BUCKET_NAME, B2_ACCESS_KEY_ID, B2_SECRET_ACCESS_KEY"
    )
    assert raised.value.hint == (
        "Set them in the environment or in .env; WAL_PIPELINE_STORES says which stores are used."
    )
    only_b2 = Pipeline(
        load_settings({"WAL_PIPELINE_STORES": "b2"} | {k: v for k, v in STORES.items() if k[:2] == "B2"})
    )
    assert list(only_b2.stores) == ["b2"]
    local = Pipeline(load_settings({"WAL_PIPELINE_STORES": "local"}))
    with pytest.raises(SettingsError, match="settings are missing: WAL_PIPELINE_LOCAL_STORE_FOLDER"):
        _ = local.stores


def test_a_missing_spool_is_named() -> None:
    """Commands that need the spool say which setting is not there."""
    with pytest.raises(SettingsError, match="PG_WAL_ARCHIVE_DIR is not set"):
        _ = Pipeline(load_settings({})).spool


@pytest.mark.parametrize("store", ["R2", "B2"])
@pytest.mark.parametrize(
    "url", ["http://minio.example.org:9000", "http://127.0.0.1.example.org", "minio:9000", "ftp://x"]
)
def test_an_endpoint_without_tls_is_refused(store: str, url: str) -> None:
    """What is sent would be read on the way."""
    assert refused({f"{store}_ENDPOINT_URL": url}).message == f"{store}_ENDPOINT_URL: must begin with https://"


@pytest.mark.parametrize(
    "url", ["https://minio.example.org:9000", "HTTPS://x", "http://127.0.0.1:9000", "http://[::1]:1"]
)
def test_an_endpoint_with_tls_or_on_loopback_is_taken(url: str) -> None:
    """A proxy of one's own on this machine may end the TLS."""
    assert load_settings({"R2_ENDPOINT_URL": url}).r2_endpoint_url == url


def test_secrets_are_shown_nowhere() -> None:
    """Neither the settings, the objects made from them, nor an error that follows shows one."""
    urls = f"https://user:{SECRET}@example.org/hook"
    environment = STORES | {
        "WAL_PIPELINE_CONNINFO": f"host=db password={SECRET}",
        "WAL_PIPELINE_CATALOG_URL": f"postgresql://u:{SECRET}@db/x",
        "WAL_PIPELINE_NOTIFICATION_URLS": urls,
    }
    settings = load_settings(environment)
    pipeline = Pipeline(settings)
    shown = [repr(settings), str(settings), repr(pipeline), str(pipeline.stores), repr(settings.model_dump())]
    shown.append(settings.model_dump_json())
    shown += [repr(vars(store)) for store in pipeline.stores.values()]
    assert not [text for text in shown if SECRET in text]
    assert len(settings.secret_values()) == 7
    assert all(SECRET in value for value in settings.secret_values())
    assert SECRET not in str(refused(environment | {"WAL_PIPELINE_CODEC": SECRET, "WAL_PIPELINE_STORES": SECRET}))


@given(
    st.dictionaries(
        st.sampled_from(sorted(name for names in variable_names().values() for name in names)),
        st.text(min_size=8, max_size=20),
        max_size=5,
    )
)
def test_no_error_shows_a_secret(values: dict[str, str]) -> None:
    """Whatever stands in the settings that hold secrets, an error about any setting does not repeat it."""
    secrets = {name: f"{SECRET}{value}" for name, value in values.items() if "SECRET" in name or "URL" in name}
    try:
        load_settings({name: value for name, value in (values | secrets).items() if name != "WAL_PIPELINE_ENV_FILE"})
    except SettingsError as error:
        assert SECRET not in str(error)


def test_settings_file_that_is_no_text(tmp_path: Path) -> None:
    """It is refused with its name and a way out, and nothing that it holds is repeated."""
    (file := tmp_path / "latin.env").write_bytes(f"R2_SECRET_ACCESS_KEY={SECRET}\n# caf\xe9\n".encode("latin-1"))
    with pytest.raises(SettingsError) as found:
        load_settings({}, file)
    position = len(f"R2_SECRET_ACCESS_KEY={SECRET}\n# caf") + 1
    assert found.value.message == f"settings file '{file}' is no UTF-8 text: byte {position} cannot be read"
    assert found.value.hint == (
        "Name a copy of .env.example with --env-file or WAL_PIPELINE_ENV_FILE; without either, ./.env is read."
    )


def test_settings_file_that_is_not_there(tmp_path: Path) -> None:
    """It is named, with a way out."""
    with pytest.raises(SettingsError, match=r"settings file '.*none' does not exist\nHINT: Name a copy"):
        load_settings({}, tmp_path / "none")


@pytest.mark.parametrize("around", ["\n", " ", "\r\n", "\t", "\ufeff"])
def test_white_space_at_the_end_of_a_key_is_no_part_of_it(around: str) -> None:
    """A mounted secret ends in a line feed, and made each request fail with the key in its text."""
    names = ("R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY", "B2_ACCESS_KEY_ID", "B2_SECRET_ACCESS_KEY")
    settings = load_settings(dict.fromkeys(names, f"key{around}") | {"R2_BUCKET_NAME": f"ours{around}"})
    assert settings.r2_bucket_name == "ours"
    assert set(settings.secret_values()) == {"key"}


@pytest.mark.parametrize("inside", ["one two", "one\ntwo", "clé", "one\x00two", "“key”"])
def test_a_key_with_what_no_key_has_is_refused_when_it_is_read(inside: str) -> None:
    """By its name, without its value."""
    with pytest.raises(SettingsError) as found:
        load_settings({"B2_ACCESS_KEY_ID": inside})
    assert found.value.message == (
        "B2_ACCESS_KEY_ID: has white space, or a letter that no such name or key has, inside"
    )


@pytest.mark.parametrize(
    ("given", "proxy"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "http://proxy:3128"),
        ({"https_proxy": "proxy:3128"}, "http://proxy:3128"),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "example.org"}, "http://proxy:3128"),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "example.org, .example.com"}, ""),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "s3.example.com:9000"}, ""),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "s3.example.com:9001"}, "http://proxy:3128"),
        ({"HTTPS_PROXY": "socks5://proxy:1080", "NO_PROXY": "*"}, ""),
    ],
)
def test_a_proxy_in_the_settings_counts_for_a_store(given: dict[str, str], proxy: str | None) -> None:
    """As other programs read the two names."""
    assert load_settings(given).proxy_for("https://s3.example.com:9000") == proxy


def test_a_proxy_that_cannot_be_used_is_refused_without_its_password() -> None:
    """Not when the settings are read: a local store needs none."""
    settings = load_settings({"HTTPS_PROXY": f"socks5://me:{SECRET}@proxy:1080"})
    with pytest.raises(SettingsError, match="HTTPS_PROXY cannot be used") as found:
        settings.proxy_for("https://s3.example.com")
    assert SECRET not in str(found.value)
    assert SECRET not in repr(settings)
