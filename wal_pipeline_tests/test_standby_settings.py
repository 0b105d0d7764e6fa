"""Tests the settings around a standby."""

from pathlib import Path

import pytest

from wal_pipeline.errors import SettingsError
from wal_pipeline.postgres.server import PostgresServer
from wal_pipeline.settings import load_settings
from wal_pipeline.wiring.pipeline import open_backup_server

SECRET = "s3cr3t-value-that-must-not-be-seen"


def test_base_backups_are_taken_from_the_server_itself_by_default() -> None:
    """An empty setting is none."""
    settings = load_settings({"WAL_PIPELINE_CONNINFO": "host=primary port=5432", "WAL_PIPELINE_BACKUP_CONNINFO": ""})
    assert open_backup_server(PostgresServer, settings).address == "primary, port 5432"


def test_a_connection_of_its_own_leads_to_a_standby() -> None:
    """What it does not name comes from libpq's variables of the settings file, not from the other connection."""
    given = {
        "WAL_PIPELINE_CONNINFO": "host=primary port=5432",
        "WAL_PIPELINE_BACKUP_CONNINFO": "host=standby port=5433",
    }
    assert open_backup_server(PostgresServer, load_settings(given)).address == "standby, port 5433"


def test_paths_in_it_begin_at_the_settings_file(lasting_path: Path) -> None:
    """As those in the connection to the server do."""
    file = lasting_path / "settings.env"
    file.write_text("WAL_PIPELINE_BACKUP_CONNINFO=host=standby passfile=pass\n")
    found = open_backup_server(PostgresServer, load_settings({}, file))
    assert found.connection_files == {"passfile": lasting_path / "pass"}


@pytest.mark.parametrize("name", ["WAL_PIPELINE_BACKUP_CONNINFO", "WAL_PIPELINE_PRIMARY_CONNINFO"])
def test_both_are_secrets(name: str) -> None:
    """They may hold a password: no representation shows it, and it is among the secrets."""
    settings = load_settings({name: f"host=a password={SECRET}"})
    assert SECRET not in repr(settings)
    assert f"host=a password={SECRET}" in settings.secret_values()


def test_a_misspelt_name_is_refused() -> None:
    """As for every other setting."""
    with pytest.raises(SettingsError, match="WAL_PIPELINE_BACKUP_CONINFO"):
        load_settings({"WAL_PIPELINE_BACKUP_CONINFO": "host=a"})
