"""Tests which server a rescue loads into, and that a password goes to no other one, nor to a command line."""

from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from wal_pipeline.commands.rescue.wanted import RescueOptionError
from wal_pipeline.errors import SettingsError
from wal_pipeline.settings import Settings, load_settings
from wal_pipeline.wiring.rescue import living_server


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings with a server that has a password."""
    monkeypatch.delenv("PGPASSWORD", raising=False)
    conninfo = "host=db port=5433 user=wal_pipeline password=word-17 dbname=postgres"
    return load_settings({"WAL_PIPELINE_CONNINFO": conninfo, "WAL_PIPELINE_STATE_DIR": str(tmp_path)})


def test_a_database_alone_is_of_the_server_of_the_settings(settings: Settings) -> None:
    """With its password, which programs get in their environment."""
    server = living_server(settings, "dbname=shop user=owner")
    found = conninfo_to_dict(server.program_conninfo())
    assert found == {"host": "db", "port": "5433", "user": "owner", "dbname": "shop"}
    assert server.program_environment()["PGPASSWORD"] == server.secret == "word-17"


@pytest.mark.parametrize("into", ["host=other", "port=5434 dbname=shop", "service=shop", "postgresql://other/shop"])
def test_another_server_gets_nothing_of_the_settings(settings: Settings, into: str) -> None:
    """Least of all the password."""
    server = living_server(settings, into)
    assert "db " not in server.program_conninfo()
    assert server.secret == ""
    assert "PGPASSWORD" not in server.program_environment()


@pytest.mark.parametrize(
    "into", ["host=other password=word-18", "postgresql://me:word-18@other/shop", "sslpassword=word-18"]
)
def test_a_password_is_refused_and_not_shown(settings: Settings, into: str) -> None:
    """It stood on the command line already, and would stand in a run's configuration."""
    with pytest.raises(RescueOptionError) as error:
        living_server(settings, into)
    assert "word-18" not in str(error.value)


def test_a_string_that_cannot_be_read_is_not_shown(settings: Settings) -> None:
    """It may hold a password."""
    with pytest.raises(SettingsError) as error:
        living_server(settings, "host other word-19")
    assert "word-19" not in str(error.value)
