"""No thing that a setting names is left out of a check, nor of what the systemd units may reach."""

from pathlib import Path

import pytest

from wal_pipeline.settings import Settings, load_settings, variable_names
from wal_pipeline.wiring.check import named_things, used_paths
from wal_pipeline.wiring.pipeline import Pipeline

SPOOL = {"PG_WAL_ARCHIVE_DIR": "/srv/spool"}
# Restores write there, and are started by a person or name it in the UI.
NOT_THE_UNITS = {"PGDATA"}
# Settings with a path that other items of a check open, or that need not be there.
_OPENED_ELSEWHERE = {"spool_folder", "local_store_folder", "pgdata"}


@pytest.fixture
def tmp_path(lasting_path: Path) -> Path:
    """A folder at which the relative paths of these tests begin."""
    return lasting_path


@pytest.mark.parametrize(
    "field",
    ["age_recipients", *sorted(name for name, one in Settings.model_fields.items() if "Path" in str(one.annotation))],
)
def test_no_setting_that_names_a_thing_is_left_out(field: str, tmp_path: Path) -> None:
    """Each path setting, also one that is added later, is among the things to open."""
    alias = str(Settings.model_fields[field].validation_alias or f"WAL_PIPELINE_{field.upper()}")
    variable = "WAL_PIPELINE_STATE_DIR" if field == "state_folder" else alias
    settings = load_settings({"PG_WAL_ARCHIVE_DIR": str(tmp_path / "spool"), variable: str(tmp_path / "a-thing")})
    found = repr(named_things(Pipeline(settings)))
    assert (f"{tmp_path}/a-thing'" in found) is (field not in _OPENED_ELSEWHERE)


def test_the_files_of_the_connection(tmp_path: Path) -> None:
    """They are named in the connection string or by libpq's variables in the settings file."""
    (tmp_path / "env").write_text(
        "WAL_PIPELINE_CONNINFO=host=db sslcert=client.pem\nPGSSLROOTCERT=ca.pem\n"
        "WAL_PIPELINE_NOTIFICATION_URLS=json://h/a json://h/b\n"
    )
    named = named_things(Pipeline(load_settings({}, tmp_path / "env")))
    assert named.connection_files == {"sslrootcert": tmp_path / "ca.pem", "sslcert": tmp_path / "client.pem"}
    assert len(named.notification_urls) == 2
    assert "json://" not in repr(named)


def pipeline_of(folder: Path, **given: str) -> Pipeline:
    (file := folder / "empty.env").touch()
    return Pipeline(load_settings(SPOOL | given, file))


def test_no_setting_with_a_path_is_missing_from_what_the_units_may_reach(tmp_path: Path) -> None:
    """A new setting with a folder must say whether the units have to reach it."""
    fields = {
        name: names[0]
        for name, names in variable_names().items()
        if "Path" in str(Settings.model_fields[name].annotation) and names[0] not in NOT_THE_UNITS
    }
    assert len(fields) >= 10
    given = {variable: f"/srv/{name}" for name, variable in fields.items()}
    used = used_paths(pipeline_of(tmp_path, **given, WAL_PIPELINE_STORES="local"))
    assert {one.variable for one in used} >= set(fields.values())


def test_no_folder_that_follows_from_another_is_missing(tmp_path: Path) -> None:
    """The quarantine beside the spool, an SQLite catalog of its own, the folder in which a drill makes its own."""
    given = {
        "WAL_PIPELINE_CATALOG_URL": "sqlite:////srv/records/catalog.sqlite",
        "WAL_PIPELINE_DRILL_FOLDER": "/srv/drills/main",
        "WAL_PIPELINE_STATE_DIR": "/srv/state",
    }
    paths = {str(one.path) for one in used_paths(pipeline_of(tmp_path, **given)) if one.writes}
    assert paths == {"/srv/spool", "/srv/spool-quarantine", "/srv/state", "/srv/records", "/srv/drills"}


def test_a_catalog_on_a_server_needs_no_folder(tmp_path: Path) -> None:
    """Nor does an SQLite file in the state folder."""
    given = {"WAL_PIPELINE_CATALOG_URL": "postgresql://u:p@host/records"}
    assert "WAL_PIPELINE_CATALOG_URL" not in {one.variable for one in used_paths(pipeline_of(tmp_path, **given))}
