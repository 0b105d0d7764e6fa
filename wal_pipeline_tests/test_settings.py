"""Tests the settings: names, values, precedence, and that no error shows a value."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.archive.records import Codec
from wal_pipeline.errors import SettingsError
from wal_pipeline.settings import Settings, load_settings, pin_paths, variable_names
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


@pytest.fixture
def tmp_path(lasting_path: Path) -> Path:
    """A folder at which the relative paths of these tests begin."""
    return lasting_path


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
    """PGDATA, PG_WAL_ARCHIVE_DIR and the stores' names are read without our prefix."""
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
    """One error names all misspelt settings of the environment and the file, in order."""
    Path(".env").write_text("WAL_PIPELINE_ZONE=1\n")
    assert refused({"WAL_PIPELINE_ALPHA": "1"}).message == "unknown settings: 'WAL_PIPELINE_ALPHA', 'WAL_PIPELINE_ZONE'"


def test_other_programs_names_are_none_of_ours() -> None:
    """A name without our prefix is ignored."""
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
    """The error has a line for each wrong value, so that all are mended in one go."""
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
    """Commas and spaces part a list in the same way."""
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
    """A relative folder belongs to the folder at the start, whatever the current folder is later."""
    settings = load_settings({"PG_WAL_ARCHIVE_DIR": "spool", "WAL_PIPELINE_STATE_DIR": "~/state"})
    assert settings.spool_folder == tmp_path / "spool"
    assert settings.state_folder == Path.home() / "state"


def test_missing_credentials_are_named() -> None:
    """One error names every missing setting of the stores in use."""
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
    """Commands that need the spool name the missing setting."""
    with pytest.raises(SettingsError, match="PG_WAL_ARCHIVE_DIR is not set"):
        _ = Pipeline(load_settings({})).spool


@pytest.mark.parametrize("store", ["R2", "B2"])
@pytest.mark.parametrize(
    "url", ["http://minio.example.org:9000", "http://127.0.0.1.example.org", "minio:9000", "ftp://x"]
)
def test_an_endpoint_without_tls_is_refused(store: str, url: str) -> None:
    """Without TLS others could read the data on their way."""
    assert refused({f"{store}_ENDPOINT_URL": url}).message == f"{store}_ENDPOINT_URL: must begin with https://"


@pytest.mark.parametrize(
    "url", ["https://minio.example.org:9000", "HTTPS://x", "http://127.0.0.1:9000", "http://[::1]:1"]
)
def test_an_endpoint_with_tls_or_on_loopback_is_taken(url: str) -> None:
    """A proxy on this machine may end the TLS."""
    assert load_settings({"R2_ENDPOINT_URL": url}).r2_endpoint_url == url


def test_secrets_are_shown_nowhere() -> None:
    """Neither the settings, nor the objects made from them, nor a later error shows a secret."""
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
    """No error about a setting repeats the value of a secret."""
    secrets = {name: f"{SECRET}{value}" for name, value in values.items() if "SECRET" in name or "URL" in name}
    try:
        load_settings({name: value for name, value in (values | secrets).items() if name != "WAL_PIPELINE_ENV_FILE"})
    except SettingsError as error:
        assert SECRET not in str(error)


def test_settings_file_that_is_no_text(tmp_path: Path) -> None:
    """The error names the file and a way out, and repeats none of its content."""
    (file := tmp_path / "latin.env").write_bytes(f"R2_SECRET_ACCESS_KEY={SECRET}\n# caf\xe9\n".encode("latin-1"))
    with pytest.raises(SettingsError) as found:
        load_settings({}, file)
    position = len(f"R2_SECRET_ACCESS_KEY={SECRET}\n# caf") + 1
    assert found.value.message == f"settings file '{file}' is no UTF-8 text: byte {position} cannot be read"
    assert found.value.hint == (
        "Name a copy of .env.example with --env-file or WAL_PIPELINE_ENV_FILE; without either, ./.env is read."
    )


def test_settings_file_that_is_not_there(tmp_path: Path) -> None:
    """The error names the file and a way out."""
    with pytest.raises(SettingsError, match=r"settings file '.*none' does not exist\nHINT: Name a copy"):
        load_settings({}, tmp_path / "none")


def in_file(folder: Path, content: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "env").write_text(content)
    return folder / "env"


def test_paths_in_a_file_begin_at_its_folder(tmp_path: Path) -> None:
    """The same file means the same places from wherever a command is typed; ~ is the home folder."""
    file = in_file(
        tmp_path / "etc",
        "WAL_PIPELINE_AGE_IDENTITY_FILE=age-identity.txt\nPGBINDIR=bin15\nPGDATA=~/data\n"
        "WAL_PIPELINE_CATALOG_URL=sqlite:///cat.sqlite\nWAL_PIPELINE_DRILL_SQL_FILE=/srv/drill.sql\n",
    )
    settings = load_settings({"WAL_PIPELINE_STATE_DIR": "state"}, file)
    assert settings.age_identity_file == tmp_path / "etc" / "age-identity.txt"
    assert settings.pgbindir == tmp_path / "etc" / "bin15"
    assert settings.pgdata == Path.home() / "data"
    assert settings.catalog() == f"sqlite:///{tmp_path}/etc/cat.sqlite"
    assert settings.drill_sql_file == Path("/srv/drill.sql")
    assert settings.state_folder == tmp_path / "state"


PATHS = sorted(name for name, field in Settings.model_fields.items() if "Path" in str(field.annotation))


@pytest.mark.parametrize("field", PATHS)
def test_no_path_depends_on_the_folder_of_the_day(field: str, tmp_path: Path) -> None:
    """Each path setting, also one that is added later: absolute in the end, with ~ expanded, and without variables."""
    name = variable_names()[field][0]
    file = in_file(tmp_path / "etc", f"{name}=some/place\n")
    assert getattr(load_settings({}, file), field) == tmp_path / "etc" / "some" / "place"
    assert getattr(load_settings({name: "some/place"}), field) == tmp_path / "some" / "place"
    assert getattr(load_settings({name: "~/place"}), field) == Path.home() / "place"
    message = f"{name}: has a '$', which is not replaced here: write the path in full, or begin it with ~"
    for environment, named in (({name: "${HOME}/place"}, None), ({}, in_file(tmp_path / "etc", f"{name}=$HOME/x\n"))):
        with pytest.raises(SettingsError) as caught:
            load_settings(environment, named)
        assert caught.value.message == message


def test_paths_in_the_environment_stay_where_they_are(tmp_path: Path) -> None:
    """A restore_command runs in the data directory: it must not look for the identity there."""
    environment = {
        "WAL_PIPELINE_AGE_IDENTITY_FILE": "age.txt",
        "WAL_PIPELINE_CATALOG_URL": "sqlite:///c",
        "PGHOST": "x",
    }
    pin_paths(environment)
    assert environment == {
        "WAL_PIPELINE_AGE_IDENTITY_FILE": f"{tmp_path}/age.txt",
        "WAL_PIPELINE_CATALOG_URL": f"sqlite:///{tmp_path}/c",
        "PGHOST": "x",
    }


def test_libpqs_variables_in_the_file_are_not_passed_over(tmp_path: Path) -> None:
    """They were ignored without a word. The environment wins over them, by name."""
    file = in_file(
        tmp_path / "etc", f"PGHOST=db\nPGPORT=5433\nPGPASSWORD='{SECRET} x'\nPGSSLROOTCERT=ca.pem\nPGDATESTYLE=German\n"
    )
    settings = load_settings({"PGPORT": "5434"}, file)
    assert settings.server_variables == {
        "PGHOST": "db",
        "PGPASSWORD": f"{SECRET} x",
        "PGSSLROOTCERT": f"{tmp_path}/etc/ca.pem",
    }
    assert settings.secret_values() == (f"{SECRET} x",)
    assert SECRET not in repr(settings) + repr(settings.model_dump()) + repr(Pipeline(settings))
    assert settings.conninfo_folder == tmp_path
    with pytest.raises(SettingsError, match="PGSERVICEFILE cannot stand in a settings file"):
        load_settings({}, in_file(tmp_path / "etc", "PGSERVICEFILE=/x\n"))


def test_relative_files_of_the_connection_begin_at_the_settings_file(tmp_path: Path) -> None:
    """libpq takes the current folder, which is another one for a schedule and for a person."""
    settings = load_settings({}, in_file(tmp_path / "etc", "WAL_PIPELINE_CONNINFO=host=db sslrootcert=ca.pem\n"))
    parameters = Pipeline(settings).server._parameters
    assert parameters == {"host": "db", "sslrootcert": f"{tmp_path}/etc/ca.pem"}


@pytest.mark.parametrize("end", ["\n", "\r\n", " ", "\t"])
def test_white_space_at_the_end_of_a_value_is_no_part_of_it(end: str) -> None:
    """A secret read from a file often ends in a line feed, with which no request can be signed."""
    settings = load_settings(
        {name: value + end for name, value in STORES.items()}
        | {"WAL_PIPELINE_CLUSTER": f"orders{end}", "PGDATA": f"/pgdata{end}", "WAL_PIPELINE_CONCURRENCY": f" 3{end}"}
    )
    assert (settings.cluster, settings.concurrency, settings.pgdata) == ("orders", 3, Path("/pgdata"))
    assert settings.r2_access_key_id is not None
    assert settings.r2_access_key_id.get_secret_value() == STORES["R2_ACCESS_KEY_ID"]


@pytest.mark.parametrize("name", [name for name in STORES if "ACCESS_KEY" in name])
@pytest.mark.parametrize("value", [f"{SECRET}\n{SECRET}", f"{SECRET} x", f"{SECRET}ö", f'"{SECRET}"', f"'{SECRET}'"])
def test_a_key_that_cannot_be_right_is_refused_without_being_shown(name: str, value: str) -> None:
    """A line feed in the key id made an error that held the id in plain text, six times in one check."""
    error = refused(STORES | {name: value})
    assert error.message.startswith(f"{name}: has ")
    assert SECRET not in str(error)


def test_a_torn_line_ends_the_reading(tmp_path: Path) -> None:
    """A line that python-dotenv passes over let the cluster be 'main'."""
    with pytest.raises(SettingsError) as caught:
        load_settings({}, in_file(tmp_path / "etc", "WAL_PIPELINE_STORES=b2\nWAL_PIPELINE_CLUSTER: orders\n"))
    assert caught.value.message == (
        f"settings file '{tmp_path}/etc/env', line 2: 'WAL_PIPELINE_CLUSTER' has no '=' behind a name"
    )


def test_a_file_with_a_byte_order_mark(tmp_path: Path) -> None:
    """With older releases of python-dotenv the first setting was lost without a word."""
    file = in_file(tmp_path / "etc", "\ufeffWAL_PIPELINE_CLUSTER=orders\r\nWAL_PIPELINE_STORES=b2\r\n")
    assert (load_settings({}, file).cluster, load_settings({}, file).stores) == ("orders", ("b2",))


def test_nothing_in_the_file_is_replaced(tmp_path: Path) -> None:
    """A password may hold a dollar sign and a brace."""
    file = in_file(tmp_path / "etc", "WAL_PIPELINE_CONNINFO='host=db password=a${HOME}b$x'\n")
    assert load_settings({}, file).conninfo.get_secret_value() == "host=db password=a${HOME}b$x"


def test_an_empty_variable_takes_the_files_value_away(tmp_path: Path) -> None:
    """The environment wins over the file, also where it says nothing."""
    file = in_file(tmp_path / "etc", "WAL_PIPELINE_CLUSTER=orders\n")
    assert load_settings({"WAL_PIPELINE_CLUSTER": ""}, file).cluster == "main"


def test_recipients_and_urls_are_not_torn() -> None:
    """An SSH public key has spaces, and a URL may have commas."""
    settings = load_settings(
        {
            "WAL_PIPELINE_AGE_RECIPIENTS": "ssh-ed25519 AAAA me@host,age1x\nssh-rsa BBBB\n",
            "WAL_PIPELINE_NOTIFICATION_URLS": "mailto://u:p@h?to=a@x,b@x\njson://u:pa,ss@h",
        }
    )
    assert settings.age_recipients == ("ssh-ed25519 AAAA me@host", "age1x", "ssh-rsa BBBB")
    assert [url.get_secret_value() for url in settings.notification_urls] == [
        "mailto://u:p@h?to=a@x,b@x",
        "json://u:pa,ss@h",
    ]
