"""Tests the settings of shipping."""

import pytest

from wal_pipeline.errors import SettingsError
from wal_pipeline.settings import load_settings

INTERVAL = "WAL_PIPELINE_SHIP_INTERVAL_SECONDS"


def test_the_open_segment_is_shipped_by_default() -> None:
    """Every five seconds, from the data directory."""
    settings = load_settings({})
    assert (settings.ship_interval_seconds, settings.ship_from) == (5.0, "host")
    assert settings.ship_slot == "wal_pipeline_main"


@pytest.mark.parametrize("word", ["off", "OFF", " off "])
def test_a_word_switches_it_off(word: str) -> None:
    """Zero could be a typing error; a word is none."""
    assert load_settings({INTERVAL: word}).ship_interval_seconds is None


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "-inf"])
def test_an_interval_that_is_none_is_refused(value: str) -> None:
    """The error says what can be written, and nothing else."""
    with pytest.raises(SettingsError) as caught:
        load_settings({INTERVAL: value})
    assert caught.value.message == f"{INTERVAL}: must be a number of seconds above 0, or 'off'"


@pytest.mark.parametrize("value", ["five", "5s", "0x"])
def test_an_interval_that_is_no_number_is_refused(value: str) -> None:
    """The variable is named."""
    with pytest.raises(SettingsError, match=INTERVAL):
        load_settings({INTERVAL: value})


def test_a_misspelt_name_is_refused() -> None:
    """As for every other setting."""
    with pytest.raises(SettingsError, match="unknown settings: 'WAL_PIPELINE_SHIP_INTERVAL'"):
        load_settings({"WAL_PIPELINE_SHIP_INTERVAL": "5"})


def test_the_slot_is_named_after_the_cluster() -> None:
    """PostgreSQL takes lower-case letters, digits and underscores, 63 of them."""
    assert load_settings({"WAL_PIPELINE_CLUSTER": "Big-One.2"}).ship_slot == "wal_pipeline_big_one_2"
    assert load_settings({"WAL_PIPELINE_CLUSTER": "x" * 80}).ship_slot == "wal_pipeline_" + "x" * 50


def test_a_slot_that_postgresql_would_refuse() -> None:
    """It is refused when the settings are read, not when the slot is made."""
    with pytest.raises(SettingsError) as caught:
        load_settings({"WAL_PIPELINE_SHIP_SLOT": "Slot-1"})
    assert caught.value.message == "WAL_PIPELINE_SHIP_SLOT: must be 1 to 63 lower-case letters, digits and '_'"


def test_an_unknown_source_is_refused() -> None:
    """The two that exist are named."""
    with pytest.raises(SettingsError, match="'host' or 'pg_receivewal'"):
        load_settings({"WAL_PIPELINE_SHIP_FROM": "standby"})
