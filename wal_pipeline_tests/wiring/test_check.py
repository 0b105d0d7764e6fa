"""A check is given all that the settings name."""

from pathlib import Path

import pytest

from wal_pipeline.settings import Settings, load_settings
from wal_pipeline.wiring.check import named_things
from wal_pipeline.wiring.pipeline import Pipeline

# Settings with a path that other items of a check open, or that need not be there.
_OPENED_ELSEWHERE = {"spool_folder", "local_store_folder", "pgdata"}


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
