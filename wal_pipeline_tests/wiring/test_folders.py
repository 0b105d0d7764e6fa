"""No folder that a setting names is left out of what the systemd units may write to."""

from pathlib import Path

from wal_pipeline.settings import Settings, load_settings, variable_names
from wal_pipeline.wiring.folders import used_paths

SPOOL = {"PG_WAL_ARCHIVE_DIR": "/srv/spool"}
# Restores write there, and are started by a person or name it in the UI.
NOT_THE_UNITS = {"PGDATA"}


def settings_of(folder: Path, **given: str) -> Settings:
    (file := folder / "empty.env").touch()
    return load_settings(SPOOL | given, file)


def test_every_setting_that_is_a_path_is_among_them(tmp_path: Path) -> None:
    """A new setting with a folder must say whether the units have to reach it."""
    fields = {
        name: names[0]
        for name, names in variable_names().items()
        if "Path" in str(Settings.model_fields[name].annotation) and names[0] not in NOT_THE_UNITS
    }
    assert len(fields) >= 10
    given = {variable: f"/srv/{name}" for name, variable in fields.items()}
    used = used_paths(settings_of(tmp_path, **given, WAL_PIPELINE_STORES="local"))
    assert {one.variable for one in used} >= set(fields.values())


def test_folders_that_follow_from_others_are_among_them(tmp_path: Path) -> None:
    """The quarantine beside the spool, a SQLite catalog of its own, the folder in which a drill makes its own."""
    given = {
        "WAL_PIPELINE_CATALOG_URL": "sqlite:////srv/records/catalog.sqlite",
        "WAL_PIPELINE_DRILL_FOLDER": "/srv/drills/main",
        "WAL_PIPELINE_STATE_DIR": "/srv/state",
    }
    paths = {str(one.path) for one in used_paths(settings_of(tmp_path, **given)) if one.writes}
    assert paths == {"/srv/spool", "/srv/spool-quarantine", "/srv/state", "/srv/records", "/srv/drills"}


def test_a_catalog_on_a_server_needs_no_folder(tmp_path: Path) -> None:
    """Nor does a SQLite file in the state folder."""
    given = {"WAL_PIPELINE_CATALOG_URL": "postgresql://u:p@host/records"}
    assert "WAL_PIPELINE_CATALOG_URL" not in {one.variable for one in used_paths(settings_of(tmp_path, **given))}
